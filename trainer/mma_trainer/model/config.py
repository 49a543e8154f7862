"""Every number of the architecture, in one frozen dataclass that travels with the checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from mma_edge.audio.logmel import NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.clip import NUM_FRAMES
from mma_edge.errors import CheckpointError
from mma_trainer.architectures import ARCHITECTURES
from mma_trainer.labels import DFEW_LABELS, MAFW_LABELS

VARIANTS = {
    "prompts": ("none", "static", "progressive"),  # static: not updated with depth
    "fusion": ("none", "add", "mult", "mult-concat", "bottleneck"),
    "temporal": ("mtt", "ita", "both", "mean"),
    "modalities": ("both", "audio", "vision"),
    "trained": ("adaptation", "classifier"),  # adaptation: everything but the encoders' blocks and patches
    "stem_norm": ("batch", "none"),
    "image_norm": ("none", "frame"),
    "audio_norm": ("none", "clip"),
}
"""The fields whose values are words: most are what the paper's tables vary."""

REVISION = 2
"""Raised when a variant is made otherwise than before: files of the variants in REVISED carry it."""
REVISED = {"fusion": ("mult", "mult-concat"), "temporal": ("ita", "both")}


@dataclass(frozen=True)
class MMADFERConfig:
    """MMA-DFER (Chumachenko et al., CVPRW 2024). The defaults are the paper's model at 224 on DFEW.

    `width` to `mlp_ratio` are of both ViT encoders, `temporal_*` of the multimodal temporal transformer. Patches are
    square and do not overlap. See VARIANTS for the values of the fields that it names.
    """

    image_size: int = 224  # side S of a face crop in pixels, a multiple of `image_patch`
    labels: tuple[str, ...] = DFEW_LABELS  # class names in the order of the logits
    color: str = "rgb"  # "grey" when the training faces were grey: crops must be made grey at run time
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: int = 4
    image_patch: int = 16
    audio_patch: int = 16
    # Output channels of 3x3 stride-2 convolutions before the patch projection (Xiao et al. 2021); (): the paper's ViT.
    image_stem: tuple[int, ...] = ()
    audio_stem: tuple[int, ...] = ()
    # After each of them, so many residual blocks of two 3x3 convolutions (He et al. 2016); (): none.
    image_stem_blocks: tuple[int, ...] = ()
    audio_stem_blocks: tuple[int, ...] = ()
    stem_norm: str = "batch"  # "none": a released model's, whose norms are part of the convolutions, see folding.py
    # What each encoder does to its input first, see encoder.py. "none": nothing, as the paper.
    image_norm: str = "none"  # "frame": every face gets the same mean brightness and contrast
    audio_norm: str = "none"  # "clip": every clip gets the same loudness
    prompts: str = "progressive"  # as the paper's best
    num_prompts: int = 6  # prompt tokens per modality, unless `prompts` is "none"
    prompts_per_update: int = 3  # rows renewed by one progressive step: the paper's best has 2 steps
    fusion: str = "bottleneck"  # as the paper's best; see fusion.py. Without effect where there is one modality only
    bottleneck_width: int = 128  # d of the fusion bottleneck, mult's two cross-attentions and mult-concat's transformer
    temporal: str = "mtt"  # as the paper's best; see temporal.py
    ita_width: int = 128  # d of the temporal adaptors
    adaptor_heads: int = 2  # attention heads of the temporal adaptors and of mult
    modalities: str = "both"  # of one alone the model still takes both inputs, and ignores the other
    trained: str = "adaptation"  # "classifier": nothing else, on the frozen features of one modality
    temporal_width: int = 512
    temporal_heads: int = 8
    temporal_head_dim: int = 64
    temporal_mlp: int = 1024
    temporal_depth: int = 1
    drop_path: float = 0.1  # stochastic depth of the last encoder block; linear from 0 at the first
    num_frames: ClassVar[int] = NUM_FRAMES

    def __post_init__(self) -> None:
        for key in ("labels", "image_stem", "audio_stem", "image_stem_blocks", "audio_stem_blocks"):  # JSON has lists
            object.__setattr__(self, key, tuple(getattr(self, key)))
        numbers = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.type == "int"}
        if wrong := [f"{key} is {n!r}" for key, n in numbers.items() if type(n) is not int or n < 1]:
            # The rules below divide by them.
            raise CheckpointError("model config: " + ", ".join(wrong), "whole numbers from 1", "correct them")
        if problems := [text for bad, text in self._rules() if bad]:
            raise CheckpointError("model config: " + ", ".join(problems), hint="correct these numbers")

    def _rules(self) -> Iterator[tuple[bool, str]]:
        """Of each rule: whether it is broken, and how that is said."""
        image = self.image_patch, self.image_stem, self.image_stem_blocks
        for patch, stem, blocks in (image, (self.audio_patch, self.audio_stem, self.audio_stem_blocks)):
            n, m = len(stem), len(blocks)
            yield patch % 2**n > 0, f"a patch of {patch} cannot be halved by each of the stem's {n} convolutions"
            yield m not in (0, n), f"{m} numbers of residual blocks for a stem of {n} convolutions"
        yield not 0 <= self.drop_path < 1, f"drop_path {self.drop_path} is not a probability below 1"
        for key, choices in VARIANTS.items():
            value = getattr(self, key)
            yield value not in choices, f"{key} {value!r} is none of {', '.join(choices)}"
        progressive, adaptors = self.prompts == "progressive", self.temporal in ("ita", "both")
        pairs = [("image_size", "image_patch"), ("width", "num_heads")]
        pairs += [("num_prompts", "prompts_per_update")] if progressive else []
        pairs += [("bottleneck_width", "adaptor_heads")] if self.fusion in ("mult", "mult-concat") else []
        pairs += [("ita_width", "adaptor_heads")] if adaptors else []
        for key, part in pairs:
            whole, divisor = getattr(self, key), getattr(self, part)
            yield whole % divisor > 0, f"{key} {whole} is not a multiple of {part} {divisor}"
        if progressive and self.num_prompts % self.prompts_per_update == 0:
            updates = self.num_updates
            yield self.depth % updates > 0, f"depth {self.depth} is not a multiple of the {updates} prompt updates"
        alone = self.modalities != "both" and (self.prompts, self.temporal) == ("none", "mean")
        needs = "needs one modality, prompts none and temporal mean: other parts would stay random"
        yield self.trained == "classifier" and not alone, f"trained classifier {needs}"
        no_frames = self.modalities == "audio"
        yield adaptors and no_frames, f"temporal {self.temporal} adapts the frames, which modalities audio has not"
        tiles = NUM_MEL_FRAMES % self.audio_patch == NUM_MEL_BINS % self.audio_patch == 0
        yield not tiles, f"audio_patch {self.audio_patch} does not tile {NUM_MEL_FRAMES}x{NUM_MEL_BINS}"
        yield self.color not in ("rgb", "grey"), f"color {self.color!r} is neither rgb nor grey"
        yield len(set(self.labels)) != len(self.labels) or not self.labels, "labels are empty or repeat"

    @property
    def num_classes(self) -> int:
        return len(self.labels)

    @property
    def image_grid(self) -> tuple[int, int]:
        """Patches down and across a face."""
        return (self.image_size // self.image_patch,) * 2

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
    def revised(self) -> list[str]:
        """Its variants that REVISION tells apart, in words: "fusion mult"; [] for the paper's best."""
        return [f"{key} {getattr(self, key)}" for key, values in REVISED.items() if getattr(self, key) in values]

    def replace(self, **changes) -> MMADFERConfig:
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> MMADFERConfig:
        """The inverse of `to_dict`; an unknown key is refused, because ignoring it would silently change the model.

        Keys that a file of an earlier version lacks get their defaults: they came with variants that it does not use.
        """
        if unknown := sorted(set(values) - {field.name for field in dataclasses.fields(cls)}):
            what = f"model config has unknown keys {unknown}"
            raise CheckpointError(what, f"keys of {cls.__name__}", "upgrade mma-edge")
        return cls(**values)


def differences(file: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """For each key of `here` that is another in the file, in words: "image_size is 160 in the file, 112 here"."""

    def show(value: object) -> str:
        return (",".join(map(str, value)) or "empty") if isinstance(value, tuple) else str(value)

    pairs = ((key, file[key], value) for key, value in here.items())
    return [f"{key} is {show(a)} in the file, {show(b)} here" for key, a, b in pairs if a != b]


def default_labels(num_classes: int) -> tuple[str, ...]:
    """Class names of a checkpoint without names: DFEW's 7, MAFW's 11, else numbers."""
    named = {len(labels): labels for labels in (DFEW_LABELS, MAFW_LABELS)}
    return named.get(num_classes, tuple(f"class {index}" for index in range(num_classes)))


def config_of(name: str) -> MMADFERConfig:
    """The configuration of a named architecture; KeyError for a name that is not in ARCHITECTURES."""
    return MMADFERConfig(**ARCHITECTURES[name].fields)
