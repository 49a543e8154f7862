"""What `mma_edge.load` returns: a predictor that can also read a source."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mma_edge.bundle import read_bundle
from mma_edge.engines import open_engine
from mma_edge.predictor import Predictor
from mma_edge.types import Emotion, Notify, Watcher, ignore_notice

if TYPE_CHECKING:
    from mma_edge.pipeline.neutral import NeutralReference
    from mma_edge.sources import CaptureOptions
    from mma_edge.sources.names import Spec


class Recognizer(Predictor):
    """A model ready to predict clips or to follow a source. Made by `mma_edge.load`."""

    @classmethod
    def open(
        cls, bundle: str | os.PathLike | None, backend: str, precision: str | None, streaming: str | None = None
    ) -> Recognizer:
        """See `mma_edge.load`.

        `streaming` is "exact", "rolling" or "auto", as `stream` will be asked for: only an engine for which the bundle
        has the graphs is taken.
        """
        checked = read_bundle(bundle)
        return cls(checked, open_engine(checked, backend, precision, streaming))

    def stream(
        self,
        source: Spec | Sequence[Spec] | Mapping[str, Spec],
        *,
        window_s: float = 4.0,
        hop_s: float = 0.5,
        whole: bool = False,
        centre_fallback: bool = False,
        audio: bool = True,
        streaming: str | None = None,
        sound_age_s: float | None = None,
        voice_gate: float | None = 0.1,
        abstain_below: float | None = None,
        smooth_s: float | None = None,
        neutral: NeutralReference | str | os.PathLike | None = None,
        nvdec: bool = False,
        notify: Notify = ignore_notice,
        capture: CaptureOptions | None = None,
        watchers: Sequence[Watcher] = (),
    ) -> Iterator[Emotion]:
        """Emotions of a file, "camera:1", an address: one per face track and hop, as soon as it is known.

        Args:
            source: see `mma_edge.sources.open_source`. Several of them, as a list or by name, are live ones at the same
                time, files one after the other; `Emotion.source` tells which.
            neutral: what `neutral` gave of the person, or a file of `mma-edge neutral`: answers are relative to it.
                "auto": relative to what is usual for each person, which is learnt while running.
            watchers: who else sees the frames and the sound, such as a `mma_edge.sinks.notebook.NotebookView`. The
                others: see `mma_edge.pipeline.StreamOptions`.

        Raises:
            UsageError, SourceError, DeviceError: the options do not fit together, or a source cannot be read. One of
                several that fails later is said by `notify`, and the others go on.
        """
        # Imported here: OpenCV and PyAV take 0.2 s to load, and `predict` needs neither.
        from mma_edge.live import open_pipeline
        from mma_edge.pipeline import StreamOptions
        from mma_edge.pipeline.neutral import check_neutral, neutral_from
        from mma_edge.sources import named_sources
        from mma_edge.streaming import check_mode, choose_mode

        if streaming is not None:
            check_mode(streaming, auto=True)
            streaming = choose_mode(self, streaming, notify)
        neutral = neutral_from(neutral)
        check_neutral(neutral, self.bundle)
        options = StreamOptions(
            window_s=window_s,
            hop_s=hop_s,
            whole=whole,
            centre_fallback=centre_fallback,
            audio=audio,
            streaming=streaming,
            sound_age_s=sound_age_s,
            voice_gate=voice_gate,
            abstain_below=abstain_below,
            smooth_s=smooth_s,
            neutral=neutral,
            nvdec=nvdec,
            notify=notify,
            capture=capture,
            watchers=tuple(watchers),
        )
        sources = named_sources([source] if isinstance(source, (str, os.PathLike)) else source)
        with open_pipeline(self, sources, options) as pipeline:
            yield from pipeline

    def neutral(
        self, source: Spec, *, seconds: float | None = None, capture: CaptureOptions | None = None
    ) -> NeutralReference:
        """What the model says of the one person in a source while nothing moves them: for `stream(neutral=...)`.

        Args:
            seconds: of the source, from its beginning; None: all of a file, 10 of a live source.

        Raises:
            UsageError: the model has no class neutral. SourceError: two faces at a time, or too few clips.
        """
        from mma_edge.live import measure_neutral
        from mma_edge.pipeline import StreamOptions

        return measure_neutral(self, source, seconds, StreamOptions(capture=capture))
