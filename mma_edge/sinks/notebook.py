"""A live picture in a notebook: the newest frame with its faces, and a bar per emotion."""

from __future__ import annotations

import base64
import html
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mma_edge.errors import UsageError
from mma_edge.sinks.console import STALE_S, given, who
from mma_edge.types import AudioChunk, Emotion, Face, Frame

_GREEN = (0, 158, 115)
_BAR = "background:#0072b2;height:0.8em;border-radius:2px"
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 80]


@dataclass(frozen=True, eq=False)
class _Shot:
    """A frame made small, with the boxes of its faces drawn."""

    image: np.ndarray  # uint8 (h, w, 3) RGB
    time_s: float
    faces: int


class NotebookView(AbstractContextManager):
    """Shows what a stream sees and says, in the cell that runs it:

        with NotebookView() as view:
            for emotion in recognizer.stream("camera", watchers=(view,)):
                view.write(emotion)

    A thread of its own draws, `rate_hz` times a second at most; frames in between are not looked at. What was shown
    last stays in the notebook.
    """

    def __init__(self, width: int = 480, rate_hz: float = 5.0) -> None:
        """`width` of the picture in pixels. UsageError outside a notebook."""
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        if not hasattr(shell, "kernel"):  # a terminal's IPython cannot show pictures
            hint = "in a terminal mma-edge run shows faces and emotions"
            raise UsageError("NotebookView outside a notebook", "a cell of a Jupyter notebook", hint)
        if width < 16 or not rate_hz > 0:
            raise UsageError(f"NotebookView(width={width}, rate_hz={rate_hz:g})", "at least 16 pixels, a rate above 0")
        self._width, self._pause_s = width, 1 / rate_hz
        self._shots: dict[str, _Shot] = {}
        self._due_s: dict[str, float] = {}  # when the next frame of a source is taken
        self._answers: dict[tuple[str | None, int | None], Emotion] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="mma-edge-notebook", daemon=True)
        self._shown: Any = None

    def __enter__(self) -> NotebookView:
        from IPython.display import HTML, display

        self._shown = display(HTML("waiting for the first picture"), display_id=True)
        self._thread.start()
        return self

    def frame(self, source: str, frame: Frame, faces: Sequence[Face]) -> None:
        """Called by the stream: takes a copy, a few times a second."""
        now_s = time.monotonic()
        if now_s < self._due_s.get(source, 0.0):
            return
        self._due_s[source] = now_s + self._pause_s
        height, width = frame.picture.shape[:2]
        scale = min(1.0, self._width / width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.ascontiguousarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA))
        for face in faces:
            x0, y0, x1, y1 = (round(scale * value) for value in face.box)
            cv2.rectangle(image, (x0, y0), (x1, y1), _GREEN, 2)
            cv2.putText(image, str(face.track_id), (x0 + 4, y0 + 18), cv2.FONT_HERSHEY_SIMPLEX, 0.6, _GREEN, 2)
        self._shots = {**self._shots, source: _Shot(image, frame.time_s, len(faces))}

    def sound(self, source: str, chunk: AudioChunk) -> None:
        """Sound is not shown."""

    def write(self, emotion: Emotion) -> None:
        """The newest answer about a face, or about the voice; older ones leave the view."""
        answers = {**self._answers, (emotion.source, emotion.track_id): emotion}
        # A new dict, never a changed one: the other thread may be reading it.
        self._answers = {
            key: answer
            for key, answer in answers.items()
            if answer.source != emotion.source or answer.end_s > emotion.end_s - STALE_S
        }

    def _draw(self) -> None:
        shots, answers = self._shots, self._answers
        while not self._stopped.wait(self._pause_s):
            if shots is not self._shots or answers is not self._answers:
                shots, answers = self._shots, self._answers
                self._show()

    def _show(self) -> None:
        from IPython.display import HTML

        shots, answers = self._shots, self._answers
        several = len(shots) > 1
        pictures = "".join(_picture(name, shot) for name, shot in shots.items())
        bars = "".join(_bars(answer, several) for answer in answers.values())
        style = "display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start"
        self._shown.update(HTML(f'<div style="{style}">{pictures}{bars}</div>'))

    def __exit__(self, *exc_info: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._show()


def _picture(name: str, shot: _Shot) -> str:
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(shot.image, cv2.COLOR_RGB2BGR), _JPEG)
    what = html.escape(f"{name} at {shot.time_s:.1f} s, faces: {shot.faces}")
    return f'<img alt="{what}" title="{what}" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'


def _bars(emotion: Emotion, several: bool) -> str:
    """One answer as a table: a row for each class."""
    rows = "".join(
        f'<tr><td style="text-align:left">{html.escape(label)}</td>'
        f'<td style="width:8em"><div style="{_BAR};width:{100 * p:.0f}%"></div></td><td>{100 * p:.0f} %</td></tr>'
        for label, p in zip(emotion.labels, emotion.probabilities, strict=True)
    )
    title = html.escape(f"{who(emotion, several)}: {emotion.label}")
    return f"<table><caption><b>{title}</b><br>{html.escape(given(emotion))}</caption>{rows}</table>"
