"""The video of a session: right times, whole after a crash, never in the way of the records, no face where none is
wanted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import failure_line
from films import loudness, offsets_ms, pictures, times_s

from mma_edge.cli import main
from mma_edge.errors import DependencyError, UsageError
from mma_edge.faces.detect import MTCNNDetector
from mma_edge.session.folder import read_session
from mma_edge.session.reading import RECORDS, read_records
from mma_edge.session.video.movie import KEY_S, Movie, MovieOptions, check_codec
from mma_edge.session.video.source import BEHIND_S, SourceVideo
from mma_edge.sources import FileSource, sample_path
from mma_edge.sources.sync.film import write_film
from mma_edge.types import AudioChunk, Frame

pytestmark = pytest.mark.wall_clock

LABELS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
RATE_HZ = 16000


def grey(level: int, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    return np.full((size[1], size[0], 3), level, np.uint8)


def tone(start_s: float, seconds: float) -> AudioChunk:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)
    return AudioChunk(wave[np.newaxis].astype(np.float32), RATE_HZ, start_s, 0.0)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., SourceVideo]:
    said: list[str] = []

    def made(live: bool = False, sound: bool = False, blur_faces: bool = False) -> SourceVideo:
        video = SourceVideo(tmp_path / "video-1.mp4", LABELS, live, sound, blur_faces, said.append)
        video.said = said
        return video

    return made


def test_frames_keep_their_own_times_from_the_first_one_on(make: Callable[..., SourceVideo]) -> None:
    """Irregular ones; one that comes twice is left out."""
    times_s = [5.0, 5.04, 5.04, 5.1, 5.9, 8.0, 8.001, 8.3]
    video = make()
    for number, time_s in enumerate(times_s):
        video.frame(Frame(grey(20 * number), time_s, 0.0), [])
    video.close(20)
    assert video.start_s == 5.0 and video.dropped == 0 and video.said == []
    found = [time_s for time_s, _ in pictures(video.path)]
    assert found == pytest.approx([time_s - 5.0 for time_s in [5.0, *times_s[2:]]], abs=2e-5)


def test_a_key_frame_comes_every_second_whatever_the_rate(make: Callable[..., SourceVideo]) -> None:
    video = make()
    for number in range(40):
        video.frame(Frame(grey(3 * number), 0.1 * number, 0.0), [])
    video.close(20)
    with av.open(str(video.path)) as container:
        keys = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.is_keyframe and p.pts is not None]
    assert keys == pytest.approx([0.0, KEY_S, 2 * KEY_S, 3 * KEY_S], abs=0.01)


def test_a_picture_that_changes_its_size_is_fitted_into_the_first_ones(make: Callable[..., SourceVideo]) -> None:
    video = make()
    for number, size in enumerate(((160, 120), (320, 120), (161, 121), (40, 80))):
        video.frame(Frame(grey(200, size), 0.5 * number, 0.0), [])
    video.close(20)
    shown = [image for _, image in pictures(video.path)]
    assert [image.shape for image in shown] == [(120, 160, 3)] * 4
    assert shown[1][60].mean() > 180 and shown[1][5].max() < 40, "black above the wide one"
    assert shown[3][60, 80].mean() > 180 and shown[3][60, 5].max() < 40


def test_colours_come_back_as_they_were(tmp_path: Path) -> None:
    """Players take a large picture's matrix for BT.709 and a small one's for BT.601 where the file says nothing."""
    image = np.zeros((120, 160, 3), np.uint8)
    image[:, :80], image[:, 80:] = (200, 40, 30), (30, 60, 190)
    with Movie(tmp_path / "a.mp4", (160, 120), MovieOptions()) as movie:
        movie.picture(image, 0.0)
    with av.open(str(tmp_path / "a.mp4")) as container:
        (frame,) = container.decode(video=0)
        assert (frame.colorspace, frame.color_range) == (1, 1)
        back = frame.to_ndarray(format="rgb24", src_colorspace="ITU709")
    assert np.abs(back[60, 20].astype(int) - image[60, 20]).max() < 12
    assert np.abs(back[60, 140].astype(int) - image[60, 140]).max() < 12


def test_sound_is_in_the_clock_of_the_pictures_and_its_gaps_are_silent(make: Callable[..., SourceVideo]) -> None:
    video = make(sound=True)
    video.sound(tone(9.5, 1.0))  # begins before the first picture
    for number in range(90):
        time_s = 10.0 + number / 20
        video.frame(Frame(grey(number), time_s, 0.0), [])
        if number in (50, 60):
            video.sound(tone(time_s, 0.5))
    video.close(20)
    rms = loudness(video.path)
    assert rms(0.05, 0.45) > 0.2 and rms(0.6, 2.4) < 0.01, "half of it, then none"
    assert rms(2.55, 3.45) > 0.2 and rms(3.6, 4.0) < 0.01
    assert len(pictures(video.path)) == 90


@pytest.mark.parametrize("hybrid", [True, False], ids=["hybrid", "fragmented"])
@pytest.mark.parametrize("blur_faces", [False, True], ids=["at once", "after a look ahead"])
def test_flashes_and_beeps_are_where_they_were(
    make: Callable[..., SourceVideo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hybrid: bool, blur_faces: bool
) -> None:
    """To a ninety-thousandth of a second: the fragments of the file move no picture."""
    if not hybrid:
        monkeypatch.setattr("mma_edge.session.video.movie._HYBRID_FROM", (999, 0))
    film = tmp_path / "film.mp4"
    write_film(film, 7)
    video = make(sound=True, blur_faces=blur_faces)
    with FileSource(film) as source:
        for event in source.events():
            video.frame(event, []) if isinstance(event, Frame) else video.sound(event)
    video.close(20)
    assert times_s(video.path) == pytest.approx(times_s(film), abs=2e-5)
    assert offsets_ms(video.path) == pytest.approx(offsets_ms(film), abs=2.0) and len(offsets_ms(film)) == 3


def test_an_encoder_that_is_slow_costs_frames_and_not_time(
    make: Callable[..., SourceVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    monkeypatch.setattr(Movie, "picture", lambda self, image, time_s: (time.sleep(0.2), written.append(time_s)))
    video = make(live=True)
    started_s, longest_s = time.monotonic(), 0.0
    for number in range(60):
        before_s = time.monotonic()
        video.frame(Frame(grey(9), number / 40, 0.0), [])
        longest_s = max(longest_s, time.monotonic() - before_s)
        time.sleep(max(0.0, started_s + (number + 1) / 40 - time.monotonic()))
    video.close(20)
    assert longest_s < 0.1
    assert video.dropped + len(written) == 60 and video.dropped > 30
    assert time.monotonic() - started_s < 1.5 + BEHIND_S + 1.5


def test_a_file_waits_for_the_encoder_and_loses_nothing(
    make: Callable[..., SourceVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = Movie.picture
    monkeypatch.setattr(Movie, "picture", lambda self, image, t: (time.sleep(0.005), picture(self, image, t)))
    video = make()
    for number in range(100):
        video.frame(Frame(grey(number), number / 40, 0.0), [])
    video.close(20)
    assert video.dropped == 0 and len(pictures(video.path)) == 100


def test_a_session_says_what_it_kept_of_people(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    options = ["--session", str(folder), "--blur-faces", "--sound", "--session-name", "Friday"]
    assert main(["run", "sample", "--backend", "cpu", "--quiet", *options]) == 0
    session = read_session(folder)
    assert session.name == "Friday" and session.problems == ()
    assert (session.privacy["faces"], session.privacy["sound"], session.privacy["video"]) == ("blurred", True, True)
    assert "unrecognisable" in session.privacy["statement"] and "with sound" in session.privacy["statement"]
    source = session.sources["sample.mp4"]
    assert source["video"] == "video-1.mp4" and source["video_start_s"] == 0.0 and source["video_dropped"] == 0
    shown = pictures(folder / "video-1.mp4")
    assert len(shown) == 195
    detector = MTCNNDetector()
    assert len(detector.detect(pictures(sample_path())[0][1])) == 1
    for _, image in (shown[0], shown[100], shown[-1]):
        assert detector.detect(image) == [], "a face can still be found"
    assert (folder / RECORDS).read_bytes().count(b"\n") == 16 == len(list(read_records(folder)))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--sound"], "--sound without --session"),
        (["--session", "s", "--no-video", "--blur-faces"], "--blur-faces with --no-video"),
        (["--session", "s", "--no-video", "--sound"], "--sound with --no-video"),
        (["--session", "s", "--sound", "--no-audio"], "--sound with --no-audio"),
        (["--session", "."], "exists and is not empty"),
        (["--session", "taken"], "exists and is not empty"),
        (["--session", "taken/a/b"], "taken is no folder"),
    ],
)
def test_a_session_that_cannot_be_is_refused_before_the_model_loads(
    options: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    monkeypatch.setattr("mma_edge.recognizer.Recognizer.open", lambda *args: pytest.fail("the model was loaded"))
    assert main(["run", "sample", *options]) in (2, 7)
    assert text in failure_line(capsys) and [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_an_encoder_that_is_not_there_or_does_not_work_is_one_line() -> None:
    assert check_codec("webm", None) == "libvpx-vp9" and check_codec("mp4", "libx264") == "libx264"
    with pytest.raises(DependencyError, match="no encoder libnone"):
        check_codec("mp4", "libnone")
    for kind, name in (("mp4", "aac"), ("webm", "libx264"), ("mp4", "mpeg4")):
        with pytest.raises(UsageError, match=f"--video-codec {name}"):
            check_codec(kind, name)


def test_the_manifest_is_json_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mma_edge.session.recorder.MANIFEST_S", 0.01)
    seen = []

    def note(*args: object) -> None:
        seen.append(json.loads((tmp_path / "s" / "manifest.json").read_text()))

    monkeypatch.setattr("mma_edge.session.recorder.SessionRecorder.write", note)
    assert main(["run", "sample", "--backend", "cpu", "--quiet", "--no-video", "--session", str(tmp_path / "s")]) == 0
    assert len(seen) == 16 and {manifest["state"] for manifest in seen} == {"running"}
    assert seen[-1]["sources"]["sample.mp4"]["frames"] > seen[0]["sources"]["sample.mp4"]["frames"]
