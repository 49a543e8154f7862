"""The `results` of `mma-bench speaking`; see `mma_benchmarks.schema`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpeakingSettings:
    limit: int | None  # pieces of each source
    piece_s: float  # longest piece of a clip
    least: float  # share of a winner
    margin: float  # the one that the runtime has
    margins: list[float]


@dataclass(frozen=True)
class SpeakingKind:
    """One kind of composed clip of one source; clear[i] of them have a winner at margins[i], right[i] the right one.

    Where the voice is of neither face, any winner is wrong.
    """

    source: str
    kind: str
    clips: int
    judged: int  # both faces were seen, and there was a voice
    clear: list[int]
    right: list[int]
    speaker_share: float | None  # mean of the one who speaks; None where it is neither
    other_share: float | None


@dataclass(frozen=True)
class Speaking:
    settings: SpeakingSettings
    kinds: list[SpeakingKind]
    cost_ms: float  # of one thread, for the motion of one face in one picture
