"""Encoders pre-trained one by one, and how a pre-trained encoder becomes part of MMA-DFER."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mma_edge.errors import CheckpointError
from mma_trainer.checkpoint import Checkpoint, check_fit
from mma_trainer.model import MMADFER, MMADFERConfig
from mma_trainer.model.encoder import Encoder
from mma_trainer.model.mma import build_encoder


class EncoderClassifier(nn.Module):
    """One encoder without prompts and a linear head on its [CLS].

    Args:
        patch_dropout: share of the patches left out of each training batch (Liu et al. 2022): less to
            compute and less to memorise, which matters for the few voices and their 256 patches.
    """

    def __init__(self, config: MMADFERConfig, modality: str, patch_dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = build_encoder(config, modality)
        self.head = nn.Linear(config.width, config.num_classes)
        self.patch_dropout = patch_dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, classes)."""
        tokens = self.encoder.embed(x)
        if self.training and self.patch_dropout:
            patches = tokens.shape[1] - 1
            kept = torch.randperm(patches)[: round(patches * (1 - self.patch_dropout))]
            tokens = torch.cat([tokens[:, :1], tokens[:, 1 + kept.sort().values]], dim=1)
        return self.head(self.encoder.encode(tokens))


def initialise_encoder(encoder: Encoder, state: dict[str, Tensor], source_grid: tuple[int, int], path: str) -> None:
    """Put pre-trained weights into an encoder with prompts.

    Patch position embeddings are resized bicubically to the new grid (align_corners=False); the
    prompts' positions keep their N(0, 1) initialisation. Heads and decoders in `state` are passed over.
    """
    wanted = encoder.state_dict()
    found = {key: value for key, value in state.items() if key in wanted}
    if "pos_embed" not in found:
        raise CheckpointError(f"{path} has no pos_embed", "a ViT encoder's state dict", "check which file it is")
    positions = wanted["pos_embed"].clone()
    resized = resize_positions(found["pos_embed"], source_grid, encoder.grid)
    positions[:, : resized.shape[1]] = resized
    found["pos_embed"] = positions
    check_fit(found, wanted, path)
    encoder.load_state_dict(found)


def resize_positions(positions: Tensor, old_grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Position embeddings (1, 1 + old patches, W), [CLS] first -> (1, 1 + new patches, W)."""
    if old_grid == new_grid:
        return positions
    cls, patches = positions[:, :1], positions[:, 1:]
    patches = patches.reshape(1, *old_grid, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, new_grid, mode="bicubic", align_corners=False)
    return torch.cat([cls, patches.flatten(2).transpose(1, 2)], dim=1)


def model_from_encoders(config: MMADFERConfig, image: Checkpoint, audio: Checkpoint) -> MMADFER:
    """MMA-DFER around two pre-trained `EncoderClassifier`s, whose image size may be another."""
    model = MMADFER(config)
    for name, source, encoder, grid in (
        ("image", image, model.image_encoder, image.config.image_grid),
        ("audio", audio, model.audio_encoder, audio.config.audio_grid),
    ):
        state = {k.removeprefix("encoder."): v for k, v in source.state_dict.items() if k.startswith("encoder.")}
        initialise_encoder(encoder, state, grid, f"the {name} encoder")
    return model
