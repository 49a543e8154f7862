"""The video of a session: right times, whole after a crash, never in the way of the records, no face where none is
wanted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import PATIENCE_S, failure_line, run_python

from mma_edge.cli import main
from mma_edge.errors import DependencyError, UsageError
from mma_edge.faces.detect import MTCNNDetector
from mma_edge.session.folder import NOT_ENDED, read_session
from mma_edge.session.reading import RECORDS, read_records
from mma_edge.session.video.blur import AFTER_S, AHEAD_S, FacesAround, blur
from mma_edge.session.video.drawing import Drawing, colours_of, rests_on, speaker_of
from mma_edge.session.video.movie import KEY_S, Movie, MovieOptions, check_codec
from mma_edge.session.video.source import BEHIND_S, SourceVideo
from mma_edge.sources import sample_path
from mma_edge.types import AudioChunk, Face, Frame

LABELS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
RATE_HZ = 16000


def grey(level: int, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    return np.full((size[1], size[0], 3), level, np.uint8)


def tone(start_s: float, seconds: float) -> AudioChunk:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)
    return AudioChunk(wave[np.newaxis].astype(np.float32), RATE_HZ, start_s, 0.0)


def record(track: int | None = 1, label: str = "happy", **given: object) -> dict:
    shares = {name: 0.7 if name == label else 0.05 for name in LABELS}
    usual = {"track_id": track, "box": None, "start_s": 0.0, "end_s": 4.0, "label": label, "probabilities": shares,
             "modalities": ["video", "audio"], "speaking": None}  # fmt: skip
    return usual | given


def pictures(path: Path) -> list[tuple[float, np.ndarray]]:
    """Time and picture of each frame."""
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def loudness(path: Path) -> Callable[[float, float], float]:
    """Gives the root mean square of the sound of a span."""
    with av.open(str(path)) as container:
        blocks = [(frame.time, frame.to_ndarray()[0], frame.sample_rate) for frame in container.decode(audio=0)]
    rate = blocks[0][2]
    wave = np.zeros(round((blocks[-1][0] + 2) * rate), np.float32)
    for time_s, samples, _ in blocks:
        wave[round(time_s * rate) :][: len(samples)] = samples
    return lambda start_s, end_s: float(np.sqrt((wave[round(start_s * rate) : round(end_s * rate)] ** 2).mean()))


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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a signal that nothing can catch")
def test_kill_9_loses_at_most_a_second(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    command = [sys.executable, "-m", "mma_edge.cli", "run", str(sample_path()), "--backend", "cpu", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MMA_EDGE_THREADS": "1"}
    process = subprocess.Popen([*command, "--session", str(folder), "--sound"], env=environment)
    deadline_s = time.monotonic() + PATIENCE_S
    while not (folder / RECORDS).exists() or (folder / RECORDS).read_bytes().count(b"\n") < 9:
        assert process.poll() is None and time.monotonic() < deadline_s
        time.sleep(0.002)
    process.kill()
    process.wait()
    session = read_session(folder)
    assert NOT_ENDED in session.problems and session.state == "running"
    assert len(session.records) >= 9
    reached_s = session.records[-1]["end_s"]
    shown = pictures(folder / "video-1.mp4")
    print(f"killed at {reached_s} s, {len(shown)} frames, the last at {shown[-1][0]:.2f} s")
    assert reached_s < 7.5, "killed in the middle"
    assert shown[-1][0] > reached_s - 1.0
    assert loudness(folder / "video-1.mp4")(reached_s - 2.0, reached_s - 1.1) > 0.001


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a limit that acts as a full disk does")
def test_a_disk_that_is_full_ends_the_video_and_not_the_records(tmp_path: Path) -> None:
    folder, most = tmp_path / "s", 150_000
    program = f"""
import resource, sys
from mma_edge.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, resource.RLIM_INFINITY))
sys.exit(main(["run", "sample", "--backend", "cpu", "--quiet", "--session", {str(folder)!r}]))
"""
    done = run_python("-c", program)
    assert done.returncode == 0 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line == "note: no more video-1.mp4: File too large; records go on"
    session = read_session(folder)
    assert session.problems == () and len(session.records) == 16
    assert "no more video-1.mp4" in next(event["text"] for event in session.events)
    count = 0
    with av.open(str(folder / "video-1.mp4")) as container:
        try:
            for _ in container.decode(video=0):
                count += 1
        except av.FFmpegError:  # the last picture is cut
            pass
    assert count > 25


def test_a_video_leaves_room_for_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session notices before the disk is full; what is there is an ordinary file."""
    monkeypatch.setattr("mma_edge.session.recorder.MANIFEST_S", 0.05)
    monkeypatch.setattr("mma_edge.session.recorder.RESERVE_BYTES", 1 << 60)
    assert main(["run", "sample", "--backend", "cpu", "--quiet", "--session", str(tmp_path / "s")]) == 0
    session = read_session(tmp_path / "s")
    assert len(session.records) == 16
    assert ["are left on its disk" in event["text"] for event in session.events if event["kind"] == "notice"] == [True]


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


