"""Promises of `mma-edge batch --ray`: the records are those of one machine, and a node that is killed loses nothing."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from square_videos import ONE_RED, make_video
from test_batch import CLIP, lines, manifest, records

from mma_edge.cli import main

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
MEMORY_BYTES = 80 << 20


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(8):
        make_video(folder / f"{number}.mp4", ONE_RED * (2 + number), sound_s=0)
    (folder / "bad.mp4").write_text("no film")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """Two nodes of one core each, made by Ray's own tools; no dashboard, nothing is reported to anybody."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # A node is given up after 3 s of silence instead of 15.
        for name, value in (
            ("INITIAL_DELAY_MS", 0),
            ("PERIOD_MS", 1000),
            ("TIMEOUT_MS", 1000),
            ("FAILURE_THRESHOLD", 3),
        ):
            patch.setenv(f"RAY_health_check_{name.lower()}", str(value))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": MEMORY_BYTES, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=node)
        try:
            yield made
        finally:
            made.shutdown()


def batch(videos: Path, output: Path, *options: str) -> int:
    return main(["batch", str(videos), "--output", str(output), "--backend", "cpu", "--quiet", *CLIP, *options])


@needs_ray
@pytest.mark.live
def test_a_node_killed_half_way_loses_nothing_and_the_records_are_those_of_one_machine(
    videos: Path, cluster: object, tmp_path: Path
) -> None:
    second = cluster.add_node(num_cpus=1, object_store_memory=MEMORY_BYTES)
    output = tmp_path / "cluster"

    def kill_half_way() -> None:
        done = output / "done.jsonl"
        while not (done.exists() and done.read_text().count("\n") >= 2):
            time.sleep(0.02)
        cluster.remove_node(second, allow_graceful=False)
        killed.append(len(lines(done)))

    killed: list[int] = []
    killer = threading.Thread(target=kill_half_way)
    killer.start()
    assert batch(videos, output, "--ray", cluster.address) == 3
    killer.join()
    assert 2 <= killed[0] < 8
    assert [entry["file"] for entry in lines(output / "failed.jsonl")] == ["bad.mp4"]
    assert batch(videos, tmp_path / "here", "--workers", "1") == 3
    assert records(output) == records(tmp_path / "here") and len(records(output)) == 8
    assert manifest(output)["this_run"]["ray"] and manifest(output)["counts"]["done"] == 8
    # One machine goes on where a cluster ended.
    make_video(videos / "new.mp4", ONE_RED * 12, sound_s=0)
    assert batch(videos, output, "--workers", "1") == 3
    assert (manifest(output)["this_run"]["done"], manifest(output)["this_run"]["skipped"]) == (1, 8)


@needs_ray
@pytest.mark.live
def test_no_cluster_is_one_line(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert batch(videos, tmp_path / "out", "--ray", "127.0.0.1:9") == 6
    error = capsys.readouterr().err.splitlines()
    assert [line for line in error if "no Ray cluster at 127.0.0.1:9" in line] and "Traceback" not in "".join(error)


def test_without_ray_one_line_says_what_to_install(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert batch(videos, tmp_path / "out", "--ray", "auto") == 11
    assert 'pip install "mma-edge[ray]"' in capsys.readouterr().err
