"""What runs on the sources that a user named: live ones all at once, files one after the other."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

from mma_edge.errors import MMAEdgeError, SourceError, UsageError
from mma_edge.live.pipeline import LivePipeline, prefixed
from mma_edge.pipeline import ClipPredictor, Pipeline, StreamOptions
from mma_edge.sources import CaptureOptions, is_live
from mma_edge.sources.file import checked_path, sample_path
from mma_edge.sources.names import Spec
from mma_edge.types import Emotion


class FilesPipeline(AbstractContextManager):
    """Iterate over it for the emotions of files, each as if it were alone.

    A file that fails in the middle of several is said and left out. At the end comes the first one's error where all
    failed.
    """

    def __init__(self, recognizer: ClipPredictor, sources: Mapping[str, Spec], options: StreamOptions) -> None:
        """One file is opened at once, several when it is their turn."""
        self.options = options
        self.failures: dict[str, MMAEdgeError] = {}
        self.names, self.labels = tuple(sources), recognizer.labels
        self.pipelines: list[Pipeline] = []  # those that were opened so far
        self._recognizer, self._sources = recognizer, dict(sources)
        if len(sources) == 1:
            self._open(*next(iter(sources.items())))

    def _open(self, name: str, spec: Spec) -> Pipeline:
        notify = prefixed(self.options.notify, name, len(self._sources))
        options = dataclasses.replace(self.options, notify=notify)
        self.pipelines.append(Pipeline.open(self._recognizer, spec, options, name=name))
        return self.pipelines[-1]

    def __iter__(self) -> Iterator[Emotion]:
        if len(self._sources) == 1:
            yield from self.pipelines[0]
            return
        for name, spec in self._sources.items():
            try:
                with self._open(name, spec) as pipeline:
                    yield from pipeline
            except SourceError as error:
                self.failures[name] = error
                self.options.notify(f"{name} ended: {error}")
        if len(self.failures) == len(self._sources):
            raise next(iter(self.failures.values()))

    def __exit__(self, *exc_info: object) -> None:
        for pipeline in self.pipelines:
            pipeline.__exit__(*exc_info)


def check_together(sources: Mapping[str, Spec], capture: CaptureOptions | None = None) -> bool:
    """Whether these sources are live, before any is opened.

    Raises:
        UsageError: some are and some are not. SourceError: one of several files cannot be read.
    """
    files = {name: spec for name, spec in sources.items() if not is_live(spec, capture)}
    if files and len(files) < len(sources):
        hint = "--realtime plays a file at its own pace, beside live sources"
        raise UsageError(f"the file {next(iter(files))} beside a live source", "only files or only live sources", hint)
    if len(files) > 1:
        for spec in files.values():
            checked_path(sample_path() if os.fspath(spec) == "sample" else spec)
    return not files


def open_pipeline(
    recognizer: ClipPredictor, sources: Mapping[str, Spec], options: StreamOptions
) -> LivePipeline | FilesPipeline:
    """Emotions of sources by name: see `mma_edge.sources.named_sources`.

    Raises:
        UsageError: files beside live sources, or options that do not go with a source. SourceError, DeviceError,
            DependencyError: one of them cannot be opened.
    """
    live = check_together(sources, options.capture)
    return (LivePipeline.open if live else FilesPipeline)(recognizer, sources, options)
