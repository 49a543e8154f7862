"""Counters of a live run as Prometheus reads them: its text format 0.0.4, in the few lines that it takes, because its
client library keeps a registry for the whole process, and this is about one run.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import os
import sys
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mma_edge import __version__
from mma_edge.live import LivePipeline
from mma_edge.live.report import STAGES
from mma_edge.outputs.follower import QueuedFollower
from mma_edge.service.health import METRICS_TYPE
from mma_edge.sinks import Follower
from mma_edge.types import UNCERTAIN, Emotion

if TYPE_CHECKING:
    from aiohttp import web

AGES_S = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0)
"""Upper limits of the histogram of ages: from an engine that has nothing else to do to one that is far too slow."""
OF_SOURCES = {
    "running": ("gauge", "1 while the source runs, 0 after it ended or failed."),
    "last_frame_timestamp_seconds": ("gauge", "When the newest frame arrived, since 1970."),
    "last_sound_timestamp_seconds": ("gauge", "When the newest sound arrived, since 1970."),
    "faces": ("gauge", "Faces in the newest frame."),
    "frames_total": ("counter", "Frames that were looked at."),
    "frames_dropped_total": ("counter", "Frames that newer ones replaced."),
    "sound_seconds_total": ("counter", "Sound that was heard."),
    "sound_dropped_seconds_total": ("counter", "Sound that was lost."),
    "reopened_total": ("counter", "Times that the source was opened again."),
    "windows_total": ("counter", "Windows that fell due, one for each face and hop."),
    "windows_replaced_total": ("counter", "Windows that newer ones of the same face replaced."),
    "answers_total": ("counter", "Answers of the engine."),
}
"""One series for each source; name -> kind and help."""
Sample = tuple[str, dict[str, str], float]
"""What comes after the metric's name ("_bucket", mostly ""), labels, value."""
Family = tuple[str, str, str, list[Sample]]
"""Name, kind, help and samples of a metric."""
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Metrics(Follower):
    """Counts what goes by, and tells what else a `LivePipeline` knows. `text` may be called by any thread."""

    name = "/metrics"

    def __init__(self, others: Sequence[Follower] = ()) -> None:
        """`others`: outputs that are followed, too, whose losses are told."""
        self._others = [other for other in others if isinstance(other, QueuedFollower)]
        self._live: LivePipeline | None = None
        self._start_s = time.time()
        self._lock = threading.Lock()
        self._labels: Counter[tuple[str, str]] = Counter()  # (source, label) -> answers
        self._ages: dict[str, list[int]] = {}  # source -> answers by age, the last those beyond all AGES_S
        self._age_sum_s: Counter[str] = Counter()

    def begin(self, running: Any) -> None:
        if isinstance(running, LivePipeline):
            names = (*running.labels, *([UNCERTAIN] if running.options.abstain_below else []))
            with self._lock:
                # Zeros from the start, so that the first answer is an increase.
                self._labels.update({(source, label): 0 for source in running.names for label in names})
                self._ages = {source: [0] * (len(AGES_S) + 1) for source in running.names}
            self._live = running

    def write(self, emotion: Emotion) -> None:
        source, age_s = emotion.source or "", emotion.age_ms / 1000
        with self._lock:
            self._labels[source, emotion.label] += 1
            if source in self._ages:
                self._ages[source][bisect_left(AGES_S, age_s)] += 1
                self._age_sum_s[source] += age_s

    def set_up(self, app: web.Application) -> None:
        """Add the route to a web server's application: see `mma_edge.web.server.WebServer`."""
        from aiohttp import web

        async def metrics(request: web.Request) -> web.Response:
            return web.Response(body=self.text().encode(), headers={"Content-Type": METRICS_TYPE})

        app.router.add_get("/metrics", metrics)

    def text(self) -> str:
        """The answer to GET /metrics."""
        families = [*self._process()]
        if self._live is not None:
            families += [*self._run(self._live), *self._sources(self._live), *self._answers()]
        lines = []
        for name, kind, about, samples in families:
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{suffix}{_braced(labels)} {value!r}" for suffix, labels, value in samples]
        return "\n".join(lines) + "\n"

    def _process(self) -> Iterator[Family]:
        labels = {"version": __version__, "python": sys.version.split()[0]}
        yield "mma_edge_info", "gauge", "Always 1; what runs is in the labels.", [("", labels, 1)]
        started = [("", {}, round(self._start_s, 3))]
        yield "process_start_time_seconds", "gauge", "Start of the process, seconds since 1970.", started
        cpu = [("", {}, time.process_time())]
        yield "process_cpu_seconds_total", "counter", "User and system time of the process.", cpu
        if memory := _resident_bytes():
            yield "process_resident_memory_bytes", "gauge", "Memory of the process.", [("", {}, memory)]
        sent = [("", {"output": each.name}, each.sent) for each in self._others]
        lost = [("", {"output": each.name}, each.backlog.dropped) for each in self._others]
        if self._others:
            yield "mma_edge_output_sent_total", "counter", "Messages that an output has sent.", sent
            yield "mma_edge_output_dropped_total", "counter", "Messages that an output left out.", lost

    def _run(self, live: LivePipeline) -> Iterator[Family]:
        calls = [("", {}, live.engine.steps)]
        yield "mma_edge_engine_calls_total", "counter", "Calls of the engine.", calls
        samples = []
        for stage in STAGES:
            count, total_ms = live.stages.total(stage)
            samples += [("_sum", {"stage": stage}, round(total_ms / 1000, 6)), ("_count", {"stage": stage}, count)]
        about = "Time in each stage from the arrival of a frame to its answer."
        yield "mma_edge_stage_seconds", "summary", about, samples

    def _sources(self, live: LivePipeline) -> Iterator[Family]:
        values = {source.name: _values(live, number) for number, source in enumerate(live.sources)}
        for name, (kind, about) in OF_SOURCES.items():
            samples = [("", {"source": source}, found[name]) for source, found in values.items()]
            yield f"mma_edge_{name}", kind, about, [each for each in samples if each[2] is not None]

    def _answers(self) -> Iterator[Family]:
        with self._lock:
            labels = [("", {"source": s, "label": label}, n) for (s, label), n in self._labels.items()]
            ages = {source: (list(counts), self._age_sum_s[source]) for source, counts in self._ages.items()}
        yield "mma_edge_labels_total", "counter", "Records by their label.", labels
        samples: list[Sample] = []
        for source, (counts, total_s) in ages.items():
            below = 0
            for limit, count in zip((*map(str, AGES_S), "+Inf"), counts, strict=True):
                below += count
                samples.append(("_bucket", {"source": source, "le": limit}, below))
            samples += [("_sum", {"source": source}, round(total_s, 6)), ("_count", {"source": source}, below)]
        about = "Age of the newest frame or sound of a window when the engine has answered."
        yield "mma_edge_answer_age_seconds", "histogram", about, samples


