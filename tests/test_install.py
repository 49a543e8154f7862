"""What pip installs: never two builds of onnxruntime, wheels for small boards, and the newest of everything works.

The tests marked `network` ask the package index; `.ci/run` runs them: `python -m pytest -m network`.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from packaging.requirements import Requirement

from mma_edge.engines import machine
from mma_edge.sources import sample_path

tomllib = pytest.importorskip("tomllib", reason="pyproject.toml is read with Python 3.11's tomllib")
ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
RUNTIMES = ("cpu", "gpu", "gpu-cu12")
"""Extras with a build of onnxruntime: a user takes one of them."""
RUNTIME_EXTRAS = ("cpu", "openvino", "live", "browser", "table", "mqtt", "lsl")
"""Extras of the runtime that a machine without an NVIDIA GPU may have together."""
RECIPE = ROOT / "docs" / "jetson.Dockerfile"
PATIENCE_S = 900


def distributions(*extras: str) -> dict[str, list[Requirement]]:
    """All that the package with these extras asks for, by name, whatever the markers say."""
    found: dict[str, list[Requirement]] = {}
    waiting = [*PROJECT["dependencies"], *itertools.chain.from_iterable(EXTRAS[extra] for extra in extras)]
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name == PROJECT["name"]:
            waiting += itertools.chain.from_iterable(EXTRAS[extra] for extra in requirement.extras)
        else:
            found.setdefault(requirement.name.lower(), []).append(requirement)
    return found


def runtimes(*extras: str) -> set[str]:
    return {name for name in distributions(*extras) if name.startswith("onnxruntime")}


def named_combinations() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each `mma-edge[...]` and `.[...]` of README, guides, scripts and error messages, with its file."""
    pages = [ROOT / "README.md", ROOT / ".ci" / "run", ROOT / "benchmarks" / "gpu.sh", RECIPE]
    pages += (ROOT / "docs").glob("*.md")
    for room in ("mma_edge", "trainer", "export", "benchmarks"):
        pages += (ROOT / room).rglob("*.py")
    for page in pages:
        for names in re.findall(r"""["' ](?:mma-edge|\.)\[([a-z0-9,-]+)\]""", page.read_text(encoding="utf-8")):
            yield page.name, tuple(names.split(","))


def test_no_installation_that_is_named_anywhere_has_two_builds_of_onnxruntime() -> None:
    named = list(named_combinations())
    assert ("gpu.sh", ("export", "bench", "gpu", "tensorrt")) in named and ("README.md", ("cpu",)) in named
    unknown = [(page, extras) for page, extras in named if set(extras) - set(EXTRAS)]
    assert unknown == []
    assert [(page, extras) for page, extras in named if len(runtimes(*extras)) > 1] == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_any_extras_beside_one_runtime_leave_it_the_only_one(runtime: str) -> None:
    others = [extra for extra in EXTRAS if extra not in (*RUNTIMES, "dev")]
    assert len(runtimes(runtime)) == 1
    assert runtimes(runtime, *others) == runtimes(runtime)
    assert runtimes(*others) == set()


@pytest.mark.parametrize("cuda", [None, (12, 6), (13, 0)])
@pytest.mark.parametrize("extra", ["gpu", "tensorrt"])
def test_the_extra_that_a_message_names_for_the_drivers_cuda_exists(
    monkeypatch: pytest.MonkeyPatch, extra: str, cuda: tuple[int, int] | None
) -> None:
    monkeypatch.setattr(machine, "driver_cuda_version", lambda: cuda)
    (named,) = re.findall(r"\[(.+)\]", machine.install_command(extra))
    assert named in EXTRAS and named.endswith("-cu12") == (cuda == (12, 6))


def test_two_runtimes_would_be_found() -> None:
    assert len(runtimes("cpu", "gpu")) == 2


