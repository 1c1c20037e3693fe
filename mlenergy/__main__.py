"""`python -m mlenergy VERB`: the `mlenergy` command where its script is not on the path."""

import sys

from mlenergy.cli import main

if __name__ == "__main__":
    sys.exit(main())
