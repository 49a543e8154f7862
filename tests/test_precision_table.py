"""What runs where: the guide's table is the code's, and the code keeps to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mma_edge.errors import BackendError
from mma_edge.precisions import BACKENDS, BY_NAME, PRECISIONS, TABLE, Refused, Runs, preferred, require

GUIDE = Path(__file__).parents[1] / "docs" / "precision.md"
PLACES = {1: "1st", 2: "2nd", 3: "3rd"}


def shown(backend: str, precision: str) -> str:
    cell = TABLE[backend][precision]
    if isinstance(cell, Refused):
        return "no"
    return "by name" if precision in BY_NAME else PLACES[cell.rank]


def test_the_guide_shows_the_table() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in GUIDE.read_text().splitlines()]
    at = rows.index(["backend", *PRECISIONS])
    assert rows[at + 2 : at + 2 + len(BACKENDS)] == [[b, *(shown(b, p) for p in PRECISIONS)] for b in BACKENDS]


def test_every_cell_is_filled_and_ranks_have_no_gaps() -> None:
    for backend in BACKENDS:
        assert list(TABLE[backend]) == list(PRECISIONS)
        ranks = sorted(cell.rank for cell in TABLE[backend].values() if isinstance(cell, Runs))
        assert ranks == list(range(1, len(preferred(backend)) + 1))
        assert preferred(backend)[0] not in BY_NAME


def test_a_precision_that_a_backend_lacks_is_refused_with_its_reason() -> None:
    with pytest.raises(BackendError, match=r"no bf16 kernels for the CPU; expected one of fp32, fp16, int8; use"):
        require("cpu", "bf16")
