"""`python -m klrubench`: the same as the `klrubench` command."""

from klrubench.cli import main

main()
