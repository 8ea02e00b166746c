"""Host side of Sekisho: the `sekisho` command and the modules behind it."""
