"""A file is there whole or as it was before, and what went wrong is one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mma_edge.errors import OutputError
from mma_edge.files import make_folder, replaced, to_json, write_text


def test_a_block_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replaced(path) as aside:
        aside.write_text("half")
        assert path.read_text() == "old"
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with replaced(path) as aside:
        aside.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_what_is_not_a_file_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with replaced(pipe) as aside:
            aside.write_text("text")
        assert os.read(reader, 10) == b"text"
    finally:
        os.close(reader)
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "text")
    assert (tmp_path / "new" / "a.txt").read_text() == "text"
    in_a_file = tmp_path / "new" / "a.txt" / "folder"
    for write in (lambda: write_text(in_a_file / "b.txt", ""), lambda: make_folder(in_a_file)):
        with pytest.raises(OutputError, match="cannot write"):
            write()


def test_json_never_holds_nan() -> None:
    assert to_json({"path": Path("a")}) == '{\n "path": "a"\n}\n'
    with pytest.raises(ValueError):
        to_json(float("nan"))
