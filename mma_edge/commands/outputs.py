"""`mma-edge run`: from the answers to the sinks, until the sources end or somebody ends it."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mma_edge.clip import NUM_FRAMES
from mma_edge.commands.support import EXIT_INTERRUPTED, say
from mma_edge.live import FilesPipeline, LivePipeline, open_pipeline
from mma_edge.live.pipeline import REST_S
from mma_edge.live.report import StatsFile, stages_line
from mma_edge.pipeline import Pipeline, StreamOptions
from mma_edge.recognizer import Recognizer
from mma_edge.service import HealthServer, Notifier, Watch, swept
from mma_edge.sinks import STDOUT, Follower, Followers, LineSink, LiveSink, StdoutSink, open_records
from mma_edge.sources.names import Spec

Running = LivePipeline | FilesPipeline


@dataclass(frozen=True)
class Outputs:
    """Where the answers go beside the screen."""

    records: Path | None
    stats: Path | None
    health: tuple[str, int] | None  # where /healthz listens
    overwrite: bool
    quiet: bool  # nothing on the screen but notices
    followers: Followers
    metrics: Callable[[], str] | None = None  # what /metrics says beside /healthz


def followed(options: StreamOptions, followers: Sequence[Follower]) -> tuple[StreamOptions, Followers]:
    """Options for a run whose frames, sound and notices these followers get."""
    group = Followers(followers, options.notify)

    def notify(line: str) -> None:
        options.notify(line)
        group.notice(line)

    watchers = (group,) if followers else ()
    return dataclasses.replace(options, notify=notify, watchers=watchers), group


def run_sources(
    recognizer: Recognizer,
    sources: Mapping[str, Spec],
    options: StreamOptions,
    outputs: Outputs,
    title: str,
    console: Console,
) -> int:
    """Run to the end, to Ctrl-C or to SIGTERM; returns the exit code. MMAEdgeError where all sources failed."""
    with contextlib.ExitStack() as stack:
        # Before the pipeline, so that it ends after it: whoever calls it has ended by then.
        stack.enter_context(outputs.followers)
        running = stack.enter_context(open_pipeline(recognizer, sources, options))
        sinks = []
        if outputs.records:
            records = open_records(outputs.records, recognizer.labels, outputs.overwrite, options.notify)
            sinks.append(stack.enter_context(records))
            if isinstance(records, StdoutSink) and isinstance(running, LivePipeline):
                records.on_wait = running.delivery.begin  # for the watchdog
        if outputs.stats and isinstance(running, LivePipeline):
            stack.enter_context(StatsFile(outputs.stats, running, outputs.overwrite))
        if isinstance(running, LivePipeline):
            stack.enter_context(_watched(running, outputs.health, outputs.metrics))
        sinks.append(outputs.followers)
        outputs.followers.begin(running)
        # SIGTERM (the stop of a service) ends the run as cleanly as Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        interrupted = False
        try:
            if not outputs.quiet:
                several = len(sources) > 1
                view = LineSink(console, several)
                if console.is_terminal:
                    view = LiveSink(console, title, lambda: _status(running), several)
                else:
                    say(console, title)
                sinks.append(stack.enter_context(view))
            _write(running, sinks)
        except KeyboardInterrupt:
            interrupted = True
            if isinstance(running, LivePipeline):
                running.stop()
                for sink in sinks:
                    if isinstance(sink, StdoutSink):
                        sink.hurry(REST_S)
                _write(running, sinks)  # the answers that nobody had taken yet
    if not outputs.quiet:
        say(console, _summary(running, outputs.records))
    code = next((error.exit_code for error in running.failures.values()), 0)
    return EXIT_INTERRUPTED if interrupted and isinstance(running, FilesPipeline) else code


def _write(running: Running, sinks: list) -> None:
    for emotion in running:
        for sink in sinks:
            sink.write(emotion)


@contextlib.contextmanager
def _watched(live: LivePipeline, health: tuple[str, int] | None, metrics: Callable[[], str] | None) -> Iterator[None]:
    """Tell systemd, and whoever asks at `health`, how a live run fares."""
    threads = [live.engine, live.delivery, *(source.thread for source in live.sources)]
    notify = live.options.notify
    with contextlib.ExitStack() as stack:
        watch = Watch(threads, live.sources, notify, live.resume, Notifier.of())
        if health:
            server = stack.enter_context(HealthServer(health, watch.health, metrics))
            notify(f"http://{server.place}/healthz says how this run fares")
        stack.enter_context(watch)
        stack.enter_context(swept())
        yield


def _status(running: Running) -> str:
    parts = [_state(pipeline) for pipeline in running.pipelines[-1:]]
    if isinstance(running, LivePipeline):
        parts = [_state(pipeline) for pipeline in running.pipelines]
        if len(parts) > 1:
            parts = ["", *(f"{source.name}: {part}" for source, part in zip(running.sources, parts, strict=True))]
        parts.append(stages_line(running))
    return "\n".join(parts)


def _state(pipeline: Pipeline) -> str:
    state = pipeline.state
    parts = [f"{state.time_s:.1f} s", f"{pipeline.frame_rate():.0f} fps", f"{len(state.faces)} faces"]
    return "  ".join(parts + _losses([pipeline]))


def _losses(pipelines: list[Pipeline]) -> list[str]:
    dropped = sum(pipeline.source.stats.dropped_frames for pipeline in pipelines)
    damaged = sum(pipeline.source.stats.damaged_packets for pipeline in pipelines)
    live = any(pipeline.source.live for pipeline in pipelines)
    lost = [f"{dropped} frames dropped"] if live else []
    return lost + ([f"{damaged} damaged packets skipped"] if damaged else [])


def _summary(running: Running, records: Path | None) -> str:
    pipelines = running.pipelines
    stats = [pipeline.source.stats for pipeline in pipelines]
    answers = sum(pipeline.state.answers for pipeline in pipelines)
    frames, audio_s = sum(each.frames for each in stats), sum(each.audio_s for each in stats)
    parts = [f"{answers} answers from {frames} frames and {audio_s:.1f} s of sound"]
    parts += _losses(pipelines)
    if isinstance(running, LivePipeline):
        replaced = sum(source.replaced for source in running.sources)
        parts += [f"{replaced} answers left out for newer ones"] if replaced else []
        parts += filter(None, [stages_line(running)])
    if running.options.streaming:
        work = [pipeline.predictor.stats for pipeline in pipelines]
        whole = NUM_FRAMES * sum(each.updates for each in work)
        parts.append(f"{sum(each.stem_frames for each in work)} of {whole} frames computed, the rest reused")
    if records:
        parts.append("records on stdout" if records == Path(STDOUT) else f"records in {records}")
    return ", ".join(parts)
