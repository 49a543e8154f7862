"""The `results` of `mma-bench voice`; see `mma_benchmarks.schema`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VoiceSettings:
    limit: int  # files of each corpus and kind of noise
    window_s: float
    shares: list[float]  # of speech: thresholds of the gate
    probabilities: list[float]  # from which a frame counts as speech
    probability: float  # the one that the runtime has


@dataclass(frozen=True)
class VoiceSound:
    """One kind of sound; called[i][j]: share of its windows that pass at probabilities[i] and shares[j]."""

    name: str
    windows: int
    share: float
    called: list[list[float]]


@dataclass(frozen=True)
class Voice:
    settings: VoiceSettings
    sounds: list[VoiceSound]
    cost_ms: float  # of one thread, per second of sound
