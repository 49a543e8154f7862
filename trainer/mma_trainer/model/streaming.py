"""The model in parts, for a stream whose windows overlap: what is computed once per frame, and what for every window.

The parts share the model's weights; nothing is copied. Four parts, `v` a frame's tokens, `a` the sound's:

    FrameStem   a frame -> v after layer 0's image block. No sound has been seen yet, so this can be kept for
                as long as the frame lasts, exactly.
    Window      v of 16 frames and the sound -> logits: all that is left of the whole model, exactly.
    Rolling     v of the new frames, summaries of the older ones and the sound -> logits, and the new summaries.
    Seeing      the new frames, summaries of the older ones and of the sound -> the same: FrameStem and Rolling in one,
                without the audio encoder.

The sound sees only the mean token of a frame in each layer's exchange (v^ of the fusion bottleneck, see fusion.py), and
the head only its last [CLS]. A summary holds these: depth * d + width numbers. It was computed with the sound of an
earlier window, so Rolling is an approximation. Without an exchange (fusion "none") it is exact.
Of the sound, too, a frame sees only the mean token, and the head only its [CLS]; so it has a summary of the same size.
Seeing is Rolling to the last bit while the window is that of the summary, and an approximation once new sound has come.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mma_edge.errors import CheckpointError
from mma_trainer.model.config import MMADFERConfig
from mma_trainer.model.fusion import AddFusion, FusionBottleneck
from mma_trainer.model.inputs import prepare_frames, prepare_mel
from mma_trainer.model.mma import MMADFER

FUSIONS = ("bottleneck", "add", "none")
TEMPORALS = ("mtt", "mean")


def check_streamable(config: MMADFERConfig) -> None:
    """CheckpointError for a variant whose frames depend on each other, or on the sound, from layer 0 on."""
    allowed = {"fusion": FUSIONS, "temporal": TEMPORALS, "modalities": ("both",)}
    if problems := [f"{key} {getattr(config, key)}" for key in allowed if getattr(config, key) not in allowed[key]]:
        raise CheckpointError(
            f"a model with {' and '.join(problems)} cannot be streamed in parts",
            f"fusion {', '.join(FUSIONS)}, temporal {' or '.join(TEMPORALS)}, modalities both",
            "export it without --streaming",
        )


def exchange_width(config: MMADFERConfig) -> int:
    """Width of what the sound sees of a frame in one layer."""
    return {"bottleneck": config.bottleneck_width, "add": config.width, "none": 0}[config.fusion]


def summary_width(config: MMADFERConfig) -> int:
    """Numbers in the summary of one frame, and of the sound."""
    return config.depth * exchange_width(config) + config.width


class _Part(nn.Module):
    """A part of a model that can be streamed; CheckpointError for any other model."""

    def __init__(self, model: MMADFER) -> None:
        super().__init__()
        check_streamable(model.config)
        self.model = model


class FrameStem(_Part):
    """A frame through patch embedding, prompts, positions and the first image block."""

    def forward(self, frames: Tensor) -> Tensor:
        """frames uint8 (M, S, S, 3) RGB -> tokens (M, T, W)."""
        return stem(self.model, frames)


def stem(model: MMADFER, frames: Tensor) -> Tensor:
    """As `FrameStem`."""
    return model.image_encoder.blocks[0](model.embed_image(prepare_frames(frames, model.config.color)))


class Window(_Part):
    """The rest of the whole model, given what `FrameStem` makes of each frame."""

    def forward(self, tokens: Tensor, mel: Tensor) -> Tensor:
        """tokens (N, 16, T, W), mel (N, 512, 128) before normalisation -> logits (N, C)."""
        model = self.model
        image, audio = tokens.flatten(0, 1), model.embed_audio(prepare_mel(mel))
        audio = model.audio_encoder.blocks[0](audio)
        if model.fusion:
            image, audio = model.fusion[0](image, audio, model.config.num_frames)
        image, audio = model.renew_prompts(0, image, audio)
        for layer in range(1, model.config.depth):
            image, audio = model.layer(layer, image, audio)
        return model.head(image, audio)


class Rolling(_Part):
    """Clips whose older frames are given as summaries only; those of several faces go in together."""

    def forward(self, tokens: Tensor, owner: Tensor, past: Tensor, order: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """One window of each of N faces.

        Args:
            tokens: (M, T, W) of all new frames, M >= 1.
            owner: int64 (M,): the clip that each of them belongs to.
            past: (N, 16, D) summaries of older frames, in any order; D = `summary_width`. Unused rows are not read.
            order: int64 (N, 16): what each frame of a window is, by time: m < M is the m-th new frame, M + 16 n + k is
                row k of `past[n]`. A frame may occur more than once, and a new one not at all.
            mel: (N, 512, 128) before normalisation.

        Returns:
            logits (N, C), the summaries (M, D) of the new frames, and those of the sound (N, D).
        """
        model, c = self.model, self.model.config
        d = exchange_width(c)
        image, audio, past = tokens, model.embed_audio(prepare_mel(mel)), past.flatten(0, 1)
        means, heard = [], []
        for layer in range(c.depth):
            audio = model.audio_encoder.blocks[layer](audio)
            if layer > 0:
                image = model.image_encoder.blocks[layer](image)
            if model.fusion:
                older = past[:, layer * d : (layer + 1) * d]
                image, audio, new, mean = exchange(model.fusion[layer], image, audio, older, owner, order)
                means.append(new)
                heard.append(mean)
            image, audio = model.renew_prompts(layer, image, audio)
        sound = torch.cat([*heard, model.audio_encoder.norm(audio[:, 0])], dim=-1)  # (N, D)
        logits, summaries = _answer(model, image, means, past, order, sound)
        return logits, summaries, sound


class Seeing(_Part):
    """`Rolling` that does not listen: what the frames and the head see of the sound is given."""

    def forward(
        self, frames: Tensor, owner: Tensor, past: Tensor, order: Tensor, heard: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One window of each of N faces; frames as of `FrameStem`, heard (N, D) and the others as of `Rolling`.

        Returns:
            logits (N, C), and of the new frames the summaries (M, D) and the tokens (M, T, W) as of `FrameStem`.
        """
        model, c = self.model, self.model.config
        d = exchange_width(c)
        image = tokens = stem(model, frames)
        past, means = past.flatten(0, 1), []
        if model.fusion:
            of_owner = heard.index_select(0, owner).unsqueeze(1).split([d] * c.depth + [c.width], dim=-1)
        for layer in range(c.depth):
            if layer > 0:
                image = model.image_encoder.blocks[layer](image)
            if model.fusion:
                image, new = see(model.fusion[layer], image, of_owner[layer])
                means.append(new)
            if model.image_prompts is not None:
                image = model.image_prompts.update(image, layer)
        return *_answer(model, image, means, past, order, heard), tokens


