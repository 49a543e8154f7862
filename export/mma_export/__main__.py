"""`python -m mma_export` is mma-export."""

import sys

from mma_export.cli import main

if __name__ == "__main__":
    sys.exit(main())
