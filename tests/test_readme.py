"""What README, guides and model card say can be done: commands parse, imports work, links lead somewhere."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
from shown import PAGES, ROOT, commands, parses

from mma_edge.cli import main

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_ci_runs_the_readmes_test_command() -> None:
    command = next(line.strip() for line in README.splitlines() if ".venv-dev" in line)
    assert command.endswith("-m pytest")
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_parses(page: Path) -> None:
    assert [command for command in commands(page) if not parses(command)] == []


def test_a_command_that_does_not_parse_would_be_found() -> None:
    assert len(list(commands(ROOT / "README.md"))) > 10
    assert parses("mma-edge run sample")
    assert not parses("mma-edge run sample --bundel x")
    assert not parses("mma-train ablate --table bottleneck")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_import_that_is_shown_works(page: Path) -> None:
    for module, names in re.findall(r"^from (mma_\S+) import (.+)$", page.read_text(encoding="utf-8"), re.M):
        assert all(hasattr(importlib.import_module(module), name) for name in names.split(", ")), module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for path, _, anchor in (link.partition("#") for link in links if "://" not in link):
        target = page.parent / path if path else page
        assert target.exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_no_placeholder_is_left_in_the_readme() -> None:
    assert not re.findall(r"\{[A-Z_]+\}", README)


def test_the_record_that_is_shown_is_the_samples(tmp_path: Path) -> None:
    shown = json.loads(re.search(r"```json\n(.*?)```", README, re.S)[1])
    records = tmp_path / "records.jsonl"
    assert main(["run", "sample", "--backend", "cpu", "--quiet", "--output", str(records)]) == 0
    (found,) = [record for record in map(json.loads, records.open()) if record["end_s"] == shown["end_s"]]
    assert list(found) == list(shown)
    for key in ("start_s", "track_id", "modalities", "label"):
        assert found[key] == shown[key]
    # Another decoder moves the box by some pixels, see docs/desktop.md.
    assert found["box"] == pytest.approx(shown["box"], abs=3)
    assert found["voice"] == pytest.approx(shown["voice"], abs=0.01)
    assert found["probabilities"] == pytest.approx(shown["probabilities"], abs=0.005)
