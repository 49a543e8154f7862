"""Every number of the architecture, in one frozen dataclass that travels with the checkpoint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from mma_edge.audio.logmel import NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.clip import NUM_FRAMES
from mma_edge.errors import CheckpointError
from mma_trainer.architectures import ARCHITECTURES
from mma_trainer.labels import DFEW_LABELS, MAFW_LABELS

VARIANTS = {
    "prompts": ("none", "static", "progressive"),
    "fusion": ("none", "add", "mult", "mult-concat", "bottleneck"),
    "temporal": ("mtt", "ita", "both", "mean"),
    "modalities": ("both", "audio", "vision"),
}
"""What the paper's tables vary, and its rows."""


@dataclass(frozen=True)
class MMADFERConfig:
    """MMA-DFER (Chumachenko et al., CVPRW 2024). The defaults are the paper's model at 224 on DFEW.

    Attributes:
        image_size: side S of a face crop in pixels, a multiple of `image_patch`.
        labels: class names in the order of the logits.
        color: "rgb", or "grey" when the training faces were grey: crops must be made grey at run time.
        width, depth, num_heads, mlp_ratio: of both ViT encoders.
        image_patch, audio_patch: side of the non-overlapping square patches.
        image_stem, audio_stem: output channels of 3x3 stride-2 convolutions before the patch
            projection (Xiao et al. 2021); () is the plain ViT of the paper.
        image_stem_blocks, audio_stem_blocks: residual blocks of two 3x3 convolutions after each of the
            stem's (He et al. 2016); one number per convolution, or () for none.
        prompts: "progressive" as the paper's best, "static" (not updated with depth) or "none".
        num_prompts: prompt tokens per modality (unless there are none).
        prompts_per_update: rows renewed by one progressive step; there are num_prompts / prompts_per_update
            steps: 2 in the paper's best, and 4, 6 or 12 with 12, 18 or 36 prompts.
        fusion: "bottleneck" as the paper's best, "none", "add", "mult" or "mult-concat": see fusion.py.
            With one modality there is nothing to fuse, whatever it says.
        bottleneck_width: d of the fusion bottleneck, and of mult's two cross-attentions.
        temporal: "mtt" as the paper's best (multimodal temporal transformer), "ita" (intermediate
            temporal adaptors), "both" or "mean" (plain averaging): see temporal.py.
        ita_width: d of the temporal adaptors. adaptor_heads: heads of theirs and of mult's attention.
        modalities: "both", or "audio" or "vision" alone. The inputs stay two; the other one has no effect.
        temporal_*: the multimodal temporal transformer.
        drop_path: stochastic depth of the last encoder block; linear from 0 at the first.
    """

    image_size: int = 224
    labels: tuple[str, ...] = DFEW_LABELS
    color: str = "rgb"
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: int = 4
    image_patch: int = 16
    audio_patch: int = 16
    image_stem: tuple[int, ...] = ()
    audio_stem: tuple[int, ...] = ()
    image_stem_blocks: tuple[int, ...] = ()
    audio_stem_blocks: tuple[int, ...] = ()
    prompts: str = "progressive"
    num_prompts: int = 6
    prompts_per_update: int = 3
    fusion: str = "bottleneck"
    bottleneck_width: int = 128
    temporal: str = "mtt"
    ita_width: int = 128
    adaptor_heads: int = 2
    modalities: str = "both"
    temporal_width: int = 512
    temporal_heads: int = 8
    temporal_head_dim: int = 64
    temporal_mlp: int = 1024
    temporal_depth: int = 1
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        for key in ("labels", "image_stem", "audio_stem", "image_stem_blocks", "audio_stem_blocks"):  # JSON has lists
            object.__setattr__(self, key, tuple(getattr(self, key)))
        numbers = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.type == "int"}
        problems = [f"{key} is {n!r}" for key, n in numbers.items() if type(n) is not int or n < 1]
        if problems:  # the rules below divide by them
            raise CheckpointError("model config: " + ", ".join(problems), "whole numbers from 1", "correct them")
        for patch, stem in ((self.image_patch, self.image_stem), (self.audio_patch, self.audio_stem)):
            if patch % 2 ** len(stem):
                problems.append(f"a patch of {patch} cannot be halved by each of the stem's {len(stem)} convolutions")
        for stem, blocks in ((self.image_stem, self.image_stem_blocks), (self.audio_stem, self.audio_stem_blocks)):
            if blocks and len(blocks) != len(stem):
                problems.append(f"{len(blocks)} numbers of residual blocks for a stem of {len(stem)} convolutions")
        if not 0 <= self.drop_path < 1:
            problems.append(f"drop_path {self.drop_path} is no probability below 1")
        if self.image_size % self.image_patch:
            problems.append(f"image_size {self.image_size} is no multiple of image_patch {self.image_patch}")
        if self.width % self.num_heads:
            problems.append(f"width {self.width} is no multiple of num_heads {self.num_heads}")
        problems += self._variant_problems()
        if NUM_MEL_FRAMES % self.audio_patch or NUM_MEL_BINS % self.audio_patch:
            problems.append(f"audio_patch {self.audio_patch} does not tile {NUM_MEL_FRAMES}x{NUM_MEL_BINS}")
        if self.color not in ("rgb", "grey"):
            problems.append(f"color {self.color!r} is neither rgb nor grey")
        if len(set(self.labels)) != len(self.labels) or not self.labels:
            problems.append("labels are empty or repeat")
        if problems:
            raise CheckpointError("model config: " + ", ".join(problems), hint="correct these numbers")

    def _variant_problems(self) -> list[str]:
        problems = [
            f"{key} {getattr(self, key)!r} is none of {', '.join(choices)}"
            for key, choices in VARIANTS.items()
            if getattr(self, key) not in choices
        ]
        if self.prompts == "progressive" and self.num_prompts % self.prompts_per_update:
            problems.append(
                f"num_prompts {self.num_prompts} is no multiple of prompts_per_update {self.prompts_per_update}"
            )
        elif self.prompts == "progressive" and self.depth % self.num_updates:
            problems.append(f"depth {self.depth} is no multiple of the {self.num_updates} prompt updates")
        if self.fusion in ("mult", "mult-concat") and self.bottleneck_width % self.adaptor_heads:
            problems.append(
                f"bottleneck_width {self.bottleneck_width} is no multiple of adaptor_heads {self.adaptor_heads}"
            )
        if self.temporal in ("ita", "both"):
            if self.ita_width % self.adaptor_heads:
                problems.append(f"ita_width {self.ita_width} is no multiple of adaptor_heads {self.adaptor_heads}")
            if self.modalities == "audio":
                problems.append(f"temporal {self.temporal} adapts the frames, which modalities audio has not")
        return problems

    @property
    def num_classes(self) -> int:
        return len(self.labels)

    @property
    def num_frames(self) -> int:
        return NUM_FRAMES

    @property
    def image_grid(self) -> tuple[int, int]:
        """Patches down and across a face."""
        side = self.image_size // self.image_patch
        return side, side

    @property
    def audio_grid(self) -> tuple[int, int]:
        """Patches along time and frequency of a log-mel."""
        return NUM_MEL_FRAMES // self.audio_patch, NUM_MEL_BINS // self.audio_patch

    @property
    def num_updates(self) -> int:
        """Progressive prompt steps over the depth (2 in the paper: after layers 0 and 6)."""
        return self.num_prompts // self.prompts_per_update

    @property
    def uses_image(self) -> bool:
        return self.modalities in ("both", "vision")

    @property
    def uses_audio(self) -> bool:
        return self.modalities in ("both", "audio")

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens that follow the patches in each encoder."""
        return 0 if self.prompts == "none" else self.num_prompts

    @property
    def sequence_length(self) -> int:
        """Tokens that the temporal part sees: one per frame, or the sound's single one."""
        return self.num_frames if self.uses_image else 1

    def replace(self, **changes) -> MMADFERConfig:
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> MMADFERConfig:
        """The inverse of `to_dict`; an unknown key is refused, for it would silently change the model.

        Keys that a file of an earlier version lacks have their defaults: they came with variants that it is not.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise CheckpointError(
                f"model config has unknown keys {unknown}", f"keys of {cls.__name__}", "upgrade mma-edge"
            )
        return cls(**values)


def describe_difference(file: MMADFERConfig, here: MMADFERConfig, fields: tuple[str, ...] = ()) -> str:
    """What differs between two configs, in words: "image_size is 160 in the file, 112 here; fusion is ...".

    Args:
        fields: only these, or () for all. The text is empty where nothing differs.
    """

    def show(value: object) -> str:
        return (",".join(map(str, value)) or "empty") if isinstance(value, tuple) else str(value)

    names = fields or tuple(field.name for field in dataclasses.fields(MMADFERConfig))
    pairs = [(name, getattr(file, name), getattr(here, name)) for name in names]
    return "; ".join(f"{name} is {show(a)} in the file, {show(b)} here" for name, a, b in pairs if a != b)


def default_labels(num_classes: int) -> tuple[str, ...]:
    """Class names of a checkpoint that carries none: DFEW's 7, MAFW's 11, else numbers."""
    named = {len(DFEW_LABELS): DFEW_LABELS, len(MAFW_LABELS): MAFW_LABELS}
    return named.get(num_classes, tuple(f"class {index}" for index in range(num_classes)))


def config_of(name: str) -> MMADFERConfig:
    """The configuration of a named architecture; KeyError for a name that is not in ARCHITECTURES."""
    return MMADFERConfig(**ARCHITECTURES[name].fields)
