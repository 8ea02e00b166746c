"""`python -m sekisho_tools` is the `sekisho` command."""

from .cli import main

main()
