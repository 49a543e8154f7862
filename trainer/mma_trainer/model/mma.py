"""MMA-DFER: two frozen ViT encoders joined by prompts, fusion bottlenecks and a temporal transformer.

Chumachenko, Iosifidis, Gabbouj: "MMA-DFER: MultiModal Adaptation of unimodal models for Dynamic
Facial Expression Recognition in-the-wild", CVPR Workshops 2024.
"""

from __future__ import annotations

from torch import Tensor, nn

from mma_trainer.model.config import MMADFERConfig
from mma_trainer.model.encoder import Encoder
from mma_trainer.model.fusion import FusionBottleneck
from mma_trainer.model.prompts import ProgressivePrompts
from mma_trainer.model.temporal import TemporalTransformer


class MMADFER(nn.Module):
    """The model. Its encoders are frozen from construction on, save for their position embeddings."""

    def __init__(self, config: MMADFERConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or MMADFERConfig()
        self.image_encoder = build_encoder(c, "image", num_prompts=c.num_prompts)
        self.audio_encoder = build_encoder(c, "audio", num_prompts=c.num_prompts)
        self.image_prompts = ProgressivePrompts(c.width, c.num_prompts, c.prompts_per_update, c.depth)
        self.audio_prompts = ProgressivePrompts(c.width, c.num_prompts, c.prompts_per_update, c.depth)
        self.fusion = nn.ModuleList(FusionBottleneck(c.width, c.bottleneck_width) for _ in range(c.depth))
        self.joint = nn.Linear(c.width, c.temporal_width)
        self.temporal = TemporalTransformer(
            c.temporal_width, c.num_frames, c.temporal_depth, c.temporal_heads, c.temporal_head_dim, c.temporal_mlp
        )
        self.classifier = nn.Linear(c.temporal_width, c.num_classes)
        for encoder in (self.image_encoder, self.audio_encoder):
            encoder.requires_grad_(False)
            encoder.pos_embed.requires_grad_(True)

    def train(self, mode: bool = True) -> MMADFER:
        """Training mode keeps stochastic depth in the encoders but not their batch statistics: those are frozen."""
        super().train(mode)
        for encoder in (self.image_encoder, self.audio_encoder):
            encoder.patch_embed.eval()
        return self

    def forward(self, frames: Tensor, mel: Tensor) -> Tensor:
        """frames (N, 16, 3, S, S) in [0, 1], mel (N, 1, 512, 128) normalised -> logits (N, C)."""
        N, T = frames.shape[:2]
        image = self.image_encoder.embed(frames.flatten(0, 1), self.image_prompts.init)  # (N*T, 1+P+K, W)
        audio = self.audio_encoder.embed(mel, self.audio_prompts.init)  # (N, 1+P'+K, W)

        for layer in range(self.config.depth):
            audio = self.audio_encoder.blocks[layer](audio)
            image = self.image_encoder.blocks[layer](image)
            image, audio = self.fusion[layer](image, audio, T)
            image = self.image_prompts.update(image, layer)
            audio = self.audio_prompts.update(audio, layer)

        image_cls = self.image_encoder.norm(image[:, 0]).reshape(N, T, -1)  # (N, T, W)
        audio_cls = self.audio_encoder.norm(audio[:, 0]).unsqueeze(1)  # (N, 1, W)
        joint = self.joint(image_cls + audio_cls)  # (N, T, temporal_width)
        return self.classifier(self.temporal(joint))


def build_encoder(config: MMADFERConfig, modality: str, num_prompts: int = 0) -> Encoder:
    """The "image" or "audio" encoder of a config; without prompts for pre-training it alone."""
    c = config
    is_image = modality == "image"
    return Encoder(
        channels=3 if is_image else 1,
        grid=c.image_grid if is_image else c.audio_grid,
        patch=c.image_patch if is_image else c.audio_patch,
        stem=c.image_stem if is_image else c.audio_stem,
        stem_blocks=c.stem_blocks,
        width=c.width,
        depth=c.depth,
        num_heads=c.num_heads,
        mlp_ratio=c.mlp_ratio,
        drop_path=c.drop_path,
        num_prompts=num_prompts,
    )
