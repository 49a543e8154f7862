"""A stand-in for NVIDIA's nvpmodel: a program in PATH that says one thing and takes `-q` alone."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest


def fake_nvpmodel(folder: Path, monkeypatch: pytest.MonkeyPatch, says: str, status: int = 0) -> None:
    """Put one first in PATH, below `folder`."""
    program = folder / "sbin" / "nvpmodel"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\n[ "$*" = -q ] || exit 9\necho {shlex.quote(says)}\nexit {status}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
