"""The run road, from events to emotions, with a made-up source and the embedded model."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import time
from collections.abc import Iterator

import numpy as np
import pytest
from skimage import data

import mma_edge
from mma_edge.errors import SourceError, UsageError
from mma_edge.pipeline import Pipeline, StreamOptions
from mma_edge.recognizer import Recognizer
from mma_edge.sources import Event, Source, SourceStats, open_source
from mma_edge.types import AudioChunk, Frame


class MadeUp(Source):
    """Events from a list."""

    name = "made-up"

    def __init__(self, events: list[Event], live: bool = False) -> None:
        self._events, self.live, self.closed = events, live, False
        self.has_video = any(isinstance(event, Frame) for event in events)
        self.has_audio = any(isinstance(event, AudioChunk) for event in events)
        self.stats = SourceStats()

    def events(self) -> Iterator[Event]:
        yield from self._events

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return mma_edge.load()


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:300, 80:380])


def frames(image: np.ndarray, start_s: float, end_s: float, fps: float = 10.0) -> list[Frame]:
    return [Frame(image, float(t), time.monotonic()) for t in np.arange(start_s, end_s, 1 / fps)]


@functools.cache
def spoken() -> tuple[np.ndarray, int]:
    """The voice of the sample clip, float32 (n,), and its rate in Hz."""
    with open_source("sample") as source:
        chunks = [event for event in source.events() if isinstance(event, AudioChunk)]
    return np.concatenate([chunk.samples[0] for chunk in chunks]), chunks[0].sample_rate_hz


def sound(start_s: float, end_s: float, voice: bool = True) -> list[AudioChunk]:
    """Speech, or noise of the same loudness."""
    speech, rate_hz = spoken()
    wave = speech if voice else 0.05 * np.random.default_rng(0).standard_normal(len(speech), dtype=np.float32)
    size = rate_hz // 10
    return [
        AudioChunk(
            np.take(wave, np.arange(size) + round(t * rate_hz), mode="wrap")[None], rate_hz, float(t), time.monotonic()
        )
        for t in np.arange(start_s, end_s, 0.1)
    ]


def merged(*parts: list[Event]) -> list[Event]:
    return sorted((event for part in parts for event in part), key=lambda event: event.time_s)


def test_one_record_per_face_and_hop_with_both_modalities(recognizer: Recognizer, portrait: np.ndarray) -> None:
    source = MadeUp(merged(frames(portrait, 0, 2.05), sound(0, 2.05)))
    with Pipeline(recognizer, source, StreamOptions(window_s=1.0, hop_s=0.5)) as pipeline:
        emotions = list(pipeline)
    assert source.closed
    assert [round(e.end_s, 2) for e in emotions] == [0.5, 1.0, 1.5, 2.0]
    assert [round(e.start_s, 2) for e in emotions] == [0.0, 0.0, 0.5, 1.0]
    assert {e.track_id for e in emotions} == {1}
    assert all(e.modalities == ("video", "audio") for e in emotions)
    assert all(abs(e.probabilities.sum() - 1) < 1e-5 and e.age_ms >= 0 for e in emotions)


def test_records_turn_to_voice_only_when_the_face_is_gone(recognizer: Recognizer, portrait: np.ndarray) -> None:
    empty = np.full_like(portrait, 90)
    events = merged(frames(portrait, 0, 1), frames(empty, 1, 3), sound(0, 3))
    emotions = list(Pipeline(recognizer, MadeUp(events), StreamOptions(window_s=1.0, hop_s=0.5)))
    assert emotions[0].track_id == 1
    last = emotions[-1]
    assert (last.track_id, last.box, last.modalities) == (None, None, ("audio",))


def test_the_embedded_model_answers_differently_to_face_and_voice(recognizer: Recognizer, portrait: np.ndarray) -> None:
    options = StreamOptions(window_s=1.0, hop_s=1.0)
    alone = list(Pipeline(recognizer, MadeUp(frames(portrait, 0, 1.05)), options))
    both = list(Pipeline(recognizer, MadeUp(merged(frames(portrait, 0, 1.05), sound(0, 1.05))), options))
    voice = list(Pipeline(recognizer, MadeUp(sound(0, 1.05)), options))
    assert alone[0].modalities == ("video",) and voice[0].modalities == ("audio",)
    assert np.abs(alone[0].probabilities - both[0].probabilities).max() > 1e-3
    assert np.abs(voice[0].probabilities - both[0].probabilities).max() > 1e-3


def test_a_clip_without_face_and_sound_says_so(recognizer: Recognizer, portrait: np.ndarray) -> None:
    with pytest.raises(SourceError, match="no face and no sound"):
        list(Pipeline(recognizer, MadeUp(frames(np.zeros_like(portrait), 0, 1)), StreamOptions()))


def test_a_clip_without_face_but_with_sound_is_heard_and_says_so(recognizer: Recognizer, portrait: np.ndarray) -> None:
    notices: list[str] = []
    events = merged(frames(np.zeros_like(portrait), 0, 1), sound(0, 1))
    emotions = list(Pipeline(recognizer, MadeUp(events), StreamOptions(notify=notices.append)))
    assert emotions and all(e.track_id is None for e in emotions)
    assert len(notices) == 1 and "no face was found" in notices[0]


@pytest.mark.parametrize("mode", [{}, {"whole": True}, {"streaming": "exact"}])
def test_noise_is_no_voice_and_the_face_answers_alone(
    recognizer: Recognizer, portrait: np.ndarray, mode: dict[str, object]
) -> None:
    notices: list[str] = []
    film, cpu = frames(portrait, 0, 2.05), mma_edge.load(backend="cpu", precision="fp32")
    (noisy,), (alone,), (open_to_all,) = (
        list(Pipeline(cpu, MadeUp(events), StreamOptions(hop_s=4.0, notify=notices.append, **mode, **gate)))
        for events, gate in (
            (merged(film, sound(0, 2.05, voice=False)), {}),
            (film, {}),
            (merged(film, sound(0, 2.05, voice=False)), {"voice_gate": None}),
        )
    )
    assert (noisy.modalities, alone.modalities, open_to_all.modalities) == (("video",), ("video",), ("video", "audio"))
    assert 0 <= noisy.voice < 0.1 and alone.voice is None and open_to_all.voice is None
    np.testing.assert_allclose(noisy.probabilities, alone.probabilities, atol=1e-6)
    assert notices == ["made-up: no speech was found; --voice-gate off takes all sound for a voice"]


def test_noise_without_a_face_gives_no_record_and_says_so(recognizer: Recognizer, portrait: np.ndarray) -> None:
    noise, blank = sound(0, 1, voice=False), frames(np.zeros_like(portrait), 0, 1)
    for events, missing in ((noise, "no speech"), (merged(noise, blank), "no face and no speech")):
        with pytest.raises(SourceError, match=f"{missing} was found.*--voice-gate off"):
            list(Pipeline(recognizer, MadeUp(events), StreamOptions()))
    (heard,) = Pipeline(recognizer, MadeUp(noise), StreamOptions(hop_s=1.0, voice_gate=0.0))
    assert heard.modalities == ("audio",) and heard.voice < 0.1


def test_an_answer_below_the_limit_is_uncertain_and_keeps_its_probabilities(
    recognizer: Recognizer, portrait: np.ndarray
) -> None:
    events = merged(frames(portrait, 0, 1.05), sound(0, 1.05))
    (named,) = Pipeline(recognizer, MadeUp(events), StreamOptions(hop_s=1.0))
    limits = {named.confidence - 0.01: False, min(0.9999, named.confidence + 0.01): True}
    for limit, abstained in limits.items():
        (emotion,) = Pipeline(recognizer, MadeUp(events), StreamOptions(hop_s=1.0, abstain_below=limit))
        assert emotion.abstained is abstained
        assert emotion.label == ("uncertain" if abstained else named.label)
        assert emotion.to_dict()["label"] == emotion.label
        np.testing.assert_array_equal(emotion.probabilities, named.probabilities)
        assert emotion.confidence == named.confidence


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1.5, float("nan"), float("inf"), "half"])
def test_a_limit_for_uncertain_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(UsageError, match=r"--abstain-below .*above 0 and below 1"):
        StreamOptions(abstain_below=value)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), "on"])
def test_a_share_of_speech_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(UsageError, match=r"--voice-gate .*from 0 to 1, or off"):
        StreamOptions(voice_gate=value)


def test_a_class_named_uncertain_is_not_confused_with_abstaining(portrait: np.ndarray) -> None:
    class Odd:
        labels, image_size = ("happy", "uncertain"), 48

    with pytest.raises(UsageError, match="class 'uncertain'"):
        Pipeline(Odd(), MadeUp(frames(portrait, 0, 1)), StreamOptions(abstain_below=0.5))
    Pipeline(Odd(), MadeUp(frames(portrait, 0, 1)), StreamOptions())


def test_the_authors_centre_crop_is_used_only_on_request(recognizer: Recognizer, portrait: np.ndarray) -> None:
    blank = np.full_like(portrait, 120)
    events = merged(frames(blank, 0, 1), sound(0, 1))
    emotions = list(Pipeline(recognizer, MadeUp(events), StreamOptions(centre_fallback=True)))
    assert {e.track_id for e in emotions} == {0}
    assert all("video" in e.modalities for e in emotions)
    assert emotions[0].box == (75, 75, 225, 225)


def test_whole_gives_one_record_per_face_for_the_file(recognizer: Recognizer, portrait: np.ndarray) -> None:
    events = merged(frames(portrait, 0, 2), sound(0, 2))
    emotions = list(Pipeline(recognizer, MadeUp(events), StreamOptions(whole=True)))
    assert len(emotions) == 1
    assert emotions[0].start_s == 0 and emotions[0].end_s == pytest.approx(2.0)
    with pytest.raises(UsageError, match="--whole"):
        Pipeline(recognizer, MadeUp(events, live=True), StreamOptions(whole=True))


def test_a_camera_that_comes_back_with_another_size_goes_on(recognizer: Recognizer, portrait: np.ndarray) -> None:
    larger = np.kron(portrait, np.ones((2, 2, 1), np.uint8))
    events = [*frames(portrait, 0, 1), *frames(larger, 11, 12)]
    emotions = list(Pipeline(recognizer, MadeUp(events, live=True), StreamOptions(window_s=1.0, hop_s=0.5)))
    tracks = [e.track_id for e in emotions]
    assert tracks[0] == 1 and tracks[-1] == 2
    assert not [e for e in emotions if 2.1 < e.end_s < 11], "nothing is said about a time without pictures"


def test_stream_yields_emotions_lazily_and_closes_its_source(recognizer: Recognizer) -> None:
    stream = recognizer.stream("sample", hop_s=0.25)
    first = next(stream)
    assert first.end_s == pytest.approx(0.25, abs=0.01) and first.label in recognizer.labels
    stream.close()


def test_an_endless_source_leaves_nothing_behind(recognizer: Recognizer, portrait: np.ndarray) -> None:
    """What a pipeline holds after 4 s of a live source is what it holds after 12."""

    def held(end_s: float) -> int:
        pipeline = Pipeline(recognizer, MadeUp(merged(frames(portrait, 0, end_s), sound(0, end_s)), live=True), options)
        list(pipeline)
        crops, rows = (
            len(pipeline._clips._crops),
            len(pipeline._clips._sound._mel._rows) + len(pipeline._clips._sound._voice._rows),
        )
        assert not hasattr(pipeline.timer, "durations_ms")
        return crops + rows

    options = StreamOptions(window_s=1.0, hop_s=0.5)
    assert held(12.0) <= held(4.0) + 2


def test_stream_spells_out_every_option_of_a_pipeline_with_its_default() -> None:
    named = inspect.signature(Recognizer.stream).parameters
    options = {field.name: field.default for field in dataclasses.fields(StreamOptions)}
    assert {name: named[name].default for name in options} == options
    assert set(named) == {"self", "source", *options}
