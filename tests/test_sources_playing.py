"""Promises of files played at their own pace, and of sound files alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import soundfile
from conftest import RATE_HZ, tone
from rtsp_server import FPS, write_clip

from mma_edge.errors import UsageError
from mma_edge.pipeline import Pipeline, StreamOptions
from mma_edge.sources import CaptureOptions, open_source
from mma_edge.types import AudioChunk, Frame

pytestmark = pytest.mark.wall_clock

REALTIME = CaptureOptions(realtime=True)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, 1.5)
    return path


def test_a_file_in_real_time_takes_its_length_and_keeps_its_own_time(clip: Path) -> None:
    with open_source(clip) as source:
        expected = [event.time_s for event in source.events() if isinstance(event, AudioChunk)]
    started_s = time.monotonic()
    with open_source(clip, capture=REALTIME) as source:
        assert source.live and source.name == "clip.mp4"
        events = list(source.events())
    assert 1.3 < time.monotonic() - started_s < 4.0
    assert [e.time_s for e in events if isinstance(e, AudioChunk)] == pytest.approx(expected)
    times = [e.arrival_s - e.time_s for e in events]
    assert max(times) - min(times) < 0.5  # at its own pace, as far as this machine is free
    frames = [e for e in events if isinstance(e, Frame)]
    assert len(frames) + source.stats.dropped_frames == round(1.5 * FPS)


def test_who_reads_too_slowly_loses_frames_and_no_sound(clip: Path) -> None:
    heard_s, seen = 0.0, 0
    with open_source(clip, capture=REALTIME) as source:
        for event in source.events():
            if isinstance(event, AudioChunk):
                heard_s += event.samples.shape[1] / event.sample_rate_hz
            else:
                seen += 1
                time.sleep(0.2)
    assert heard_s == pytest.approx(1.5, abs=0.05)
    assert seen < 12 and source.stats.dropped_frames >= 24 and seen + source.stats.dropped_frames == round(1.5 * FPS)


def test_a_file_in_real_time_can_be_left_at_any_moment(clip: Path) -> None:
    source = open_source(clip, capture=REALTIME)
    next(source.events())
    started_s = time.monotonic()
    source.close()
    source.close()
    assert time.monotonic() - started_s < 1.0
    open_source(clip, capture=REALTIME).close()


def test_in_real_time_a_file_has_no_whole(clip: Path) -> None:
    class Model:
        labels, image_size = ("a", "b"), 16

    with pytest.raises(UsageError, match="--whole"):
        Pipeline.open(Model(), clip, StreamOptions(whole=True, capture=REALTIME))


def test_sound_alone_is_voice_only(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "voice.wav", tone(1.0, 440), RATE_HZ)
    said: list[str] = []
    with open_source(tmp_path / "voice.wav", said.append) as source:
        assert source.has_audio and not source.has_video
        assert sum(event.samples.shape[1] for event in source.events()) == RATE_HZ
    assert said == ["voice.wav: voice only, because it has no video track"]
