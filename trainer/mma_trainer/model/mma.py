"""MMA-DFER: two frozen ViT encoders joined by prompts, fusion bottlenecks and a temporal transformer.

Every row of the paper's tables is this module under another `MMADFERConfig`.

Chumachenko, Iosifidis, Gabbouj: "MMA-DFER: MultiModal Adaptation of unimodal models for Dynamic
Facial Expression Recognition in-the-wild", CVPR Workshops 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mma_trainer.model.config import MMADFERConfig
from mma_trainer.model.encoder import Encoder, ProgressivePrompts, StaticPrompts
from mma_trainer.model.fusion import FusionBottleneck, build_fusion
from mma_trainer.model.temporal import FrameMean, TemporalAdaptor, TemporalTransformer

Modalities = tuple[Tensor | None, Tensor | None]
"""Image and audio tokens; None for a modality that is not used."""


class MMADFER(nn.Module):
    """The model. Its encoders are frozen from construction on, save for their position embeddings.

    With config.trained "classifier" those are frozen too.

    With one modality the other's encoder and prompts are None.
    """

    recompute_layers = False
    """Activation checkpointing: in training, keep only the input of each layer and compute the layer again on the way
    back. Less memory, one more forward pass; the same gradients."""

    def __init__(self, config: MMADFERConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or MMADFERConfig()
        prompt_tokens = 0 if c.prompts == "none" else c.num_prompts
        self.image_encoder = Encoder(c, "image", prompt_tokens) if c.uses_image else None
        self.audio_encoder = Encoder(c, "audio", prompt_tokens) if c.uses_audio else None
        self.image_prompts = build_prompts(c) if c.uses_image else None
        self.audio_prompts = build_prompts(c) if c.uses_audio else None
        self.fusion = build_fusion(c)  # one per layer, or empty
        inside = c.bottleneck_width if c.fusion == "bottleneck" and self.fusion else None
        sizes, adapted = (c.width, c.ita_width, c.adaptor_heads, inside), c.temporal in ("ita", "both")
        self.adaptors = nn.ModuleList(TemporalAdaptor(*sizes) for _ in range(c.depth if adapted else 0))
        # Table 5 trains the classifier alone: an untrained joint projection before it would be a random one.
        is_probe = c.trained == "classifier"
        self.joint = nn.Identity() if is_probe else nn.Linear(c.width, c.temporal_width)
        self.temporal = FrameMean() if c.temporal in ("mean", "ita") else TemporalTransformer(c)
        self.classifier = nn.Linear(c.width if is_probe else c.temporal_width, c.num_classes)
        for encoder in self.encoders:
            encoder.requires_grad_(False)
            encoder.pos_embed.requires_grad_(not is_probe)

    @property
    def encoders(self) -> list[Encoder]:
        """Of the modalities that the config has."""
        return [encoder for encoder in (self.image_encoder, self.audio_encoder) if encoder is not None]

    def train(self, mode: bool = True) -> MMADFER:
        """Training mode keeps stochastic depth in the encoders but not their batch statistics: those are frozen."""
        super().train(mode)
        for encoder in self.encoders:
            encoder.patch_embed.eval()
        return self

    def forward(self, frames: Tensor, mel: Tensor) -> Tensor:
        """frames (N, 16, 3, S, S) in [0, 1], mel (N, 1, 512, 128) normalised -> logits (N, C)."""
        image = self.embed_image(frames.flatten(0, 1)) if self.config.uses_image else None
        audio = self.embed_audio(mel) if self.config.uses_audio else None
        return self.classify(self.encode(image, audio))

    def encode(self, image: Tensor | None, audio: Tensor | None) -> Tensor:
        """Tokens before layer 0 -> what enters the joint adaptation: (N, T, W), T = 16, or 1 for sound alone."""
        recompute = self.recompute_layers and self.training and torch.is_grad_enabled()
        for layer in range(self.config.depth):
            if recompute:
                image, audio = checkpoint(self.layer, layer, image, audio, use_reentrant=False)
            else:
                image, audio = self.layer(layer, image, audio)
        return self.join(image, audio)

    def embed_image(self, images: Tensor) -> Tensor:
        """(M, 3, S, S) -> tokens (M, 1+P+K, W) before layer 0."""
        return self.image_encoder.embed(images, None if self.image_prompts is None else self.image_prompts.init)

    def embed_audio(self, mel: Tensor) -> Tensor:
        """(N, 1, 512, 128) -> tokens (N, 1+P'+K, W) before layer 0."""
        return self.audio_encoder.embed(mel, None if self.audio_prompts is None else self.audio_prompts.init)

    def layer(self, layer: int, image: Tensor | None, audio: Tensor | None) -> Modalities:
        """One layer of both encoders and what joins them: tokens (N*16, 1+P+K, W) and (N, 1+P'+K, W), or None."""
        if audio is not None:
            audio = self.audio_encoder.blocks[layer](audio)
        if image is not None:
            image = self.image_encoder.blocks[layer](image)
        # Of the last layer only [CLS] is read: a graph computes no more. In training everything is computed, so that
        # every parameter has a gradient, even if it is zero.
        ends_graph = layer == self.config.depth - 1 and torch.compiler.is_exporting()
        fusion = self.fusion[layer] if self.fusion else None
        cls_only = ends_graph and isinstance(fusion, FusionBottleneck)
        if cls_only:
            image, audio = fusion(image, audio, self.config.num_frames, cls_only=True)
        elif fusion is not None:
            image, audio = fusion(image, audio, self.config.num_frames)
        if self.adaptors:
            image = self.adaptors[layer](image, self.config.num_frames, fusion)
        return (image, audio) if cls_only else self.renew_prompts(layer, image, audio)

    def renew_prompts(self, layer: int, image: Tensor | None, audio: Tensor | None) -> Modalities:
        """The progressive step of each modality after `layer`, where there is one."""
        if self.image_prompts is not None:
            image = self.image_prompts.update(image, layer)
        if self.audio_prompts is not None:
            audio = self.audio_prompts.update(audio, layer)
        return image, audio

    def head(self, image: Tensor | None, audio: Tensor | None) -> Tensor:
        """Tokens after the last layer -> logits (N, C)."""
        return self.classify(self.join(image, audio))

    def join(self, image: Tensor | None, audio: Tensor | None) -> Tensor:
        """Tokens after the last layer -> [CLS] of each frame plus that of the sound, normalised: (N, T, W)."""
        cls = []
        if image is not None:
            image_cls = self.image_encoder.norm(image[:, 0])
            cls.append(image_cls.reshape(-1, self.config.num_frames, self.config.width))  # (N, T, W)
        if audio is not None:
            cls.append(self.audio_encoder.norm(audio[:, 0]).unsqueeze(1))  # (N, 1, W)
        return cls[0] + cls[1] if len(cls) == 2 else cls[0]

    def classify(self, features: Tensor) -> Tensor:
        """What enters the joint adaptation (N, T, W) -> logits (N, C)."""
        return self.classifier(self.temporal(self.joint(features)))


def build_prompts(config: MMADFERConfig) -> StaticPrompts | None:
    """The prompts of one modality; None for prompts "none"."""
    c = config
    if c.prompts == "progressive":
        return ProgressivePrompts(c.width, c.num_prompts, c.prompts_per_update, c.depth)
    return StaticPrompts(c.width, c.num_prompts) if c.prompts == "static" else None
