"""Promises of `mma-edge doctor`: each feature with what to install, devices really tried, nothing that hangs it."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import failure_line, one_line, run_python
from packaging.requirements import Requirement
from test_sources_camera import FakeCamera, FakeDevice

import mma_edge.sources.devices.camera as camera_module
import mma_edge.sources.devices.v4l2 as v4l2
from mma_edge.cli import main
from mma_edge.doctor import devices, examine, features, machine
from mma_edge.doctor.finding import BROKEN, OK, OPTIONAL, Finding, result
from mma_edge.doctor.trial import try_camera, try_microphone
from mma_edge.errors import DependencyError, DeviceError

pytestmark = pytest.mark.wall_clock

ROOT = Path(__file__).parents[1]
Install = Callable[..., None]


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """The trial of a device is this program instead."""

    def install(program: str, limit_s: float = 20.0) -> None:
        path = tmp_path / "trial.py"
        path.write_text(program)
        monkeypatch.setattr(devices, "TRIAL", (str(path),))
        monkeypatch.setattr(devices, "LIMIT_S", limit_s)

    return install


@pytest.fixture
def one_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with the camera /dev/video0."""
    node = tmp_path / "video0"
    node.touch()
    monkeypatch.setattr(camera_module, "video_devices", lambda: {0: node})
    monkeypatch.setattr(v4l2, "label_of", lambda path: "HD Webcam")
    return node


ANSWERS = """
import sys
from mma_edge.child import serve
from mma_edge.errors import DeviceError
def work(request, tell):
    {}
sys.exit(serve(work))
"""


def finding_of(part: str, devices_too: bool = True) -> Finding:
    checks = devices.camera_checks(devices_too) if part != "microphone" else {}
    return result(checks[part] if checks else devices.microphone_check(devices_too))


def test_a_camera_is_opened_and_tells_size_rate_and_light() -> None:
    camera = FakeCamera(size=(64, 48), interval_s=0.02)
    got = try_camera(FakeDevice(camera), 0.4)
    assert got["size"] == [64, 48] and 0 < got["rate_fps"] <= 51 and not got["dark"]
    assert 0 <= got["first_s"] < 5 and camera.released == 1


def test_a_cameras_second_number_is_not_taken_for_a_broken_camera(
    trial: Install, one_camera: Path, monkeypatch
) -> None:
    monkeypatch.setattr("mma_edge.doctor.trial.modes", lambda path: [])
    assert try_camera(FakeDevice(FakeCamera()), 0.1) == {"pictures": False}
    trial(ANSWERS.format("return {'pictures': False}"))
    assert finding_of("camera:0").state == OPTIONAL


def test_a_camera_in_the_dark_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = FakeCamera()
    monkeypatch.setattr(camera, "retrieve", lambda: (True, np.zeros((48, 64, 3), np.uint8)))
    assert try_camera(FakeDevice(camera), 0.05)["dark"]