def _values(live: LivePipeline, number: int) -> dict[str, float | None]:
    """Of one source, by the names of OF_SOURCES; None: there is none yet."""
    source, pipeline = live.sources[number], live.pipelines[number]
    stats, ahead_s = pipeline.source.stats, time.time() - time.monotonic()
    frame_s, sound_s = source.last_frame_s, source.last_sound_s
    return {
        "running": int(not source.thread.ended),
        "last_frame_timestamp_seconds": None if frame_s is None else round(frame_s + ahead_s, 3),
        "last_sound_timestamp_seconds": None if sound_s is None else round(sound_s + ahead_s, 3),
        "faces": len(pipeline.state.faces),
        "frames_total": source.frames,
        "frames_dropped_total": stats.dropped_frames,
        "sound_seconds_total": round(source.sound_s, 6),
        "sound_dropped_seconds_total": round(stats.dropped_audio_s, 6),
        "reopened_total": stats.reopened,
        "windows_total": source.windows,
        "windows_replaced_total": source.replaced,
        "answers_total": source.answers,
    }


def _braced(labels: dict[str, str]) -> str:
    """{name="value",...}, or "" for none; the format asks for three signs to be escaped."""
    escaped = {name: text.translate(_ESCAPES) for name, text in labels.items()}
    return "{" + ",".join(f'{name}="{text}"' for name, text in escaped.items()) + "}" if labels else ""


def _resident_bytes() -> int | None:
    """None where the system has no /proc."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
