"""`python -m llmzip`; knows nothing but where the command line is."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