@pytest.mark.parametrize(("present", "says"), [(False, "cannot be opened"), (True, "delivers no picture")])
def test_a_camera_that_is_busy_or_silent_is_one_line(present: bool, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mma_edge.doctor.trial.FIRST_S", 0.1)
    camera = FakeCamera()
    camera.present, camera.delivers = present, False
    with pytest.raises(DeviceError, match=says) as caught:
        try_camera(FakeDevice(camera), 0.1)
    one_line(caught.value)
    assert camera.released == 1


class Speaker:
    """A microphone that delivers these blocks at once."""

    def __init__(self, *levels: float) -> None:
        self._levels, self.closed = levels, False

    def __call__(self, on_block: Callable, rescan: bool) -> Speaker:
        for level in self._levels:
            on_block(np.full((4800, 2), level, np.float32), 48000, None)
        return self

    def close(self) -> None:
        self.closed = True


def test_a_microphone_tells_rate_and_level(monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = Speaker(*[0.1] * 10)
    assert try_microphone(0.2, speaker) == {"rate_hz": 48000, "level_dbfs": -20.0} and speaker.closed
    assert try_microphone(0.2, Speaker(*[0.0] * 10))["level_dbfs"] is None
    monkeypatch.setattr("mma_edge.doctor.trial.FIRST_S", 0.1)
    with pytest.raises(DeviceError, match="delivers nothing") as caught:
        try_microphone(0.1, Speaker())
    one_line(caught.value)


def test_what_a_trial_found_is_said(trial: Install, one_camera: Path) -> None:
    trial(
        ANSWERS.format(
            "return {'pictures': True, 'size': [640, 480], 'rate_fps': 29.9, 'first_s': 0.41, 'dark': False}"
        )
    )
    finding = finding_of("camera:0")
    assert finding.state == OK
    assert finding.found == "HD Webcam: 640x480, 29.9 pictures a second, the first after 0.4 s"


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import time; time.sleep(60)", "camera:0 did not answer within 1 s"),
        ("import os; os.abort()", "camera:0: the process was ended by SIGABRT"),
        (ANSWERS.format("raise DeviceError('camera 0 cannot be opened', '', 'close other programs')"), "cannot be"),
    ],
)
def test_a_camera_that_hangs_or_crashes_does_not_take_the_doctor_with_it(
    trial: Install, one_camera: Path, program: str, says: str
) -> None:
    trial(program, limit_s=1.0 if "sleep" in program else 20.0)
    start_s = time.monotonic()
    finding = finding_of("camera:0")
    assert finding.state == BROKEN and says in finding.found and finding.todo
    assert time.monotonic() - start_s < 15


def test_without_permission_the_group_is_named(
    one_camera: Path, trial: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera_module, "may_use", lambda path: False)
    assert "usermod -aG video" in finding_of("camera:0").todo
    (tmp_path / "pcmC0D0c").touch()
    monkeypatch.setattr(devices, "SOUND_DEVICES", tmp_path)
    monkeypatch.setattr(devices.os, "access", lambda path, mode: False)
    trial(ANSWERS.format("raise DeviceError('there is no input device')"))
    finding = finding_of("microphone")
    assert finding.state == BROKEN and "usermod -aG audio" in finding.todo


@pytest.mark.parametrize(
    ("work", "state", "says"),
    [
        ("return {'names': ['USB mic'], 'rate_hz': 48000, 'level_dbfs': -41.0}", OK, "level -41 dB"),
        ("return {'names': ['USB mic'], 'rate_hz': 48000, 'level_dbfs': None}", BROKEN, "nothing but zeros"),
        ("raise DeviceError('there is no input device (Error querying device -1)')", OPTIONAL, "no input device"),
    ],
)
def test_a_microphone_is_heard_muted_or_absent(
    trial: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str, state: str, says: str
) -> None:
    monkeypatch.setattr(devices, "SOUND_DEVICES", tmp_path)
    trial(ANSWERS.format(work))
    finding = finding_of("microphone")
    assert finding.state == state and says in finding.found


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "version_of", lambda name: None)
    for name, feature in features.FEATURES.items():
        finding = features.look(feature)
        if feature.extra:
            assert finding == Finding(OPTIONAL, finding.found, f'pip install "mma-edge[{feature.extra}]"'), name

    def absent() -> Finding:
        raise DependencyError("sounddevice is not installed", hint="pip install 'mma-edge[live]'")

    assert result(absent) == Finding(OPTIONAL, "sounddevice is not installed", "pip install 'mma-edge[live]'")
    monkeypatch.setenv("PATH", "")
    assert "sudo apt-get install gstreamer1.0-tools" in features.look(features.FEATURES["GStreamer, CSI"]).todo


def test_versions_outside_the_tested_range_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"numpy": "1.25.2", "rich": "99.1"}
    monkeypatch.setattr(features, "version_of", lambda name: versions.get(name, features.PACKAGES[name][1]))
    finding = features.look(features.RUNTIME)
    assert finding.state == BROKEN and finding.todo == 'pip install "numpy>=1.26"'
    assert f"rich 99.1 (newer than the tested {features.PACKAGES['rich'][1]})" in finding.found
    monkeypatch.setattr(machine, "PYTHONS", ((3, 7), (3, 8)))
    assert "tested with Python 3.7 to 3.8" in machine.MACHINE["mma-edge"]().todo
    assert features.fits("1.26.0.post1+cu12", ">=1.26,<3") and not features.fits("3.0", ">=1.26,<3")


