"""The README's commands are the ones that are tested."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_readmes_test_command() -> None:
    command = next(line.strip() for line in README.splitlines() if ".venv-dev" in line)
    assert command.endswith("-m pytest")
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_every_command_in_the_readme_exists() -> None:
    scripts = re.search(r"\[project.scripts\](.*?)\n\n", (ROOT / "pyproject.toml").read_text(), re.S)[1]
    for command in set(re.findall(r"^    (?:\.venv/bin/)?(mma-[a-z]+)", README, re.M)):
        assert f"{command} = " in scripts


def test_every_file_that_the_readme_links_to_exists() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_no_placeholder_is_left_in_the_readme() -> None:
    assert not re.findall(r"\{[A-Z_]+\}", README)
