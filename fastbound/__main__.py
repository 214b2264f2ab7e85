"""``python -m fastbound`` is the command line."""

from fastbound.cli import main

main()