def test_two_builds_of_onnxruntime_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "version_of", lambda name: "1.31.1")
    finding = machine.NEEDED["onnxruntime"]()
    assert finding.state == BROKEN and "pip uninstall onnxruntime onnxruntime-gpu" in finding.todo


def test_little_memory_or_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 100 << 20)
    assert machine.MACHINE["memory"]().state == BROKEN
    monkeypatch.setattr(machine, "LITTLE_DISK", 1 << 60)
    assert "make room" in machine.MACHINE["disk"]().todo


def test_the_table_of_features_is_that_of_pyproject() -> None:
    tomllib = pytest.importorskip("tomllib", reason="pyproject.toml is read with Python 3.11's tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    known = {feature.extra: feature.packages for feature in features.FEATURES.values() if feature.extra}
    known |= features.TRIED
    assert set(known) | {*features.GPU_EXTRAS, "dev"} == set(extras), "a row of mma_edge/doctor/features.py for each"
    stated = {}
    for extra, packages in {None: features.RUNTIME.packages, **known}.items():
        needs = [Requirement(text) for text in (project["dependencies"] if extra is None else extras[extra])]
        needs = [each for each in needs if each.name != "mma-edge"]
        assert [each.name for each in needs] == list(packages), extra
        stated |= {each.name: set(str(each.specifier).split(",")) for each in needs}
    assert {name: set(allowed.split(",")) for name, (allowed, _) in features.PACKAGES.items()} == stated
    pinned = dict(re.findall(r"^([\w-]+)==([^;\s]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    assert {name: tested for name, (_, tested) in features.PACKAGES.items()} == {name: pinned[name] for name in stated}


def test_the_report_as_json_holds_nothing_private(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "ann"
    monkeypatch.setenv("HOME", str(home))
    secret = Finding(OK, f"{home}/x, {home}a, rtsp://me:secret@host/cam")
    monkeypatch.setitem(machine.MACHINE, "disk", lambda: secret)
    assert main(["doctor", "--json", "--no-devices"]) == 0
    data = json.loads(capsys.readouterr().out)
    found = {each["part"]: each["found"] for each in data["findings"]}
    assert found["disk"] == f"~/x, {home}a, rtsp://***@host/cam"
    assert {"packages", "onnxruntime", "OpenVINO", "training", "microphone"} <= set(found)
    assert data["packages"]["numpy"] == np.__version__ and "python" in data


@pytest.mark.parametrize("columns", ["80", "40"])
def test_what_is_broken_is_named_last_and_is_exit_code_1(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    broken = Finding(BROKEN, "not installed in a place of so many words that no terminal has them", "install it")
    monkeypatch.setitem(machine.NEEDED, "onnxruntime", lambda: broken)
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["doctor", "--no-devices"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "does not work: onnxruntime" and max(map(len, lines)) <= int(columns)


def test_an_unexpected_error_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Finding:
        raise ValueError("odd")

    monkeypatch.setitem(machine.NEEDED, "files", fails)
    (row,) = [row for row in examine.examine(devices=False) if row.part == "files"]
    assert row.finding.state == BROKEN and row.finding.found == "ValueError: odd" and "--json" in row.finding.todo


def test_options_that_do_not_go_together_are_one_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor", "--sync", "sample", "--json"]) == 2
    assert "--json" in failure_line(capsys)


def test_the_real_trial_says_that_there_is_no_camera() -> None:
    if sys.platform.startswith("linux") and not os.path.exists("/dev/video77"):
        with pytest.raises(DeviceError, match="camera 77 cannot be opened"):
            devices.Trial("camera:77", {"camera": 77}).answer()


@pytest.mark.parametrize("package", ["cv2", "av", "onnxruntime"])
def test_a_broken_installation_is_a_table_too(package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from mma_edge.cli import main; sys.exit(main(['doctor']))"
    done = run_python("-c", code, COLUMNS="200")
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    assert f"{package} " in done.stdout and "does not work" in done.stdout.splitlines()[-1]
