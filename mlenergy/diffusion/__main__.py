"""`python -m mlenergy.diffusion VERB`: the `mlenergy` command where its script is not on the path."""

import sys

from mlenergy.diffusion.cli import main

if __name__ == "__main__":
    sys.exit(main())
