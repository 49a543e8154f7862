"""Promises of the microphone with real parts: PortAudio, and PulseAudio with a sink that stands in for the microphone.

Run by: pytest -m live
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE_HZ = 48000
NOTICED_S = 4.5
"""2 s, and this machine may be busy."""
PLUGIN = "alsa-lib/libasound_module_pcm_pulse.so"


def missing() -> str:
    """What is not here of what these tests need."""
    programs = [name for name in ("pulseaudio", "pactl", "paplay") if shutil.which(name) is None]
    if programs:
        return f"no {', '.join(programs)} (apt: pulseaudio pulseaudio-utils)"
    if not list(Path("/usr/lib").glob(f"*/{PLUGIN}")):
        return "ALSA cannot reach PulseAudio (apt: libasound2-plugins)"
    try:
        import sounddevice  # noqa: F401
    except (ImportError, OSError) as error:
        return f"PortAudio cannot be used: {error} (pip: sounddevice; apt: libportaudio2)"
    return ""


pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(missing()), reason=missing() or "all is here")]


class SoundServer:
    """A PulseAudio of its own, found by nobody but whom `environment` is given to."""

    def __init__(self, folder: Path, fallback: bool = False) -> None:
        """With `fallback` it gives silence in place of a microphone that was unplugged, as desktops do."""
        self._fallback = fallback
        runtime = folder / "run"
        (runtime / "pulse").mkdir(parents=True)
        for private in (runtime, runtime / "pulse"):
            private.chmod(0o700)
        (folder / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
        (folder / "client.conf").write_text("autospawn = no\n")
        self._pid_file, self._log = runtime / "pulse" / "pid", folder / "log"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "DBUS_", "XDG_"))},
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(runtime),
            "PULSE_RUNTIME_PATH": str(runtime / "pulse"),
            "PULSE_CLIENTCONFIG": str(folder / "client.conf"),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        self._talking: list[subprocess.Popen] = []
        self.folder = folder
        self.start()

    def start(self) -> None:
        modules = ["module-native-protocol-unix", "module-null-sink sink_name=mic rate=48000 channels=1"]
        modules += ["module-always-sink"] * self._fallback
        loaded = [part for module in modules for part in ("-L", module)]
        options = ["-n", "--daemonize=yes", "--exit-idle-time=-1", "--disallow-exit", f"--log-target=file:{self._log}"]
        subprocess.run(["pulseaudio", *options, *loaded], env=self.environment, check=True, timeout=30)
        self.pactl("set-default-source", "mic.monitor")

    def pactl(self, *arguments: str) -> str:
        command = ["pactl", *arguments]
        return subprocess.run(
            command, env=self.environment, check=True, timeout=30, capture_output=True, text=True
        ).stdout

    def unplug(self) -> None:
        self.be_quiet()  # what plays would be moved to the fallback, and be heard there
        self.pactl("unload-module", "module-null-sink")

    def plug_in(self) -> None:
        self.pactl("load-module", "module-null-sink", "sink_name=mic", "rate=48000", "channels=1")
        self.pactl("set-default-source", "mic.monitor")

    def speak(self, wave: np.ndarray) -> None:
        """Play it into the microphone, in the background; returns when it has begun."""
        path = self.folder / f"{len(self._talking)}.wav"
        soundfile.write(path, wave, RATE_HZ, subtype="PCM_16")
        command = ["paplay", "--device=mic", path]
        self._talking.append(subprocess.Popen(command, env=self.environment, stderr=subprocess.DEVNULL))
        deadline_s = time.monotonic() + 20
        while not self.pactl("list", "short", "sink-inputs"):
            assert time.monotonic() < deadline_s, self._log.read_text()
            time.sleep(0.05)

    def be_quiet(self) -> None:
        for player in self._talking:
            player.kill()
            player.wait()

    def kill(self) -> None:
        self.be_quiet()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(self._pid_file.read_text()), signal.SIGKILL)


class Listener:
    """A process that listens; what it says."""

    def __init__(self, environment: dict[str, str]) -> None:
        script = Path(__file__).parent / "listener.py"
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [sys.executable, script], env=environment, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )
        self._lines: queue.Queue = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.notes: list[tuple[float, str]] = []
        self.frames, self.sound_s, self.worst_gap_ms, self.beeps_s = 0, 0.0, 0.0, []
        assert self.next() == ("open", True)

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(json.loads(line))

    def next(self) -> tuple[str, object]:
        kind, at_s, what = self._lines.get(timeout=20)
        if kind == "note":
            self.notes.append((at_s, what))
        elif kind == "state":
            self.frames, self.sound_s, self.worst_gap_ms, self.beeps_s = what
        return kind, what

    def until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline_s = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline_s, (self.notes, self.frames, self.sound_s)
            self.next()

    def listen(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.next()

    def close(self) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SoundServer]:
    running = SoundServer(tmp_path, fallback=getattr(request, "param", False))
    yield running
    running.kill()


@pytest.fixture
def listener(server: SoundServer) -> Iterator[Listener]:
    """It hears beeps from its beginning on."""
    server.speak(beeps(120))
    process = Listener(server.environment)
    yield process
    process.close()


def beeps(seconds: int) -> np.ndarray:
    """One a second, in what a quiet room gives."""
    time_s = np.arange(seconds * RATE_HZ) / RATE_HZ
    noise = 0.001 * np.random.default_rng(0).standard_normal(len(time_s))
    return noise + 0.5 * (time_s % 1 < 0.08) * np.sin(2 * np.pi * 1000 * time_s)


def test_beeps_a_second_apart_are_heard_a_second_apart(server: SoundServer, listener: Listener) -> None:
    """From the stream's start on, where what PortAudio says of its time jumps by up to 600 ms."""
    listener.until(lambda: len(listener.beeps_s) >= 9, 25)
    errors_s = np.abs(np.diff(listener.beeps_s) - 1.0)
    # In its first second the clock may follow by 2 %.
    assert errors_s[0] < 0.02 and errors_s[1:].max() < 0.005, listener.beeps_s
    assert listener.worst_gap_ms < 1.0 and listener.notes == []


