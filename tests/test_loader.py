"""Promises of the loader: the same batches for any number of workers and processes, decoded once with a cache."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import torch
from conftest import RATE_HZ, make_frames, one_line, python_environment, tone
from PIL import Image
from whole_lists import clips_of

from mma_edge.errors import BackendError, DataError, OutputError, UsageError
from mma_trainer.data.batch import Batch, Shard
from mma_trainer.data.cache import ClipCache
from mma_trainer.data.entries import ClipEntry, ClipFiles
from mma_trainer.data.loader import ListTask

SIZE = 16
SEED = 1


@pytest.fixture(scope="module")
def noisy_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven noisy clips with sound; the last one's crops have several sizes, and it is silent. To be read only."""
    root, rng, lines = tmp_path_factory.mktemp("noisy"), np.random.default_rng(0), []
    (root / "wav").mkdir()
    for clip in range(1, 12):
        folder = root / "frames" / f"{clip:03d}"
        folder.mkdir(parents=True)
        for number in range(17 + clip):
            shape = (20 + (number % 3 if clip == 11 else 0), 24, 3)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{number}.png")
        if clip != 11:
            soundfile.write(root / "wav" / f"{clip:03d}.wav", tone(0.3, 100 * clip), RATE_HZ, subtype="FLOAT")
        lines.append(f"{clip:03d} {17 + clip} {clip % 3}")
    (root / "list.txt").write_text("\n".join(lines))
    return root


def entries_of(root: Path) -> list[ClipEntry]:
    return clips_of(root / "list.txt", root / "frames", root / "wav", 3)


@pytest.fixture
def entries(noisy_clips: Path) -> list[ClipEntry]:
    return entries_of(noisy_clips)


@pytest.fixture
def own_entries(noisy_clips: Path, tmp_path: Path) -> list[ClipEntry]:
    """The same clips in files that the test may change."""
    return entries_of(Path(shutil.copytree(noisy_clips, tmp_path / "own")))


def task(entries: list[ClipEntry], workers: int = 0, cache: ClipFiles | None = None, size: int = 4) -> ListTask:
    return ListTask(entries, entries[:5], SIZE, size, SEED, 0.0, workers, cache)


def same(first: list[Batch], second: list[Batch]) -> bool:
    assert len(first) == len(second) > 0
    return all(
        a.names == b.names
        and torch.equal(a.labels, b.labels)
        and all(torch.equal(x, y) for x, y in zip(a.inputs, b.inputs, strict=True))
        for a, b in zip(first, second, strict=True)
    )


def passes(task: ListTask) -> list[Batch]:
    """Two epochs, a validation between them."""
    return [*task.train_batches(0), *task.val_batches(), *task.train_batches(1)]


def test_batches_are_shuffled_by_epoch_repeatable_and_whole(entries: list[ClipEntry]) -> None:
    first, again, second = (list(task(entries).train_batches(epoch)) for epoch in (0, 0, 1))
    assert [len(batch.labels) for batch in first] == [4, 4]  # 3 of 11 are dropped
    assert same(first, again) and not same(first, second)
    assert [batch.names for batch in first] != [batch.names for batch in second]
    names = [name for batch in first for name in batch.names]
    assert len(set(names)) == 8
    by_name = {entry.name: entry.label for entry in entries}
    assert [by_name[name] for name in names] == [int(label) for batch in first for label in batch.labels]
    for batch in first:
        assert batch.inputs[0].shape == (4, 16, SIZE, SIZE, 3) and batch.inputs[0].dtype == torch.uint8
        assert batch.inputs[1].shape == (4, 512, 128) and batch.inputs[1].dtype == torch.float32
    validated = list(task(entries).val_batches())
    assert [name for batch in validated for name in batch.names] == [entry.name for entry in entries[:5]]


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches_and_leaves_the_global_generator_alone(
    entries: list[ClipEntry], workers: int
) -> None:
    alone = passes(task(entries))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    many = task(entries, workers)
    assert same(passes(many), alone)
    # Stochastic depth draws from it: a resumed run, whose workers start in another epoch, would differ.
    assert torch.equal(torch.rand(1), expected)
    pids = {worker.pid for worker in many._train_loader._loader._iterator._workers}
    for _ in many.train_batches(2):
        break  # a run that is stopped within an epoch
    assert same(list(many.train_batches(2)), list(task(entries).train_batches(2)))
    assert {worker.pid for worker in many._train_loader._loader._iterator._workers} == pids


