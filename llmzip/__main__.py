"""Runs the command line for `python -m llmzip`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