def test_an_unplugged_microphone_is_said_in_two_seconds_and_comes_back(server: SoundServer, listener: Listener) -> None:
    listener.until(lambda: len(listener.beeps_s) > 0, 20)
    server.unplug()
    gone_s = time.monotonic()
    listener.until(lambda: bool(listener.notes), 8)
    assert (
        "stopped delivering (unplugged?): vision only" in listener.notes[0][1]
        and listener.notes[0][0] - gone_s < NOTICED_S
    )
    frames = listener.frames
    listener.listen(2)
    assert listener.frames - frames > 20  # of 40
    server.plug_in()
    server.speak(beeps(120))
    listener.until(lambda: len(listener.notes) > 1, 20)
    assert [note for _, note in listener.notes[1:]] == ["the microphone is back"]
    heard_s = listener.sound_s
    listener.until(lambda: listener.sound_s > heard_s + 1, 5)


@pytest.mark.parametrize("server", [True], indirect=True)
def test_a_sound_server_that_falls_back_to_silence_has_lost_the_microphone(
    server: SoundServer, listener: Listener
) -> None:
    """Blocks pause while the stream is moved, for about 2 s, and then are zeros: either is said, and only once."""
    listener.until(lambda: len(listener.beeps_s) > 0, 20)
    server.unplug()
    gone_s = time.monotonic()
    listener.until(lambda: bool(listener.notes), 8)
    assert "unplugged?): vision only" in listener.notes[0][1] and listener.notes[0][0] - gone_s < NOTICED_S
    listener.listen(2)
    frames, heard_s = listener.frames, listener.sound_s
    listener.listen(4)
    assert listener.frames - frames > 40 and listener.sound_s - heard_s < 2.1 and len(listener.notes) == 1
    server.plug_in()
    server.speak(beeps(120))
    listener.until(lambda: len(listener.notes) > 1, 20)
    assert [note for _, note in listener.notes[1:]] == ["the microphone is back"]
    heard_s = listener.sound_s
    listener.until(lambda: listener.sound_s > heard_s + 1, 5)


def test_a_muted_microphone_is_said_in_two_seconds_and_comes_back(server: SoundServer, listener: Listener) -> None:
    listener.until(lambda: len(listener.beeps_s) > 0, 20)
    server.pactl("set-source-mute", "mic.monitor", "1")
    muted_s = time.monotonic()
    listener.until(lambda: bool(listener.notes), 8)
    assert "nothing but zeros (muted or unplugged?): vision only" in listener.notes[0][1]
    assert listener.notes[0][0] - muted_s < NOTICED_S
    frames, heard_s = listener.frames, listener.sound_s
    listener.listen(2)
    assert listener.frames - frames > 20 and listener.sound_s - heard_s < 0.6 and len(listener.notes) == 1
    server.pactl("set-source-mute", "mic.monitor", "0")
    listener.until(lambda: listener.sound_s > heard_s + 1, 5)
    assert [note for _, note in listener.notes[1:]] == ["the microphone is back"]


def test_a_killed_sound_server_is_survived(server: SoundServer, listener: Listener) -> None:
    listener.until(lambda: len(listener.beeps_s) > 0, 20)
    server.kill()
    gone_s = time.monotonic()
    listener.until(lambda: bool(listener.notes), 8)
    assert "stopped delivering" in listener.notes[0][1] and listener.notes[0][0] - gone_s < NOTICED_S
    frames = listener.frames
    listener.listen(2)
    assert listener.frames - frames > 20
    server.start()
    server.speak(beeps(120))
    listener.until(lambda: len(listener.notes) > 1, 20)
    assert [note for _, note in listener.notes[1:]] == ["the microphone is back"]


def doctors_microphone(server: SoundServer) -> dict[str, str]:
    """What `mma-edge doctor` finds there."""
    command = [sys.executable, "-m", "mma_edge.cli", "doctor", "--json"]
    done = subprocess.run(command, env=server.environment, capture_output=True, text=True, timeout=60)
    (found,) = [each for each in json.loads(done.stdout)["findings"] if each["part"] == "microphone"]
    return found


def test_doctor_hears_a_microphone_and_notices_a_muted_one(server: SoundServer) -> None:
    muted = doctors_microphone(server)
    assert muted["state"] == "broken" and "nothing but zeros" in muted["found"] and "--list-devices" in muted["todo"]
    server.speak(beeps(60))
    heard = doctors_microphone(server)
    assert heard["state"] == "ok" and "48000 Hz" in heard["found"], heard
    # 0.5 of full scale for 80 ms of each second: -20 dB.
    assert re.match(r"level -(19|2[01]) dB of full scale", heard["found"]), heard
    server.be_quiet()
    server.kill()
    assert doctors_microphone(server)["state"] in ("none", "broken")
