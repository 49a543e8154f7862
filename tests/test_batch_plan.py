"""Promises of a batch before it begins: which files it is about, and which of them are done, moved or the same."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mma_edge.batch.corpus import find_corpus
from mma_edge.batch.files import digest_of
from mma_edge.batch.folder import BatchFolder, failed_of
from mma_edge.batch.plan import Plan, make_plan
from mma_edge.batch.tasks import Answer, Failure, Task
from mma_edge.errors import OutputError, SourceError, UsageError


def fill(folder: Path, **contents: str) -> Path:
    """Files NAME.mp4 with these contents; __ in a name is a folder."""
    for name, content in contents.items():
        path = folder / f"{name.replace('__', '/')}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def plan_of(videos: Path, output: Path, **options: bool) -> Plan:
    with BatchFolder(output) as folder:
        return make_plan(find_corpus([videos]), folder, **options)


def do(videos: Path, output: Path) -> Plan:
    """A batch whose workers answer without looking."""
    with BatchFolder(output) as folder:
        plan = make_plan(find_corpus([videos]), folder)
        folder.begin(plan.failed)
        folder.write_manifest({})
        for old, task in plan.moved:
            folder.rename(old, task)
        for task in plan.todo:
            record = f'{{"source": "{task.name}", "of": "{Path(task.path).read_text()}"}}\n'
            folder.keep(task, Answer(digest_of(task.path), record, 1, 1.0, ()))
        return plan


def told(output: Path) -> dict[str, str]:
    folder = output / "records"
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def names(tasks: list[Task]) -> list[str]:
    return [task.name for task in tasks]


def test_folders_lists_and_files_become_names_and_the_rest_is_counted(tmp_path: Path) -> None:
    videos = fill(tmp_path / "videos", a="1", deep__er__b="2", _c="3")
    (videos / "_c.mp4").rename(videos / ".c.mp4")
    (videos / ".cache").mkdir()
    (videos / ".cache" / "d.mp4").write_text("4")
    (videos / "e.WAV").write_text("5")
    for name in ("notes.txt", "more.txt", "data.bin"):
        (videos / name).write_text("x")
    found = find_corpus([videos])
    assert list(found.files) == ["a.mp4", "deep/er/b.mp4", "e.WAV"]
    assert (found.hidden, found.left_out()) == (2, "2 hidden, 3 of other types (.txt 2, .bin 1)")
    assert list(find_corpus([videos], ["*.txt", "deep/*"]).files) == ["deep/er/b.mp4", "more.txt", "notes.txt"]
    listed = tmp_path / "list.txt"
    listed.write_text(f"# mine\n\nvideos/a.mp4\n  videos/gone.mp4  \n{videos}/e.WAV\nvideos/../videos/a.mp4\n")
    assert list(find_corpus([listed]).files) == ["videos/a.mp4", "videos/e.WAV", "videos/gone.mp4"]
    table = videos / "files.csv"
    table.write_text('who,path\nanna,"a.mp4"\nben,deep/er/b.mp4\n')
    assert list(find_corpus([table]).files) == ["a.mp4", "deep/er/b.mp4"]
    both = find_corpus([videos, fill(tmp_path / "others", a="9"), videos / "a.mp4"])
    assert [name for name in both.files if name.endswith("a.mp4")] == ["others/a.mp4", "videos/a.mp4"]


def test_neither_the_output_nor_a_circle_of_links_is_searched(tmp_path: Path) -> None:
    videos = fill(tmp_path / "videos", a="1", out__b="2")
    (videos / "round").symlink_to(videos)
    assert list(find_corpus([videos], output=videos / "out").files) == ["a.mp4"]


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("name\na.mp4\n", UsageError, "a column path"),
        ("path\n", SourceError, "no media files"),
        ("a\0b", UsageError, "is not text"),
    ],
)
def test_a_list_that_is_none_is_one_line(text: str, kind: type, says: str, tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text(text)
    with pytest.raises(kind, match=says):
        find_corpus([table])


def test_the_largest_come_first_and_the_same_content_is_done_once(tmp_path: Path) -> None:
    videos = fill(tmp_path / "videos", a="1", b="333", c="22", d="333", e="444")
    plan = plan_of(videos, tmp_path / "out")
    assert names(plan.todo) == ["b.mp4", "e.mp4", "c.mp4", "a.mp4"]
    assert plan.duplicates == {"d.mp4": "b.mp4"}


def test_what_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos, output = fill(tmp_path / "videos", a="11", b="22", c="3"), tmp_path / "out"
    do(videos, output)
    monkeypatch.setattr("mma_edge.batch.plan.digest_of", None)
    plan = plan_of(videos, output)
    assert sorted(plan.done) == ["a.mp4", "b.mp4", "c.mp4"] and not plan.todo and not plan.moved


def test_moved_files_keep_their_records_and_swapped_ones_are_done_again(tmp_path: Path) -> None:
    videos, output = fill(tmp_path / "videos", a="11", b="22", c="333"), tmp_path / "out"
    do(videos, output)
    (videos / "c.mp4").rename(videos / "d.mp4")
    for old, new in (("a", "x"), ("b", "a"), ("x", "b")):
        (videos / f"{old}.mp4").rename(videos / f"{new}.mp4")
    plan = do(videos, output)
    assert [(old.file, task.name) for old, task in plan.moved] == [("c.mp4", "d.mp4")]
    assert names(plan.todo) == ["a.mp4", "b.mp4"]
    expected = {"a.mp4": "22", "b.mp4": "11", "d.mp4": "333"}
    assert told(output) == {f"{n}.jsonl": f'{{"source": "{n}", "of": "{c}"}}\n' for n, c in expected.items()}
    assert not do(videos, output).todo


def test_a_changed_file_whose_old_content_lives_on_elsewhere(tmp_path: Path) -> None:
    videos, output = fill(tmp_path / "videos", a="11"), tmp_path / "out"
    do(videos, output)
    (videos / "a.mp4").rename(videos / "b.mp4")
    fill(videos, a="22")
    plan = do(videos, output)
    assert names(plan.todo) == ["a.mp4"] and [(old.file, task.name) for old, task in plan.moved] == [("a.mp4", "b.mp4")]
    assert {name: '"of": "11"' in text for name, text in told(output).items()} == {
        "a.mp4.jsonl": False,
        "b.mp4.jsonl": True,
    }


def test_a_second_folder_takes_no_records_from_the_first(tmp_path: Path) -> None:
    one, two, output = fill(tmp_path / "one", a="11", b="22"), fill(tmp_path / "two", a="33", c="22"), tmp_path / "out"
    do(one, output)
    before = told(output)
    plan = do(two, output)
    assert names(plan.todo) == ["a.mp4~2"] and plan.duplicates == {"c.mp4": "b.mp4"}
    assert before.items() <= told(output).items()
    assert not do(two, output).todo and not do(one, output).todo
    # The whole corpus somewhere else.
    one.rename(tmp_path / "three")
    assert not do(tmp_path / "three", output).todo


def test_records_that_somebody_removed_are_made_again(tmp_path: Path) -> None:
    videos, output = fill(tmp_path / "videos", a="1", b="22"), tmp_path / "out"
    do(videos, output)
    (output / "records" / "a.mp4.jsonl").unlink()
    assert names(plan_of(videos, output).todo) == ["a.mp4"]


def test_a_failure_is_believed_until_the_file_changes_or_one_asks(tmp_path: Path) -> None:
    videos, output = fill(tmp_path / "videos", a="1", b="22"), tmp_path / "out"
    with BatchFolder(output) as folder:
        plan = make_plan(find_corpus([videos]), folder)
        for task in plan.todo:
            folder.keep_failure(failed_of(task, Failure("SourceError", "no film", 3)))
        folder.write_manifest({})
    assert {entry.file for entry in plan_of(videos, output).failed} == {"a.mp4", "b.mp4"}
    fill(videos, a="more")
    assert names(plan_of(videos, output).todo) == ["a.mp4"]
    assert names(plan_of(videos, output, retry_failed=True).todo) == ["a.mp4", "b.mp4"]


def test_names_that_are_too_long_or_lead_outside_stay_in_the_folder(tmp_path: Path) -> None:
    with BatchFolder(tmp_path / "out") as folder:
        inside = folder.path / "records"
        assert folder.records_of("../../x.mp4") == inside / "_" / "_" / "x.mp4.jsonl"
        long = [folder.records_of("ü" * 120 + end) for end in ("a.mp4", "b.mp4")]
        assert long[0] != long[1] and all(len(os.fsencode(path.name)) < 230 for path in long)
        task = Task("ü" * 120 + "a.mp4", "x", 1, 1)
        folder.keep(task, Answer("d", "{}\n", 1, 1.0, ()))
        assert long[0].read_text() == "{}\n"


def test_a_full_disk_leaves_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos, output = fill(tmp_path / "videos", a="1"), tmp_path / "out"
    do(videos, output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}

    def full(self: Path, *args: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    with BatchFolder(output) as folder:
        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match="No space left on device"):
            folder.keep(Task("b.mp4", "b", 1, 1), Answer("d", "{}\n", 1, 1.0, ()))
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_a_manifest_of_another_kind_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "batch.json").write_text('{"kind": "mma-edge batch", "schema": 99}')
    with pytest.raises(OutputError, match="no manifest that this version reads"):
        BatchFolder(output)
    shutil.rmtree(output)
    output.write_text("a file")
    with pytest.raises(OutputError, match="is a file"):
        BatchFolder(output)
