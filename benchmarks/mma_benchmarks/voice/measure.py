"""What the voice gate takes for speech: speech, quiet speech, pauses, silence, noise, and speech in noise.

Sound is cut into windows as long as those of `mma-edge run`, each heard by a detector that has heard nothing before.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mma_benchmarks.machine.facts import describe_machine
from mma_benchmarks.result import Advance, Model, Result, utc_now
from mma_benchmarks.voice.schema import Voice, VoiceSettings, VoiceSound
from mma_edge.audio.ring import SPEECH_PROBABILITY
from mma_edge.audio.voice import ASSETS, NETWORK, SAMPLE_RATE_HZ, VoiceDetector
from mma_edge.bundle import sha256
from mma_edge.clip import evenly
from mma_edge.engines.session import import_onnxruntime
from mma_edge.errors import DataError, UsageError
from mma_edge.pipeline import StreamOptions
from mma_trainer.data.public.waves import read_wave

SHARES = (0.05, 0.1, 0.2, 0.3)
PROBABILITIES = (0.3, SPEECH_PROBABILITY, 0.7)
QUIETER_DB, SNRS_DB = (20, 40), (20, 10, 5, 0)
BABBLE_VOICES = 6
PAUSE_S, PAUSE_DB = 0.5, 40
"""A pause is at least so long, and its every 20 ms at least so far below the loud parts (95th percentile)."""
LEVEL_SAMPLES = SAMPLE_RATE_HZ // 50
Sounds = list[np.ndarray]
"""float32 (n,) each, mono at SAMPLE_RATE_HZ."""


@dataclass(frozen=True)
class VoiceOptions:
    """What to measure."""

    data: Path  # folder of the public data: ravdess_speech/, voices/<corpus>/, noise/<kind>_<number>
    limit: int = 60  # files per corpus and kind of noise, evenly spread

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise UsageError(f"--limit {self.limit}", "at least 1")
        if not self.data.is_dir():
            raise DataError(f"{self.data} is not a folder", "one with ravdess_speech/, voices/ or noise/", "see --data")


def measure_voice(options: VoiceOptions, command: str, advance: Advance = lambda step: None) -> Result:
    """Run the benchmark.

    Raises:
        DataError: the folder has no speech or no noise, or a file cannot be read. MMAEdgeError: see `VoiceDetector`.
    """
    speech, noise = _speech(options), _noise(options)
    machine, detector, stream = describe_machine(), VoiceDetector(), StreamOptions()
    length = round(stream.window_s * SAMPLE_RATE_HZ)
    rows, seconds, cpu_s = [], 0.0, 0.0
    for name, sounds in every_sound(speech, noise):
        advance(name)
        windows = [window for sound in sounds for window in cut(sound, length)]
        seconds += sum(map(len, windows)) / SAMPLE_RATE_HZ
        start = time.process_time()
        heard = [detector.stream(SAMPLE_RATE_HZ).accept(window) for window in windows]
        cpu_s += time.process_time() - start
        if heard:
            rows.append(row_of(name, heard))
    results = Voice(
        VoiceSettings(options.limit, stream.window_s, list(SHARES), list(PROBABILITIES), SPEECH_PROBABILITY),
        rows,
        1000 * cpu_s / seconds,
    )
    engine = f"onnxruntime {import_onnxruntime().__version__} CPU, 1 thread"
    model = Model("Silero VAD", sha256(ASSETS / NETWORK), [], 0, "fp32", "cpu", engine)
    return Result("voice", utc_now(), command, machine, model, results)


def every_sound(speech: dict[str, Sounds], noise: dict[str, Sounds]) -> Iterator[tuple[str, Sounds]]:
    """Name and sounds of every row."""
    rng = np.random.default_rng(0)
    voices, noises = ([sound for sounds in group.values() for sound in sounds] for group in (speech, noise))
    for corpus, sounds in speech.items():
        yield f"speech, {corpus}", sounds
    for quieter_db in QUIETER_DB:
        yield f"speech {quieter_db} dB quieter", [voice * np.float32(10 ** (-quieter_db / 20)) for voice in voices]
    for snr_db in SNRS_DB:
        chosen = rng.integers(len(noises), size=len(voices))
        mixed = [add(voice, noises[number], snr_db) for voice, number in zip(voices, chosen, strict=True)]
        yield f"speech, noise {snr_db} dB below it", mixed
    longest = max(map(len, voices))
    groups = (rng.choice(len(voices), BABBLE_VOICES) for _ in range(len(voices) // BABBLE_VOICES))
    yield f"babble of {BABBLE_VOICES} voices", [sum(np.resize(voices[k], longest) for k in group) for group in groups]
    for corpus, sounds in speech.items():
        yield f"pauses, {corpus}", [pause for sound in sounds for pause in pauses(sound)]
    yield "digital silence", [np.zeros(5 * SAMPLE_RATE_HZ, np.float32)]
    for kind, sounds in noise.items():
        yield f"noise, {kind}", sounds


def row_of(name: str, heard: list[np.ndarray]) -> VoiceSound:
    """The figures of some windows from the probabilities of speech in their frames, (n,) each."""
    shares = np.array([[float((frames >= least).mean()) for least in PROBABILITIES] for frames in heard])
    called = [[float((column >= share).mean()) for share in SHARES] for column in shares.T]
    return VoiceSound(name, len(heard), float(shares[:, PROBABILITIES.index(SPEECH_PROBABILITY)].mean()), called)


def cut(sound: np.ndarray, length: int) -> list[np.ndarray]:
    """Windows of a length one after the other; a rest of less than half of it only where there is nothing else."""
    windows = [sound[start : start + length] for start in range(0, len(sound), length)]
    return [window for window in windows if len(window) >= length / 2] or windows[:1]


def add(voice: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Noise, repeated as need be, under a voice at a signal-to-noise ratio over the whole of it."""
    noise = np.resize(noise, len(voice))
    gain = np.sqrt(np.mean(voice**2) / max(float(np.mean(noise**2)), 1e-12) / 10 ** (snr_db / 10))
    return (voice + gain * noise).astype(np.float32)


