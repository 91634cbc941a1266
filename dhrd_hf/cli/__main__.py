"""`python -m dhrd_hf.cli`, for `torchrun -m` and `accelerate launch -m`."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
