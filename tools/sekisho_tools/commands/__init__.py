"""One module per group of `sekisho` commands; they parse and print, the logic lives elsewhere."""
