"""MMA-DFER in PyTorch: read config.py, then mma.py from top to bottom."""

from mma_trainer.model.config import MMADFERConfig, config_of, differences
from mma_trainer.model.mma import MMADFER

__all__ = ["MMADFER", "MMADFERConfig", "config_of", "differences"]
