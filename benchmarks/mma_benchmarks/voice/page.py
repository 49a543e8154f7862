"""What a voice result looks like to people."""

from __future__ import annotations

from collections.abc import Sequence

from mma_benchmarks.result import Result
from mma_benchmarks.voice.schema import Voice
from mma_edge.pipeline import StreamOptions
from mma_trainer.report.page import Block, Table, Text, percent

NOTE = (
    "Windows of at most {window:g} s, of at most {limit} files of each corpus and kind of noise; the detector hears "
    "each from the beginning. Share of speech: of a window's 32 ms frames, those with a probability of speech of "
    "{probability:g} or more; the mean over the windows. Then how many of the windows have at least a share of speech, "
    "in percent of them: --voice-gate takes the others for clips without sound (default {gate:g}). In the last columns "
    "the probability is another, and the share is that default. Babble is speech to the detector, which cannot tell "
    "whose voice it hears. Pauses are parts of the speech clips, found by their level alone. Some phone recordings "
    "have people talking in the background. Listening costs {cost:.1f} ms of one thread for a second of sound."
)


def key_table(results: Sequence[Result]) -> Table:
    """One row per kind of sound of each result: the share of its windows that pass the gate."""
    settings = results[0].results.settings
    middle = settings.probabilities.index(settings.probability)
    gate = settings.shares.index(StreamOptions().voice_gate)
    others = [number for number in range(len(settings.probabilities)) if number != middle]
    rows = []
    for sound in (sound for result in results for sound in result.results.sounds):
        passed = [*sound.called[middle], *(sound.called[number][gate] for number in others)]
        rows.append((sound.name, str(sound.windows), percent(sound.share), *map(percent, passed)))
    passing = [f"from {share:.0%}" for share in settings.shares]
    passing += [f"{passing[gate]}, p {settings.probabilities[number]:g}" for number in others]
    return Table("What passes the gate, percent", ("sound", "windows", "speech", *passing), rows)


def console_tables(result: Result) -> list[Table]:
    return [key_table([result])]


def blocks(result: Result) -> list[Block]:
    """The section of one result, without machine and bundle."""
    found: Voice = result.results
    own = found.settings
    figures = {"window": own.window_s, "limit": own.limit, "probability": own.probability, "cost": found.cost_ms}
    return [Text(NOTE.format(**figures, gate=StreamOptions().voice_gate)), key_table([result])]
