"""Emotions on the screen: a live view in a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mma_edge.types import UNCERTAIN, Emotion

BAR_CELLS = 24
REFRESH_HZ = 8
STALE_S = 2.0
"""A face without an answer for this long, in presentation time, leaves the view."""
RATE_SPAN = 30
"""Number of answers over which the rate is averaged."""


def who(emotion: Emotion, several: bool = False) -> str:
    """The face or voice that the answer is about, in words; of `several` sources with its name."""
    what = "voice only" if emotion.track_id is None else f"face {emotion.track_id}"
    if emotion.track_id == 0:
        what = "centre of the picture"
    return f"{emotion.source}: {what}" if several else what


def given(emotion: Emotion) -> str:
    """What the model got, and how much of the sound is speech."""
    heard = "" if emotion.voice is None else f" ({emotion.voice:.0%} speech)"
    return "+".join(emotion.modalities) + heard


class LineSink(AbstractContextManager):
    """One line per answer: for logs, pipes and files."""

    def __init__(self, console: Console, several: bool = False) -> None:
        """`several`: there is more than one source."""
        self._console, self._several = console, several

    def __exit__(self, *exc_info: object) -> None:
        """Nothing to release."""

    def write(self, emotion: Emotion) -> None:
        best = emotion.probabilities.argsort()[::-1][:3]
        ranking = "  ".join(f"{emotion.labels[index]} {emotion.probabilities[index]:.0%}" for index in best)
        if emotion.abstained:
            ranking = f"{UNCERTAIN}: {ranking}"
        name = who(emotion, self._several)
        self._console.print(
            f"{emotion.start_s:7.2f} - {emotion.end_s:7.2f} s  {name:<12} {given(emotion):<24}  {ranking}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


class LiveSink:
    """For each face one bar per emotion, and below them the state of the run.

    At each refresh `status` gives the lines about the source: time, dropped frames and so on. `several`: there is more
    than one source.
    """

    def __init__(self, console: Console, title: str, status: Callable[[], str], several: bool = False) -> None:
        self._title, self._status, self._several = title, status, several
        self._latest: dict[tuple[str, int | None], Emotion] = {}
        self._arrivals: deque[float] = deque(maxlen=RATE_SPAN)
        self._live = Live(console=console, refresh_per_second=REFRESH_HZ, get_renderable=self._render)

    def __enter__(self) -> LiveSink:
        self._live.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.__exit__(*exc_info)

    def write(self, emotion: Emotion) -> None:
        self._arrivals.append(time.monotonic())
        name = emotion.source or ""
        self._latest[name, emotion.track_id] = emotion
        # Each source has a clock of its own.
        current = {
            key: latest
            for key, latest in self._latest.items()
            if key[0] != name or emotion.end_s - latest.end_s < STALE_S
        }
        # The voice alone is shown only until a face appears.
        if emotion.track_id is not None:
            current.pop((name, None), None)
        self._latest = current

    def _render(self) -> RenderableType:
        ordered = sorted(self._latest.items(), key=lambda item: (item[0][0], item[0][1] or 0))
        bars = [_bars(emotion, self._several) for _, emotion in ordered]
        state = Text(f"{self._rate():.1f} answers/s  {self._status()}", style="dim")
        waiting = Text("waiting for a face or a voice", style="dim")
        return Group(Text(self._title, style="bold"), *(bars or [waiting]), state)

    def _rate(self) -> float:
        if len(self._arrivals) < 2:
            return 0.0
        return (len(self._arrivals) - 1) / max(1e-6, self._arrivals[-1] - self._arrivals[0])


def _bars(emotion: Emotion, several: bool) -> Group:
    heading = f"{who(emotion, several)}  {given(emotion)}  {emotion.end_s:.1f} s  age {emotion.age_ms:.0f} ms"
    if emotion.abstained:
        heading += f"  {UNCERTAIN}"
    table = Table(show_header=False, box=None, pad_edge=False)
    best = emotion.probabilities.argmax()
    for index, (label, probability) in enumerate(zip(emotion.labels, emotion.probabilities, strict=True)):
        cells = round(float(probability) * BAR_CELLS)
        bar = Text("█" * cells, style="bold green" if index == best and not emotion.abstained else "cyan")
        table.add_row(label, bar.append("·" * (BAR_CELLS - cells), style="dim"), f"{probability:.0%}")
    return Group(Text(heading, style="italic"), table)  # a table's own title would be broken at the table's width