def pauses(sound: np.ndarray) -> Sounds:
    """The quiet parts of a sound, see PAUSE_S; found by level alone, so that no detector judges itself."""
    blocks = sound[: len(sound) // LEVEL_SAMPLES * LEVEL_SAMPLES].reshape(-1, LEVEL_SAMPLES)
    level = np.sqrt(np.mean(blocks**2, axis=1))
    quiet = level < np.percentile(level, 95) * 10 ** (-PAUSE_DB / 20)
    edges = np.flatnonzero(np.diff(np.r_[False, quiet, False].astype(int))) * LEVEL_SAMPLES
    return [sound[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= PAUSE_S * SAMPLE_RATE_HZ]


def _speech(options: VoiceOptions) -> dict[str, Sounds]:
    """Sounds of each corpus: RAVDESS and the folders of voices/."""
    folders = [options.data / "ravdess_speech", *sorted(options.data.glob("voices/*/"))]
    found = {folder.name: _some(sorted(folder.rglob("*.*")), options.limit) for folder in folders if folder.is_dir()}
    if not any(found.values()):
        raise DataError(f"{options.data} has no speech", "ravdess_speech/ or voices/<corpus>/", "see --data")
    return found


def _noise(options: VoiceOptions) -> dict[str, Sounds]:
    """Sounds of each kind, which their names say: esc10_rain_0012.opus -> esc10_rain."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted((options.data / "noise").glob("*.*")):
        kinds.setdefault(re.sub(r"_?\d+$", "", path.stem), []).append(path)
    if not kinds:
        raise DataError(f"{options.data} has no noise", "noise/<kind>_<number>.opus", "see --data")
    return {kind: _some(paths, options.limit) for kind, paths in kinds.items()}


def _some(paths: list[Path], limit: int) -> Sounds:
    return [read_wave(paths[index]) for index in evenly(len(paths), limit)]
