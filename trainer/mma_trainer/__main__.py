"""`python -m mma_trainer` is mma-train; so is `torchrun --nproc-per-node 2 -m -- mma_trainer`, in two processes."""

import sys

from mma_trainer.entry import train

sys.exit(train())
