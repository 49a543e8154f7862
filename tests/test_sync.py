"""Promises of sound against picture: what is measured is what is there, and what is asked for is what comes out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import failure_line, one_line

import mma_edge.sources
from mma_edge.cli import main
from mma_edge.errors import OutputError, SourceError, UsageError
from mma_edge.pipeline import StreamOptions
from mma_edge.sources import CaptureOptions, FileSource, Source, SourceStats, device_of, open_source
from mma_edge.sources.sync.delay import DelayedSource, RememberedDelay, delays_file, remember, remembered
from mma_edge.sources.sync.film import write_film
from mma_edge.sources.sync.measure import Offset, paired, watch
from mma_edge.types import AudioChunk, Frame

RATE_HZ, BLOCK = 16000, 480
Paint = Callable[[float], np.ndarray]
Sing = Callable[[np.ndarray], np.ndarray]


class Played(Source):
    """Pictures and sound by the functions that make them, in order of time."""

    name, has_video, has_audio = "played", True, True

    def __init__(self, seconds: float, paint: Paint, sing: Sing, fps: float = 30.0, live: bool = False) -> None:
        self.stats, self.live, self.closed = SourceStats(), live, False
        frames = [Frame(paint(number / fps), number / fps, 0.0) for number in range(round(seconds * fps))]
        sound = []
        for first in range(0, round(seconds * RATE_HZ), BLOCK):
            wave = sing((first + np.arange(BLOCK)) / RATE_HZ)[np.newaxis].astype(np.float32)
            sound.append(AudioChunk(wave, RATE_HZ, first / RATE_HZ, 0.0))
        self._events = sorted([*frames, *sound], key=lambda event: event.time_s)

    def events(self) -> Iterator[Frame | AudioChunk]:
        self._start()
        return iter(self._events)

    def close(self) -> None:
        self.closed = True


NOISE = np.random.default_rng(0).standard_normal(20 * BLOCK)
ROOMS = np.random.default_rng(1).normal(90, 6, (16, 60, 80, 3)).clip(0, 255).astype(np.uint8)


def room(time_s: float) -> np.ndarray:
    """A grey room seen by a camera that has some noise."""
    return ROOMS[int(time_s * 1000) % 16].copy()


def hum(time_s: np.ndarray) -> np.ndarray:
    """What a quiet room and the mains give."""
    return 0.004 * NOISE[: len(time_s)] + 0.01 * np.sin(2 * np.pi * 50 * time_s)


def telephone(time_s: float) -> np.ndarray:
    """The film on a telephone: a fifteenth of the picture, white for a tenth of a second from 1, 3, 5 ... s on."""
    picture = room(time_s)
    picture[20:35, 30:51] = 220 if time_s >= 1 and (time_s - 1 + 1e-6) % 2 < 0.1 else 20
    return picture


def beeps(late_s: float, loud: float = 0.1) -> Sing:
    def sing(time_s: np.ndarray) -> np.ndarray:
        on = ((time_s - 1 - late_s) % 2 < 0.1) & (time_s >= 1 + late_s)
        return hum(time_s) + loud * on * np.sin(2 * np.pi * 1000 * time_s)

    return sing


def hands(time_s: float) -> np.ndarray:
    """Two hands that meet at 1, 2, 3 ... s: for a quarter of a second they come together, then they rest and part."""
    picture, before = room(time_s), (1 - time_s % 1) % 1
    after = time_s % 1
    apart = 45 * min(1, before / 0.15) if before < 0.25 else 45 * min(1.0, max(0.0, (after - 0.15) / 0.5))
    for left in (round((55 - apart) / 2), round((82 + apart) / 2)):
        picture[20:40, max(0, left) : left + 12] = 200
    return picture


def claps(late_s: float) -> Sing:
    def sing(time_s: np.ndarray) -> np.ndarray:
        since_s = (time_s - late_s) % 1
        burst = np.exp(-since_s / 0.01) * (time_s > 0.5)
        return hum(time_s) + 0.4 * burst * NOISE[-len(time_s) :]

    return sing


def measured(source: Source, seconds: float = 30.0) -> Offset:
    offset = watch(source, seconds).offset()
    assert offset is not None
    return offset


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_film(path, 8)
    return path


def test_a_file_is_in_step_within_a_frame(film: Path) -> None:
    with open_source(film) as source:
        offset = measured(source)
    assert offset.kind == "flash" and offset.times_s == pytest.approx((1, 3, 5, 7), abs=1e-3)
    assert max(map(abs, offset.each_ms)) < 5 and offset.picture_ms == pytest.approx(1000 / 30)


@pytest.mark.parametrize("late_ms", [-400, -85, 0, 120, 900])
def test_the_offset_of_a_telephone_before_a_camera_is_found_to_half_a_picture(late_ms: int) -> None:
    offset = measured(Played(24, telephone, beeps(late_ms / 1000)))
    assert offset.kind == "flash" and len(offset.each_ms) == 10  # enough: it does not go on
    assert offset.median_ms == pytest.approx(late_ms, abs=1000 / 30 / 2) and offset.spread_ms < 5


@pytest.mark.parametrize("late_ms", [0, 150, -200])
def test_claps_are_measured_as_surely_as_is_said(late_ms: int) -> None:
    offset = measured(Played(14, hands, claps(late_ms / 1000)))
    assert offset.kind == "clap" and len(offset.each_ms) >= 8
    assert abs(offset.median_ms - late_ms) <= offset.uncertain_ms < 100


def test_what_has_no_flash_or_no_beep_has_no_offset() -> None:
    assert watch(Played(6, room, beeps(0)), 10).offset() is None
    assert watch(Played(6, telephone, hum), 10).offset() is None
    silent = watch(Played(6, telephone, lambda time_s: 0 * time_s), 10)
    assert silent.offset() is None and len(silent.flashes()) == 3 and len(silent.sounds()) == 0


def test_a_flash_without_its_beep_is_not_paired_with_another() -> None:
    assert paired(np.array([1.0, 3.0, 5.0]), np.array([1.1, 5.1])) == [(1.0, 1.1), (5.0, 5.1)]
    assert paired(np.array([1.0, 3.0]), np.array([])) == []


def test_a_live_source_that_delivers_nothing_is_closed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mma_edge.sources.sync.measure._PATIENCE_S", 0.0)
    source = Played(0, room, hum, live=True)

    def nothing() -> Iterator[Frame]:
        while not source.closed:
            continue
        yield from ()

    source.events = nothing
    assert watch(source, 0.1).offset() is None and source.closed


@pytest.mark.parametrize("delay_ms", [300, -300])
def test_delayed_sound_of_a_file_is_late_by_that_and_stays_in_order(delay_ms: int) -> None:
    events = list(DelayedSource(Played(10, telephone, beeps(0)), delay_ms / 1000).events())
    times_s = [event.time_s for event in events]
    assert np.diff(times_s).min() > -1e-6
    again = Played(0, room, hum)
    again._events = events
    offset = measured(again)
    assert offset.median_ms == pytest.approx(delay_ms, abs=2)
    sound = [event for event in events if isinstance(event, AudioChunk)]
    assert len(sound) == -(-10 * RATE_HZ // BLOCK) and len(events) - len(sound) == 300  # nothing is lost at the end


def test_a_live_sources_pictures_do_not_wait_for_earlier_sound() -> None:
    source = DelayedSource(Played(2, room, hum, live=True), -0.3)
    frames_s = [event.time_s for event in source.events() if isinstance(event, Frame)]
    newest_s, order = 0.0, []
    for event in DelayedSource(Played(2, room, hum, live=True), -0.3).events():
        newest_s = max(newest_s, event.time_s)
        order.append(newest_s - event.time_s if isinstance(event, Frame) else 0.0)
    assert max(order) == 0.0 and frames_s == sorted(frames_s)


def test_a_delayed_source_is_in_all_else_the_source_itself() -> None:
    inner = Played(1, room, hum, live=True)
    with DelayedSource(inner, 0.1) as source:
        assert source.name == "played" and source.live and source.has_video and source.stats is inner.stats
        inner.has_audio = False
        assert not source.has_audio and isinstance(source, Source)
        # Also of what the base class has: its answer in the inner one's place would be silently wrong.
        shared = {name for name in vars(Source) if not name.startswith("_")} & set(dir(DelayedSource))
        assert shared == {"events", "close"}
        assert source._start.__self__ is inner
        list(source.events())
        with pytest.raises(UsageError, match="read before"):
            source.events()
    assert inner.closed


@pytest.fixture
def own_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "mma-edge" / "audio_delays.json"


@pytest.fixture
def camera(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """camera:0 shows the film, and hears it 85 ms late."""

    def opened(kind: str, text: str, *_: object) -> Source:
        return DelayedSource(FileSource(film), 0.085)

    monkeypatch.setattr(mma_edge.sources, "_open", opened)


def run(*argv: object) -> int:
    return main([*map(str, argv)])


def test_doctor_measures_says_what_to_do_and_remembers_it_for_later_runs(
    own_config: Path, camera: None, capsys: pytest.CaptureFixture
) -> None:
    assert run("doctor", "--sync", "camera:0") == 0
    said = capsys.readouterr().out
    assert "4 flashes with their beep; sound minus picture: median +8" in said and "sure to about" in said
    assert "the sound is late: give --audio-delay-ms -8" in said and not own_config.exists()
    notices: list[str] = []
    with open_source("camera:0", notices.append) as source:
        assert measured(source).median_ms == pytest.approx(85, abs=2) and notices == []
    assert run("doctor", "--sync", "camera:0", "--remember", "--microphone", "usb") == 0
    assert f"(in {own_config})" in capsys.readouterr().out
    (device,) = json.loads(own_config.read_text())
    assert device.endswith("with microphone usb")
    usb = CaptureOptions(microphone="usb")
    with open_source("camera:0", notices.append, capture=usb) as source:
        assert measured(source).median_ms == pytest.approx(0, abs=2)
    assert len(notices) == 1 and "the sound of camera:0 is delayed by -8" in notices[0]
    # Another microphone, what the user says, and the next measurement: none of them takes what is remembered.
    for capture in (None, CaptureOptions(microphone="usb", audio_delay_ms=0)):
        with open_source("camera:0", notices.append, capture=capture) as source:
            assert measured(source).median_ms == pytest.approx(85, abs=2)
    assert run("doctor", "--sync", "camera:0", "--microphone", "usb") == 0
    assert "median +8" in capsys.readouterr().out and len(notices) == 1


def test_doctor_is_quiet_about_what_is_in_step(film: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("doctor", "--sync", film) == 0
    assert "in step, as far as this can tell: nothing to do" in capsys.readouterr().out


def shown(monkeypatch: pytest.MonkeyPatch, *played: object) -> None:
    monkeypatch.setattr(mma_edge.sources, "_open", lambda *_: Played(*played))


@pytest.mark.parametrize(
    ("paint", "sing", "line"),
    [
        (room, beeps(0), "no flash and no clap was seen in camera:0; expected three flashes"),
        (telephone, hum, "no beep and no clap was heard from camera:0; .*--sync-film"),
        (
            telephone,
            lambda s: beeps(0)(s) * (s < 4),
            r"too few flashes or claps of camera:0 .*\([0-9]+ seen, 2 heard\)",
        ),
    ],
    ids=["not seen", "not heard", "too few"],
)
def test_doctor_says_in_one_line_what_was_missing(
    paint: Paint, sing: Sing, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    shown(monkeypatch, 8, paint, sing)
    assert run("doctor", "--sync", "camera:0", "--seconds", 8) == SourceError.exit_code
    assert re.search(line, failure_line(capsys))


def test_doctor_does_not_believe_what_was_paired_by_chance(
    own_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def sing(time_s: np.ndarray) -> np.ndarray:  # each beep later than the one before it
        return beeps(0.11 * (time_s[0] // 2))(time_s)

    shown(monkeypatch, 14, telephone, sing)
    assert run("doctor", "--sync", "camera:0", "--remember") == SourceError.exit_code
    assert "do not belong together" in failure_line(capsys) and not own_config.exists()


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--remember"], "without --sync"),
        (["--sync", "sample", "--remember"], "--remember with sample; expected a camera"),
        (["--sync", "http://host/live?cam=1", "--remember"], r"--remember with http://host/live\?\*\*\*"),
        (["--sync", "sample", "--seconds", "1"], "--seconds 1; expected 3 to 600"),
        (["--sync", "sample", "--seconds", "nan"], "--seconds nan"),
        (["--sync-film", "{film}"], "is there already"),
        (["--sync-film", "/nowhere/film.mp4"], "cannot write"),
        (["--sync", "{voice}"], "has no picture; expected a source with both"),
    ],
)
def test_bad_options_of_doctor_are_one_line(
    argv: Sequence[str], line: str, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    soundfile.write(tmp_path / "voice.wav", np.zeros(16000), 16000)
    places = {"film": film, "voice": tmp_path / "voice.wav"}
    assert run("doctor", *(each.format(**places) for each in argv)) != 0
    assert re.search(line, failure_line(capsys))


def test_what_cannot_have_a_delay_is_refused_in_one_line(film: Path, tmp_path: Path) -> None:
    for value in (2001, -2500, float("nan"), "fast"):
        with pytest.raises(UsageError, match="milliseconds from -2000 to 2000") as caught:
            CaptureOptions(audio_delay_ms=value)
        one_line(caught.value)
    late = CaptureOptions(audio_delay_ms=100)
    soundfile.write(tmp_path / "voice.wav", np.zeros(16000), 16000)
    for spec, options, words in (
        ("microphone", {}, "--audio-delay-ms with microphone"),
        (film, {"audio": False}, "without the sound"),
        ("camera", {"capture": CaptureOptions(microphone="none", audio_delay_ms=100)}, "without the sound"),
        (tmp_path / "voice.wav", {}, "a file with sound and picture"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            open_source(spec, **{"capture": late, **options})
        one_line(caught.value)
    with pytest.raises(UsageError, match="with --whole"):
        StreamOptions(whole=True, capture=late)


def test_a_file_takes_the_delay_that_is_asked_for(film: Path) -> None:
    for realtime in (False, True):
        with open_source(film, capture=CaptureOptions(realtime=realtime, audio_delay_ms=-150)) as source:
            assert source.live == realtime
            if not realtime:
                assert measured(source).median_ms == pytest.approx(-150, abs=2)


def test_a_damaged_or_closed_file_of_delays_is_one_line(own_config: Path) -> None:
    assert delays_file() == own_config and remembered("a camera") is None
    remember("a camera", RememberedDelay(-85, "2026-11-22"))
    remember("another", RememberedDelay(10, "2026-11-22"))
    assert remembered("a camera") == RememberedDelay(-85, "2026-11-22")
    for text in ("{", "[]", '{"a camera": 3}', '{"a camera": {"audio_delay_ms": 1e9, "measured": ""}}'):
        own_config.write_text(text)
        with pytest.raises(UsageError, match="cannot be read") as caught:
            remembered("a camera")
        one_line(caught.value)
    own_config.unlink()
    own_config.parent.rmdir()
    own_config.parent.write_text("not a folder")
    with pytest.raises((OutputError, UsageError)) as caught:
        remember("a camera", RememberedDelay(-85, "2026-11-22"))
    one_line(caught.value)


def test_a_device_keeps_its_name_and_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    default = CaptureOptions()
    monkeypatch.setattr(mma_edge.sources, "label_of", lambda path: "HD Webcam" if path.name == "video2" else "")
    assert device_of("camera:2", default) == "HD Webcam with microphone default"
    assert device_of("camera:1", CaptureOptions(microphone="usb")) == "camera:1 with microphone usb"
    assert device_of("rtsp://user:secret@host/cam", default) == "rtsp://***@host/cam"
    gst = device_of("gst:rtspsrc location=rtsp://user:secret@host/cam ! decodebin", default)
    assert "secret" not in gst and "rtspsrc" in gst
    for spec in ("sample", "talk.mp4", "microphone", "https://host/live.m3u8?key=secret"):
        assert device_of(spec, default) is None
