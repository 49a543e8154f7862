"""The stable name under which other tools load a checkpoint: `mma_trainer.checkpoint.load_checkpoint(path)`."""

from mma_trainer.weights.checkpoint import load_checkpoint

__all__ = ["load_checkpoint"]
