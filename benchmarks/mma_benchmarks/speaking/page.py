"""What a speaking result looks like to people."""

from __future__ import annotations

from collections.abc import Sequence

from mma_benchmarks.result import Result
from mma_benchmarks.speaking.measure import NEITHER
from mma_benchmarks.speaking.schema import Speaking, SpeakingKind
from mma_trainer.report.page import Block, Table, Text, percent

NOTE = (
    "Two people side by side in one picture, composed of clips of one person each, of at most {piece:g} s. Each "
    "goes the way of a run and is judged once, by its last window. The other face is a stretch in which another "
    "person says nothing (shown back and forth, so that it blinks and sways), or another person's speech without "
    "its sound; last, both faces speak without a sound and the voice is a third person's. A face wins if its share "
    "is at least {least:g} and exceeds the other's by the margin; the runtime's is {margin:g}. Clear: composed "
    "clips with a winner, of those judged. Right: of the clear ones. Where the voice is of neither face every "
    "winner is wrong; in a run it then has a sound that is not its own, as all faces have without a winner. Shares: "
    "means of the speaker and of the other. Measuring the motion of a face costs {cost:.2f} ms of one thread per "
    "picture, and nothing while there is one face."
)


def key_table(results: Sequence[Result]) -> Table:
    """One row per source and kind of each result, at the margin of the runtime."""
    rows = []
    for result in results:
        settings = result.results.settings
        at = settings.margins.index(settings.margin)
        for kind in result.results.kinds:
            rows.append((kind.source, kind.kind, str(kind.judged), *_found(kind, at), *_shares(kind)))
    return Table("Who has the voice", ("source", "composed", "judged", "clear %", "right %", "share", "other's"), rows)


def margin_table(found: Speaking) -> Table:
    """What another margin would change."""
    header = [f"{what} %, {margin:g}" for margin in found.settings.margins for what in ("clear", "right")]
    rows = []
    for kind in found.kinds:
        cells = [cell for at in range(len(found.settings.margins)) for cell in _found(kind, at)]
        rows.append((kind.source, kind.kind, str(kind.clips), str(kind.judged), *cells))
    return Table("By margin", ("source", "composed", "clips", "judged", *header), rows)


def console_tables(result: Result) -> list[Table]:
    return [key_table([result])]


def blocks(result: Result) -> list[Block]:
    """The section of one result, without machine and bundle."""
    found: Speaking = result.results
    own = found.settings
    figures = {"piece": own.piece_s, "least": own.least, "margin": own.margin, "cost": found.cost_ms}
    return [Text(NOTE.format(**figures)), key_table([result]), margin_table(found)]


def _found(kind: SpeakingKind, at: int) -> tuple[str, str]:
    """How many of the judged have a winner at one of the margins, and how many of these the right one."""
    clear, right = kind.clear[at], kind.right[at]
    share = percent(right / clear if clear and kind.kind != NEITHER else None)
    return percent(clear / kind.judged if kind.judged else None), share


def _shares(kind: SpeakingKind) -> tuple[str, str]:
    return tuple("-" if share is None else f"{share:.2f}" for share in (kind.speaker_share, kind.other_share))
