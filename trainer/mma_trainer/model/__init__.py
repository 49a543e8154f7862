"""MMA-DFER in PyTorch: read config.py, then mma.py from top to bottom."""

from mma_trainer.labels import DFEW_LABELS, MAFW_LABELS
from mma_trainer.model.config import MMADFERConfig, config_of, describe_difference
from mma_trainer.model.mma import MMADFER

__all__ = ["DFEW_LABELS", "MAFW_LABELS", "MMADFER", "MMADFERConfig", "config_of", "describe_difference"]
