"""Promises of a long live session: its video goes on in further files, and whoever reads the session finds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dashboard_viewer import FACES, Model, emotion
from films import loudness, pictures
from live_sources import LABELS, PacedSource

from mma_edge.cli import main
from mma_edge.live import LivePipeline
from mma_edge.pipeline import StreamOptions
from mma_edge.report.pictures import strips_of
from mma_edge.report.recording import read_recording
from mma_edge.session.folder import read_session
from mma_edge.session.recorder import SessionOptions, SessionRecorder
from mma_edge.session.video import source as video_of
from mma_edge.session.video.source import SourceVideo
from mma_edge.types import AudioChunk, Frame

NAMES = ["video-1.mp4", "video-1-002.mp4", "video-1-003.mp4"]
RATE_HZ = 16000


@pytest.fixture(autouse=True)
def _short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_of, "PART_S", 2.0)
    monkeypatch.setattr(video_of, "BEHIND_S", 60.0)  # the machine may be busy


def frame(number: int, start_s: float) -> Frame:
    """Ten a second, each in a grey of its own."""
    picture = np.full((120, 160, 3), 40 + 3 * number, np.uint8)
    return Frame(picture, start_s + number / 10, 0.0)


def told(folder: Path, live: bool, sound: bool) -> SourceVideo:
    """The video of 5 s, with a tone."""
    video = SourceVideo(folder / NAMES[0], LABELS, live, sound, False, lambda line: pytest.fail(line))
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE_HZ // 10) / RATE_HZ).astype(np.float32)
    for number in range(50):
        if sound:
            video.sound(AudioChunk(wave[np.newaxis], RATE_HZ, 100.0 + number / 10, 0.0))
        video.frame(frame(number, 100.0), [])
    video.close(20)
    return video


def test_every_picture_and_all_sound_are_in_one_of_the_files(tmp_path: Path) -> None:
    video = told(tmp_path, live=True, sound=True)
    assert [(path.name, start_s) for path, start_s in video.parts] == [
        (name, 100.0 + 2 * n) for n, name in enumerate(NAMES)
    ]
    assert video.start_s == 100.0 and video.dropped == 0
    shown = [(start_s + time_s, image.mean()) for path, start_s in video.parts for time_s, image in pictures(path)]
    assert [time_s for time_s, _ in shown] == pytest.approx([100.0 + n / 10 for n in range(50)], abs=2e-5)
    assert [grey for _, grey in shown] == pytest.approx([40 + 3 * n for n in range(50)], abs=4)
    assert all(loudness(path)(0.1, 0.9) > 0.2 for path, _ in video.parts)


def test_the_video_of_a_file_stays_one(tmp_path: Path) -> None:
    video = told(tmp_path, live=False, sound=False)
    assert [path.name for path, _ in video.parts] == NAMES[:1] and len(pictures(video.path)) == 50


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """Of a camera, 5 s long."""
    folder, stream = tmp_path / "session", StreamOptions()
    with (
        LivePipeline(Model(), {"cam": PacedSource()}, stream) as running,
        SessionRecorder(folder, SessionOptions(), Model(), stream) as recorder,
    ):
        recorder.begin(running)
        for number in range(50):
            recorder.frame("cam", frame(number, 0.0), FACES)
            if number % 5 == 4:
                recorder.write(emotion((number + 1) / 10))
    return folder


def test_a_session_names_all_files_and_a_report_has_pictures_of_each(session: Path) -> None:
    read = read_session(session)
    assert [(path.name, start_s) for path, start_s in read.videos("cam")] == [(n, 2.0 * i) for i, n in enumerate(NAMES)]
    assert read.problems == () and read.zero_s("cam") == 0.0
    recording, said = read_recording(session), []
    (strips,) = strips_of(recording, {0: recording.sources[0].series}, said.append).values()
    seconds = {int(picture.time_s) for strip in strips.values() for picture in strip.pictures}
    assert {0, 1, 2, 3, 4} <= seconds and said == []


def test_a_file_that_is_missing_costs_its_pictures_only(session: Path) -> None:
    (session / NAMES[1]).unlink()
    assert read_session(session).problems == (f"{NAMES[1]}, the video of cam, is missing",)
    recording, said = read_recording(session), []
    (strips,) = strips_of(recording, {0: recording.sources[0].series}, said.append).values()
    assert {int(each.time_s) for strip in strips.values() for each in strip.pictures} >= {0, 1, 4} and said == []


def test_annotations_name_the_first_file_and_say_so(session: Path, tmp_path: Path, capsys) -> None:
    assert main(["convert", str(session), "--to", "elan", "--output", str(tmp_path / "day.eaf")]) == 0
    assert "only video-1.mp4 is named as its video, which goes on in 2 more file(s)" in capsys.readouterr().out
    text = (tmp_path / "day.eaf").read_text(encoding="utf-8")
    assert text.count("MEDIA_DESCRIPTOR ") == 1 and NAMES[0] in text