@pytest.mark.parametrize(("major", "extras"), [(12, ("gpu-cu12", "tensorrt-cu12")), (13, ("tensorrt-cu13",))])
def test_all_of_a_cuda_version_is_for_that_version(major: int, extras: tuple[str, ...]) -> None:
    found = distributions(*extras)
    assert [name for name in found if re.search(r"cu\d+$", name) and not name.endswith(f"cu{major}")] == []
    (bindings,) = found["cuda-bindings"]
    fitting = [version for version in ("11.8.7", "12.9.0", "13.0.0", "14.0.0") if bindings.specifier.contains(version)]
    assert [version.split(".")[0] for version in fitting] == [str(major)]


def test_the_container_recipe_copies_what_an_installation_needs_and_takes_what_the_guide_gives_it() -> None:
    recipe, guide = RECIPE.read_text(encoding="utf-8"), (ROOT / "docs" / "jetson.md").read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", recipe, re.MULTILINE) for name in line.split()}
    assert [name for name in copied if not (ROOT / name).exists()] == []
    where = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"][
        "find"
    ]
    assert {*where["where"], "mma_edge", "pyproject.toml", PROJECT["readme"], "LICENSE"} - {"."} <= copied
    taken = set(re.findall(r"^ARG (\w+)=", recipe, re.MULTILINE))
    assert set(re.findall(r"--build-arg (\w+)=", guide)) == taken == {"BASE", "CUDA_BINDINGS"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a fresh virtual environment with today's pip; skips where no package index answers."""
    folder = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", str(folder))
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    update = [str(python), "-m", "pip", "install", "-q", "--retries", "0", "--timeout", "10", "--upgrade", "pip"]
    if subprocess.run(update, capture_output=True).returncode:
        pytest.skip("no package index answers: offline")
    return python


def run(*command: str, cwd: Path | None = None) -> str:
    # What is installed there must be found there, not in this checkout.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def resample_sample(target: Path, rate_hz: int) -> None:
    """The sample clip with its sound at another rate."""
    with av.open(str(sample_path())) as source, av.open(str(target), "w") as out:
        video = out.add_stream_from_template(source.streams.video[0])
        sound = out.add_stream("aac", rate=rate_hz, layout="mono")
        for packet in source.demux(video=0, audio=0):
            if packet.stream.type == "video":
                if packet.dts is not None:
                    packet.stream = video
                    out.mux(packet)
                continue
            for frame in packet.decode():
                out.mux(sound.encode(frame))  # PyAV resamples
        out.mux(sound.encode(None))


@pytest.mark.network
def test_the_runtime_with_the_newest_of_everything_hears_the_sample_at_any_rate(
    environment: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    for name in ("mma_edge", "export", "trainer", "benchmarks"):  # a copy: pip leaves its build in the source
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    run(str(environment), "-m", "pip", "install", "-q", f"{tree}[cpu]")
    installed = {
        each["name"].lower() for each in json.loads(run(str(environment), "-m", "pip", "list", "--format", "json"))
    }
    assert "onnxruntime" in installed and not {"torch", "onnx", "scipy"} & installed
    clip = tmp_path / "clip.mp4"
    resample_sample(clip, 16000)
    for source in ("sample", str(clip)):
        output = tmp_path / "records.jsonl"
        run(str(environment.with_name("mma-edge")), "run", source, "--output", str(output), "--overwrite", cwd=tmp_path)
        records = [json.loads(line) for line in output.read_text().splitlines()]
        heard = [record for record in records if "audio" in record.get("modalities", ())]
        assert len(heard) > 3, source


@pytest.mark.network
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_every_dependency_of_the_runtime_has_wheels_for_aarch64(environment: Path, python: str, tmp_path: Path) -> None:
    # glibc 2.17 to 2.35: JetPack 6 has 2.35, Raspberry Pi OS 2.36.
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(17, 36)]
    wanted = [str(each) for group in distributions(*RUNTIME_EXTRAS).values() for each in group]
    for bindings in ("cuda-bindings>=12.8,<13", "cuda-bindings>=13,<14"):  # JetPack 6 and 7
        options = [
            "--dry-run",
            "--target",
            str(tmp_path),
            "--only-binary=:all:",
            "--python-version",
            python,
            *platforms,
        ]
        run(
            str(environment),
            "-m",
            "pip",
            "install",
            "-q",
            *options,
            "--platform=manylinux2014_aarch64",
            *wanted,
            bindings,
        )
