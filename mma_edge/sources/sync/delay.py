"""Sound that is delayed against the picture by what was measured, and the delays that are remembered for devices.

XDG_CONFIG_HOME/mma-edge/audio_delays.json, else in ~/.config/mma-edge (Windows: APPDATA/mma-edge).
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from mma_edge.errors import UsageError
from mma_edge.files import to_json, write_text
from mma_edge.sources.base import MOST_DELAY_MS, Event, Source
from mma_edge.types import AudioChunk


@Source.register
class DelayedSource(AbstractContextManager):
    """Another source, whose sound is so much later (negative: earlier). Everything else is the other's own: it does not
    inherit, or it would answer in the other's place.

    Events stay in order of time: what becomes later is held back until it is its turn. Only a live source's pictures
    are not held back for sound that becomes earlier: answers would be late by as much, and the sound that is missing
    at the end of a window is a small part of it.
    """

    def __init__(self, source: Source, delay_s: float) -> None:
        """Takes over the source, and closes it in the end."""
        self._source, self._delay_s = source, delay_s

    def __getattr__(self, name: str) -> Any:
        """All that a source has beside its events, some of which changes while it runs."""
        return getattr(self._source, name)

    def events(self) -> Iterator[Event]:
        """Its events, with the sound at its new time."""
        return self._in_order(self._source.events())

    def _in_order(self, events: Iterator[Event]) -> Iterator[Event]:
        hold_sound, hold_frames = self._delay_s > 0, self._delay_s < 0 and not self._source.live
        held: deque[tuple[float, Event]] = deque()
        for event in events:
            now_s, is_sound = event.time_s, isinstance(event, AudioChunk)
            while held and held[0][0] <= now_s:
                yield held.popleft()[1]
            if is_sound:
                event = dataclasses.replace(event, time_s=now_s + self._delay_s)
            if hold_sound if is_sound else hold_frames:
                held.append((now_s + abs(self._delay_s), event))
            else:
                yield event
        for _, event in held:
            yield event

    def close(self) -> None:
        self._source.close()

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@dataclasses.dataclass(frozen=True)
class RememberedDelay:
    """What `mma-edge doctor --sync --remember` found."""

    audio_delay_ms: int
    measured: str  # date, ISO 8601


def delays_file() -> Path:
    """Where they are kept; the file need not exist."""
    variable, default = ("APPDATA", "AppData/Roaming") if sys.platform == "win32" else ("XDG_CONFIG_HOME", ".config")
    return Path(os.environ.get(variable) or Path.home() / default) / "mma-edge" / "audio_delays.json"


def remembered(device: str) -> RememberedDelay | None:
    """The delay of this device; UsageError where the file was damaged."""
    return _read().get(device)


def remember(device: str, delay: RememberedDelay) -> Path:
    """Keep the delay of this device and give the file; OutputError where it cannot be written."""
    path = delays_file()
    kept = {**_read(), device: delay}
    write_text(path, to_json({name: dataclasses.asdict(each) for name, each in sorted(kept.items())}))
    return path


def _read() -> dict[str, RememberedDelay]:
    path = delays_file()
    try:
        kept = {name: RememberedDelay(**each) for name, each in json.loads(path.read_text(encoding="utf-8")).items()}
        if all(abs(each.audio_delay_ms) <= MOST_DELAY_MS for each in kept.values()):
            return kept
        reason = "a delay is too large"
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = str(error)
    hint = "delete it, and measure again: mma-edge doctor --sync SOURCE --remember"
    raise UsageError(f"the delays of the sound in {path} cannot be read ({reason})", "what doctor has written", hint)
