"""Two processes learn what one learns; one writes; none waits for a dead one."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import distributed_run
import pytest
import torch
from conftest import PATIENCE_S, one_line, run_python
from loop_task import BATCH, RandomClips, make_run, random_batch

from mma_edge.errors import UsageError
from mma_trainer.data.batch import Batch, Shard, share
from mma_trainer.training import loop
from mma_trainer.training.processes import Processes
from mma_trainer.training.recipe import Recipe
from mma_trainer.training.state import LAST
from mma_trainer.weights.checkpoint import read_checkpoint

pytestmark = pytest.mark.wall_clock

PROGRAM = Path(__file__).with_name("distributed_run.py")


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def launch(folder: Path, what: str, torchrun: bool = False) -> subprocess.CompletedProcess:
    """`distributed_run.py` in two processes: as torchrun itself starts it, or by torchrun's agent in half the time."""
    program = [*TORCHRUN, PROGRAM, folder, what] if torchrun else [PROGRAM, folder, what, "pair"]
    return run_python(*program, OMP_NUM_THREADS="1")


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:  # of what main changes for its own process
        patch.setattr(loop, "plot_curves", loop.plot_curves)
        assert distributed_run.main(folder, "train") == 0
    return folder


def assert_close_runs(one: Path, two: Path) -> None:
    """The same loss curve, weights and metrics up to the order of additions."""
    a, b = (read_checkpoint(folder / LAST) for folder in (one, two))
    for row, other in zip(a.training["rows"], b.training["rows"], strict=True):
        for name in ("lr", "train_loss", "train_war", "val_loss", "val_uar", "val_war"):
            assert other[name] == pytest.approx(row[name], abs=1e-5), name
    for name, tensor in a.state_dict.items():
        torch.testing.assert_close(b.state_dict[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda text: f"{text}")
    mine = [json.loads((two / f"metrics-{rank}.json").read_text()) for rank in (0, 1)]
    assert mine[0] == mine[1]  # gathered exactly: every process knows all
    whole = json.loads((one / "metrics-0.json").read_text())
    assert mine[0]["confusion"] == whole["confusion"] and sum(map(sum, whole["confusion"])) == 7
    assert mine[0]["loss"] == pytest.approx(whole["loss"], abs=1e-5)


def test_two_processes_have_the_loss_curve_and_the_metrics_of_one(one_process: Path, tmp_path: Path) -> None:
    done = launch(tmp_path, "train", torchrun=True)
    assert done.returncode == 0, done.stderr
    assert_close_runs(one_process, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {LAST, "log.csv", "metrics-0.json", "metrics-1.json"}
    rows = read_checkpoint(tmp_path / LAST).training["rows"]
    assert len({row["train_loss"] for row in rows}) == 2  # and something was learnt


def test_two_processes_stop_together_and_resume_where_they_were(one_process: Path, tmp_path: Path) -> None:
    done = launch(tmp_path, "stop")
    assert done.returncode != 0
    position = read_checkpoint(tmp_path / LAST).training["position"]
    assert (position["epoch"], position["batch"]) == (1, 2)
    assert position["sums"][2] == 2 * BATCH  # clips of both processes, each once
    done = launch(tmp_path, "resume")
    assert done.returncode == 0, done.stderr
    assert_close_runs(one_process, tmp_path)


def test_processes_find_each_other_again_for_the_next_run(one_process: Path, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    done = launch(tmp_path, "twice")
    assert done.returncode == 0, done.stderr
    first, second = (read_checkpoint(folder / LAST) for folder in (tmp_path, tmp_path / "second"))
    assert first.training["rows"][-1]["train_loss"] == second.training["rows"][-1]["train_loss"]
    assert_close_runs(one_process, tmp_path)


def test_a_dead_process_ends_the_run_and_does_not_hang_it(tmp_path: Path) -> None:
    start = time.monotonic()
    done = launch(tmp_path, "crash")
    assert done.returncode != 0 and time.monotonic() - start < PATIENCE_S / 2
    assert not (tmp_path / "metrics-0.json").exists()


def test_a_bad_clip_of_any_process_is_named(tmp_path: Path) -> None:
    done = launch(tmp_path, "poison")
    assert done.returncode != 0
    # Clip 3 of the batch is the second of process 1's share.
    assert "loss became nan in epoch 1, batch 3: clip-3 (its input has NaN" in done.stderr


def test_shards_are_the_batch_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_batch(6, torch.Generator())
    shares = [share(batch, Shard(rank, 3)) for rank in range(3)]
    for key in range(2):
        assert torch.equal(torch.cat([part.inputs[key] for part in shares]), batch.inputs[key])
    assert torch.equal(torch.cat([part.labels for part in shares]), batch.labels)
    assert sum((part.names for part in shares), ()) == batch.names
    assert share(Batch(batch.inputs, batch.labels), Shard(1, 2)).names == ()
    with pytest.raises(UsageError, match="6 clips cannot be shared by 4"):
        share(batch, Shard(0, 4))


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, Recipe(batch_size=BATCH), RandomClips())
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError) as error:
        run.fit(resume=False)
    assert "a batch of 4 clips cannot be shared by 3 processes" in one_line(error.value)
    assert "--batch-size 3" in str(error.value)


@pytest.mark.parametrize(("set_", "rank", "world"), [({}, 0, 1), ({"RANK": "1", "WORLD_SIZE": "2"}, 1, 2)])
def test_who_a_process_is_comes_from_torchrun(
    monkeypatch: pytest.MonkeyPatch, set_: dict[str, str], rank: int, world: int
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_.items():
        monkeypatch.setenv(name, value)
    found = Processes.from_environment()
    assert (found.rank, found.world, found.is_writer) == (rank, world, rank == 0)


def test_the_public_sets_share_batches_and_give_every_validation_clip_once(public: Path) -> None:
    from mma_trainer.data.public.background import load_noise, load_rooms
    from mma_trainer.data.public.faces import load_faces
    from mma_trainer.data.public.voices import load_voices
    from mma_trainer.data.tasks.faces import FaceTask
    from mma_trainer.data.tasks.pairs import PseudoPairTask
    from mma_trainer.data.tasks.voices import Surroundings, VoiceTask

    faces, voices = load_faces(public, "train"), load_voices(public, "train", ("ravdess",))
    surroundings = Surroundings(load_noise(public, "train"), load_rooms(public))
    makers: list[Callable] = [
        lambda: FaceTask(faces, faces, 16, 4, 1, balance=0.75),
        lambda: VoiceTask(voices, voices, surroundings, 4, 1),
        lambda: PseudoPairTask((faces, voices), (faces, voices), surroundings, 16, 4, 1, 8, 0.25),
    ]
    for make in makers:
        whole = list(make().train_batches(0))
        halves = [list(make().train_batches(0, Shard(rank, 2))) for rank in range(2)]
        for batch, first, second in zip(whole, *halves, strict=True):
            assert torch.equal(torch.cat([first.labels, second.labels]), batch.labels)
            assert torch.equal(torch.cat([first.inputs[0], second.inputs[0]]), batch.inputs[0])
        counts = [sum(len(b.labels) for b in make().val_batches(Shard(rank, 2))) for rank in range(2)]
        assert sum(counts) == sum(len(b.labels) for b in make().val_batches())
