"""Cameras and microphones as `mma-edge doctor` finds them: each is tried for a second, all at the same time."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from mma_edge.child import Child, ChildDiedError, ChildTimeoutError, Message
from mma_edge.doctor.finding import BROKEN, OK, OPTIONAL, Check, Finding
from mma_edge.errors import DeviceError, MMAEdgeError

SECONDS = 1.0
LIMIT_S = 15.0
"""For starting Python, the first picture or block, and the trial."""
TRIAL = ("-m", "mma_edge.doctor.trial")
SOUND_DEVICES = Path("/dev/snd")


class Trial(threading.Thread):
    """A trial in a process of its own. A driver may hang so that not even a kill ends it: nothing waits for that."""

    def __init__(self, title: str, request: Message) -> None:
        super().__init__(name=f"trial of {title}", daemon=True)
        self.title, self._request = title, {**request, "seconds": SECONDS}
        self._answer: Message | None = None
        self._error: MMAEdgeError | None = None
        self.start()

    def run(self) -> None:
        try:
            with Child(TRIAL, self._request) as child:
                self._answer = child.result(timeout_s=LIMIT_S)
        except MMAEdgeError as error:
            self._error = error
        except ChildDiedError as error:
            self._error = DeviceError(f"{self.title}: {error.describe()}", "", "its driver crashed: try another device")
        except ChildTimeoutError:
            pass

    def answer(self) -> Message:
        """What it found; MMAEdgeError of the device, or because it hangs."""
        self.join(LIMIT_S + 1.0)
        if self._error:
            raise self._error
        if self._answer is None:
            hint = "unplug it and plug it in again; end other programs that use it"
            raise DeviceError(f"{self.title} did not answer within {LIMIT_S:g} s", "", hint)
        return self._answer


def camera_checks(try_them: bool) -> Mapping[str, Check]:
    """A check for each camera; their trials begin now."""
    from mma_edge.sources.devices.camera import may_use, video_devices  # here: it needs OpenCV, which may be missing
    from mma_edge.sources.devices.v4l2 import label_of

    if not sys.platform.startswith("linux"):
        todo = "try: mma-edge run camera:0"
        return {"camera": partial(Finding, OPTIONAL, "cannot be listed on this system", todo)}
    devices = video_devices()
    if not devices:
        todo = "plug one in; in a container: --device /dev/video0"
        return {"camera": partial(Finding, OPTIONAL, "no /dev/video*", todo)}
    checks: dict[str, Check] = {}
    for number, path in devices.items():
        name, label = f"camera:{number}", label_of(path)
        if not may_use(path):
            todo = "allow access: sudo usermod -aG video $USER, then log in again"
            checks[name] = partial(Finding, BROKEN, f"{label} no access to {path}".strip(), todo)
        elif try_them:
            checks[name] = partial(_camera, Trial(name, {"camera": number}), label)
        else:
            checks[name] = partial(Finding, OK, f"{label} not tried".strip())
    return checks


def _camera(trial: Trial, label: str) -> Finding:
    got = trial.answer()
    if not got["pictures"]:
        return Finding(OPTIONAL, f"{label} has no pictures here, only data about them".strip(), "take another number")
    width, height = got["size"]
    found = f"{width}x{height}, {got['rate_fps']:g} pictures a second, the first after {got['first_s']:.1f} s"
    found = f"{label}: {found}" if label else found
    if got["dark"]:
        return Finding(OK, f"{found}; they are black", "open its cover, or give it light")
    return Finding(OK, found)


def microphone_check(try_it: bool) -> Check:
    """A check of the default input; its trial begins now."""
    if not try_it:
        return _listed
    return partial(_microphone, Trial("microphone", {"microphone": None}))


def _listed() -> Finding:
    from mma_edge.sources.devices.portaudio import input_devices

    names = input_devices()
    return Finding(OK, ", ".join(names.values())) if names else Finding(OPTIONAL, "no input device", "plug one in")


def _microphone(trial: Trial) -> Finding:
    try:
        got = trial.answer()
    except DeviceError as error:
        if locked := locked_sound_devices():
            todo = "allow access: sudo usermod -aG audio $USER, then log in again"
            return Finding(BROKEN, f"no access to {', '.join(map(str, locked))}", todo)
        if "no input device" in error.what:
            return Finding(OPTIONAL, "no input device", "plug one in; without it only the camera is used")
        raise
    found = f"{got['rate_hz']} Hz, of: {', '.join(got['names'])}"
    if got["level_dbfs"] is None:
        todo = "unmute it, or choose another input: mma-edge run --list-devices"
        return Finding(BROKEN, f"{found}; it delivers nothing but zeros", todo)
    return Finding(OK, f"level {got['level_dbfs']:.0f} dB of full scale, {found}")


def locked_sound_devices() -> list[Path]:
    """ALSA's inputs that this user may not open."""
    return [path for path in sorted(SOUND_DEVICES.glob("pcm*c")) if not os.access(path, os.R_OK | os.W_OK)]