def test_a_face_is_blurred_before_it_was_found_and_after_it_was_lost() -> None:
    around, face = FacesAround(), Face(1, (10.0, 10.0, 20.0, 20.0), 0.9)
    for number in range(60):
        around.add(number / 10, [face] if 20 <= number < 30 else [])
    assert around.at(2.0 - AHEAD_S - 0.15) == [] and around.at(2.0 - AHEAD_S + 0.05) == [face.box]
    assert around.at(2.9 + AFTER_S - 0.05) == [face.box] and around.at(2.9 + AFTER_S + 0.15) == []


def test_a_blurred_face_has_a_few_pixels_left_and_the_rest_of_the_picture_all() -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    before = image.copy()
    blur(image, [(80.0, 80.0, 120.0, 120.0), (190.0, -50.0, 260.0, 20.0), (500.0, 0.0, 600.0, 90.0)])
    assert image[80:120, 80:120].std() < 30 < before[80:120, 80:120].std()
    assert (image[130:, :180] == before[130:, :180]).mean() > 0.9 and (image[:, :60] == before[:, :60]).all()


@pytest.mark.parametrize(("width", "height"), [(640, 360), (1280, 720), (3840, 2160), (360, 640), (16, 16)])
def test_box_label_and_bars_are_drawn_at_every_size(width: int, height: int) -> None:
    image = grey(128, (width, height))
    box = (0.3 * width, 0.4 * height, 0.5 * width, 0.7 * height)
    Drawing(LABELS)(image, [Face(1, box, 0.9)], {1: record()})
    changed = np.abs(image.astype(int) - 128).max(axis=2) > 20
    yellow = (np.abs(image.astype(int) - colours_of(LABELS)["happy"]).max(axis=2) < 8).sum()
    assert changed.sum() > 0.02 * width * height and yellow > 0.002 * width * height
    if width > 16:
        middle = image[round(0.45 * height) : round(0.65 * height), round(0.35 * width) : round(0.45 * width)]
        assert (middle == 128).all(), "the face itself stays free"


def test_names_of_classes_may_have_any_letters() -> None:
    image, labels = grey(128, (640, 360)), ("glücklich", "весёлый", "悲しい", "\u0007")
    answer = record() | {"label": "悲しい", "probabilities": dict.fromkeys(labels, 0.25)}
    Drawing(labels)(image, [Face(1, (100.0, 100.0, 300.0, 300.0), 0.9)], {1: answer})
    assert (image != 128).any()


def test_colours_differ_and_the_usual_classes_keep_theirs() -> None:
    colours = colours_of(LABELS)
    assert len(set(colours.values())) == 7
    more = colours_of(("contempt", *LABELS, "anxiety"))
    assert {label: more[label] for label in LABELS} == colours
    assert len(set(colours_of(("bored", "awake", "asleep")).values())) == 3


def test_what_an_answer_rests_on_and_who_speaks() -> None:
    assert rests_on(record()) == "face + voice" and rests_on(record(modalities=["audio"])) == "voice"
    alone = {1: record(speaking=0.8), 2: record(2, speaking=0.2, modalities=["video"])}
    assert speaker_of(alone) == 1
    assert speaker_of({1: record(speaking=0.5), 2: record(2, speaking=0.4)}) is None, "both have the voice"
    assert speaker_of({1: record()}) is None


def test_an_encoder_that_is_not_there_or_does_not_work_is_one_line() -> None:
    assert check_codec("webm", None) == "libvpx-vp9" and check_codec("mp4", "libx264") == "libx264"
    with pytest.raises(DependencyError, match="no encoder libnone"):
        check_codec("mp4", "libnone")
    for kind, name in (("mp4", "aac"), ("webm", "libx264")):
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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a limit that acts as a full disk does")
def test_a_disk_without_room_for_records_is_said_once_and_the_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    program = f"""
import resource, sys
from mma_edge.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2500, resource.RLIM_INFINITY))
sys.exit(main(["run", "sample", "--backend", "cpu", "--quiet", "--no-video", "--session", {str(folder)!r}]))
"""
    done = run_python("-c", program)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    session = read_session(folder)
    assert session.problems == () and len(session.records) >= 3
    assert line.startswith("note: no more --session: cannot write")
    assert f"after {len(session.records)} records, which are kept" in line


@pytest.mark.live
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals as Linux has them")
def test_sigterm_ends_a_session_of_two_sources_cleanly(tmp_path: Path) -> None:
    folder, sample = tmp_path / "s", str(sample_path())
    command = [sys.executable, "-m", "mma_edge.cli", "run", f"a={sample}", f"b={sample}", "--realtime", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MMA_EDGE_THREADS": "1"}
    process = subprocess.Popen([*command, "--backend", "cpu", "--session", str(folder), "--sound"], env=environment)
    deadline_s = time.monotonic() + PATIENCE_S
    while not (folder / RECORDS).exists() or (folder / RECORDS).read_bytes().count(b"\n") < 6:
        assert process.poll() is None and time.monotonic() < deadline_s
        time.sleep(0.02)
    process.terminate()
    assert process.wait(20) == 0
    session = read_session(folder)
    assert session.problems == () and session.state == "ended"
    assert [session.video(name).name for name in ("a", "b")] == ["video-1.mp4", "video-2.mp4"]
    for name, source in session.sources.items():
        shown = pictures(session.video(name))
        assert source["live"] and len(shown) == source["frames"] - source["video_dropped"]
        assert shown[-1][0] == pytest.approx(source["last_s"] - source["video_start_s"], abs=0.6)
    assert {event["source"] for event in session.events if event["kind"] == "end"} == {"a", "b"}