@pytest.mark.parametrize("world", [2, 4])
def test_shards_of_a_batch_are_its_consecutive_parts(entries: list[ClipEntry], world: int) -> None:
    whole = list(task(entries).train_batches(3))
    parts = [list(task(entries).train_batches(3, Shard(rank, world))) for rank in range(world)]
    for batch, shares in zip(whole, zip(*parts, strict=True), strict=True):
        assert {len(share.labels) for share in shares} == {4 // world}
        assert tuple(itertools.chain(*(share.names for share in shares))) == batch.names
        for part in range(2):
            assert torch.equal(torch.cat([share.inputs[part] for share in shares]), batch.inputs[part])


def test_a_shard_decodes_its_own_clips_only(entries: list[ClipEntry], monkeypatch: pytest.MonkeyPatch) -> None:
    seen, read = [], ClipFiles.images
    monkeypatch.setattr(ClipFiles, "images", lambda self, entry, at: seen.append(entry.name) or read(self, entry, at))
    batches = list(task(entries).train_batches(0, Shard(1, 2)))
    assert seen == [name for batch in batches for name in batch.names] and len(seen) == 4


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_shards_of_the_validation_have_every_clip_once(entries: list[ClipEntry], world: int) -> None:
    shards = [list(task(entries).val_batches(Shard(rank, world))) for rank in range(world)]
    for rank, shard in enumerate(shards):
        assert [n for batch in shard for n in batch.names] == [entry.name for entry in entries[:5]][rank::world]


def test_a_batch_that_cannot_be_shared_is_refused_with_one_that_can(entries: list[ClipEntry]) -> None:
    with pytest.raises(UsageError) as error:
        next(task(entries).train_batches(0, Shard(0, 3)))
    assert "4 clips cannot be shared by 3 processes" in one_line(error.value) and "--batch-size 3" in str(error.value)


def test_less_than_a_batch_is_refused(entries: list[ClipEntry]) -> None:
    with pytest.raises(DataError, match="11 clips; expected at least a batch of 12; lower --batch-size"):
        task(entries, size=12)
    with pytest.raises(DataError, match="no usable clip"):
        ListTask(entries, [], SIZE, 4, SEED, 0.0, 0)
    with pytest.raises(UsageError, match="--workers -1"):
        task(entries, workers=-1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_clip_that_fails_in_a_worker_is_one_line_without_a_traceback(
    own_entries: list[ClipEntry], workers: int
) -> None:
    (own_entries[3].folder / own_entries[3].files[8]).write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"^clip 004: a frame cannot be read") as error:
        list(task(own_entries, workers).val_batches())
    assert "Traceback" not in one_line(error.value)
    # The error holds the loader. Freed by the garbage collector, it would wait 5 s for each of its workers.
    traceback.clear_frames(error.tb)


LOCK = threading.Lock()


class LockedFiles(ClipFiles):
    """As code does that shares something between its threads."""

    def mel(self, entry: ClipEntry) -> np.ndarray:
        assert LOCK.acquire(timeout=20), "held for ever"
        try:
            return super().mel(entry)
        finally:
            LOCK.release()


def test_workers_wait_for_no_lock_of_a_thread_that_they_do_not_have(entries: list[ClipEntry]) -> None:
    held, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with LOCK:
            held.set()
            enough.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        batches = list(task(entries, 1, LockedFiles()).train_batches(0))
    finally:
        enough.set()
        holder.join()
    assert same(batches, list(task(entries).train_batches(0)))


def test_a_killed_worker_is_one_line(entries: list[ClipEntry]) -> None:
    running = task(entries, 2)
    batches = running.train_batches(0)
    next(batches)
    os.kill(running._train_loader._loader._iterator._workers[0].pid, signal.SIGKILL)
    with pytest.raises(BackendError, match=r"^a loader process was killed") as error:
        for epoch in itertools.count():
            list(running.train_batches(epoch))
    assert "--workers" in one_line(error.value)


LOADING = """
import itertools, sys
from pathlib import Path
import test_loader
task = test_loader.task(test_loader.entries_of(Path(sys.argv[1])), 2)
print("loads", flush=True)
try:
    for epoch in itertools.count():
        for batch in task.train_batches(epoch):
            print(*(worker.pid for worker in task._train_loader._loader._iterator._workers), flush=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def loading(noisy_clips: Path) -> Iterator[subprocess.Popen]:
    """A process that loads for ever, in a group of its own, as a shell makes one."""
    environment = python_environment()
    argv = [sys.executable, "-c", LOADING, str(noisy_clips)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(argv, env=environment, start_new_session=True, **pipes) as process:
        assert process.stdout.readline() == "loads\n"
        yield process
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("after_s", [0.0, 0.5, 1.0])
def test_ctrl_c_while_workers_start_is_no_traceback(loading: subprocess.Popen, after_s: float) -> None:
    time.sleep(after_s)
    os.killpg(loading.pid, signal.SIGINT)
    _, error = loading.communicate(timeout=60)
    assert loading.returncode == 130 and error == ""


def test_workers_end_with_a_killed_parent(loading: subprocess.Popen) -> None:
    workers = [psutil.Process(int(pid)) for pid in loading.stdout.readline().split()]
    assert len(workers) == 2
    loading.kill()
    assert psutil.wait_procs(workers, timeout=30)[1] == []


def test_with_a_cache_batches_are_the_same_and_a_second_epoch_decodes_nothing(
    own_entries: list[ClipEntry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = own_entries
    plain = passes(task(entries))
    cached = task(entries, cache=ClipCache(tmp_path / "cache", entries, 1.0))
    assert same(passes(cached), plain)
    for epoch in range(2, 9):  # until every clip has been seen
        list(cached.train_batches(epoch))

    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr(soundfile, "read", refuse)
    assert same(passes(cached), plain)
    # So does the next run, and one with worker processes, which know of no patch.
    later = [task(entries, workers, ClipCache(tmp_path / "cache", entries, 1.0)) for workers in (0, 2)]
    for entry in entries:
        shutil.rmtree(entry.folder)
        if entry.wav:
            entry.wav.unlink()
    for each in later:
        assert same(passes(each), plain)


def test_a_changed_file_is_not_served_from_the_cache(own_entries: list[ClipEntry], tmp_path: Path) -> None:
    folder, entries = tmp_path / "cache", own_entries
    list(task(entries, cache=ClipCache(folder, entries, 1.0)).val_batches())
    soundfile.write(entries[0].wav, tone(0.3, 999), RATE_HZ, subtype="FLOAT")
    Image.new("RGB", (24, 20), (9, 9, 9)).save(entries[1].folder / entries[1].files[-1])
    fresh = list(task(entries).val_batches())
    assert same(list(task(entries, cache=ClipCache(folder, entries, 1.0)).val_batches()), fresh)


def test_a_damaged_cache_is_made_again(entries: list[ClipEntry], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    plain = list(task(entries).val_batches())
    list(task(entries, cache=ClipCache(folder, entries, 1.0)).val_batches())
    for number, path in enumerate(sorted(folder.rglob("*.npy"))):
        path.write_bytes(path.read_bytes()[: (0, 40, 300)[number % 3]])
    cache = ClipCache(folder, entries, 1.0)
    assert same(list(task(entries, cache=cache).val_batches()), plain)
    assert min(path.stat().st_size for path in folder.rglob("*.npy")) > 300


@pytest.mark.parametrize("limit_kb", [1, 300, 2750, 2900])
def test_a_cache_keeps_to_its_bound_and_what_has_no_room_is_still_right(
    entries: list[ClipEntry], tmp_path: Path, limit_kb: int
) -> None:
    plain, folder = passes(task(entries)), tmp_path / "cache"
    for _ in range(2):  # a second run counts what the first one left
        cache = ClipCache(folder, entries, limit_kb / 1e6)
        assert same(passes(task(entries, cache=cache)), plain)
        assert sum(path.stat().st_size for path in folder.rglob("*.*")) <= limit_kb * 1000
    assert cache.clips == 11 and cache.clips_kept < 11 and (cache.clips_kept > 0) == (limit_kb > 1)
    assert not list(folder.rglob("*.part"))


def test_a_cache_that_cannot_be_made_or_written_is_one_line(entries: list[ClipEntry], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError) as error:
        ClipCache(tmp_path / "file", entries, 1.0)
    assert "--cache" in one_line(error.value)
    with pytest.raises(UsageError, match="--cache-gb 0"):
        ClipCache(tmp_path / "cache", entries, 0)
    cache = ClipCache(tmp_path / "gone", entries, 1.0)
    os.rename(tmp_path / "gone", tmp_path / "elsewhere")
    with pytest.raises(OutputError) as error:
        list(task(entries, cache=cache).val_batches())
    assert "cannot be written" in one_line(error.value)


def test_nothing_is_pinned_without_a_cuda_device(entries: list[ClipEntry], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not task(entries)._train_loader._loader.pin_memory
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert task(entries)._train_loader._loader.pin_memory
    on_cpu = ListTask(entries, entries, SIZE, 4, SEED, 0.0, 0, pin_memory=False)
    assert not on_cpu._train_loader._loader.pin_memory


def test_frames_keep_their_order_by_number_in_the_cache(tmp_path: Path) -> None:
    make_frames(tmp_path / "clip", list(range(1, 31)), name="{}.jpg")
    (tmp_path / "list.txt").write_text("clip 30 0")
    entries = clips_of(tmp_path / "list.txt", tmp_path, None, 1)
    cache = ClipCache(tmp_path / "cache", entries, 1.0)
    for _ in range(2):
        images = cache.images(entries[0], [29, 0, 9, 9])
        assert [round(image.mean() / 2) for image in images] == [30, 1, 10, 10]


def test_other_clips_have_another_fingerprint(entries: list[ClipEntry]) -> None:
    def fingerprint(train: list[ClipEntry]) -> str:
        return ListTask(train, entries, SIZE, 2, SEED, 0.0, 0).fingerprint

    mine = fingerprint(entries)
    assert mine == fingerprint(list(entries)) and len(mine) == 64
    relabelled = [dataclasses.replace(entries[0], label=entries[0].label + 1), *entries[1:]]
    silent = [dataclasses.replace(entries[0], wav=None), *entries[1:]]
    for others in (entries[:-1], entries[::-1], relabelled, silent):
        assert fingerprint(others) != mine


def test_a_training_clip_loses_its_face_or_its_sound_but_never_all_that_it_has(entries: list[ClipEntry]) -> None:
    lossy, whole = (ListTask(entries, entries, SIZE, 11, SEED, dropout, 0) for dropout in (0.4, 0.0))
    counts = {"face": 0, "sound": 0}
    for epoch in range(4):
        for lost, kept in zip(lossy.train_batches(epoch), whole.train_batches(epoch), strict=True):
            assert lost.names == kept.names
            for index, name in enumerate(lost.names):
                face, sound = (bool(part[index].any()) for part in lost.inputs)
                assert face or sound
                assert face or name != "011"  # the silent clip has its face only
                counts["face"] += not face
                counts["sound"] += not sound and name != "011"
                for has, got, expected in zip((face, sound), lost.inputs, kept.inputs, strict=True):
                    assert not has or torch.equal(got[index], expected[index])
    assert min(counts.values()) > 5
    assert same(list(lossy.val_batches()), list(whole.val_batches()))