def _answer(
    model: MMADFER, image: Tensor, means: list[Tensor], past: Tensor, order: Tensor, heard: Tensor
) -> tuple[Tensor, Tensor]:
    """From the last layer's tokens (M, T, W) of the new frames, their means (M, d) in each layer, the summaries (16 N,
    D) of older ones and those of the sound (N, D) to logits (N, C) and the summaries (M, D) of the new frames.
    """
    width = model.config.width
    image_cls = model.image_encoder.norm(image[:, 0])  # (M, W)
    everyone = F.embedding(order, torch.cat([image_cls, past[:, -width:]]))  # (N, 16, W)
    joint = model.joint(everyone + heard[:, -width:].unsqueeze(1))
    return model.classifier(model.temporal(joint)), torch.cat([*means, image_cls], dim=-1)


def exchange(
    fusion: FusionBottleneck | AddFusion, image: Tensor, audio: Tensor, older: Tensor, owner: Tensor, order: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One layer's exchange, with older frames given as the means that the sound sees of them.

    Args:
        image: (M, Tv, W) of the new frames. audio: (N, Ta, W).
        older: (16 N, d) means of older frames. owner: int64 (M,). order: int64 (N, 16). See `Rolling`.

    Returns:
        image, audio, the means (M, d) of the new frames and those of the sound (N, d).
    """
    a = audio
    if isinstance(fusion, FusionBottleneck):
        a = fusion.audio_norm(fusion.audio_down(audio))  # (N, Ta, d)
    heard = a.mean(dim=1)  # (N, d)
    image, means = see(fusion, image, heard.unsqueeze(1).index_select(0, owner))
    # Every frame has as many tokens, so the mean over frames and tokens is that of the frames' means.
    seen = F.embedding(order, torch.cat([means, older])).mean(dim=1, keepdim=True)  # (N, 1, d)
    if isinstance(fusion, FusionBottleneck):
        seen = F.gelu(fusion.audio_up(a + seen))
    return image, audio + torch.tanh(fusion.audio_gate) * seen, means, heard


def see(fusion: FusionBottleneck | AddFusion, image: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
    """The frames' side of an exchange: image (M, Tv, W) and what each frame hears (M, 1, d) -> image, and the means
    (M, d) that the sound sees of it.
    """
    v = image
    if isinstance(fusion, FusionBottleneck):
        v = fusion.image_norm(fusion.image_down(image))  # (M, Tv, d)
        heard = F.gelu(fusion.image_up(v + heard))
    return image + torch.tanh(fusion.image_gate) * heard, v.mean(dim=1)
