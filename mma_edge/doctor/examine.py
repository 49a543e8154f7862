"""All checks of `mma-edge doctor`, in groups, and their report as data."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mma_edge import __version__
from mma_edge.doctor.devices import camera_checks, microphone_check
from mma_edge.doctor.engines import ENGINES
from mma_edge.doctor.features import FEATURES, PACKAGES, look
from mma_edge.doctor.finding import BROKEN, OPTIONAL, Check, Finding, not_importable, result, version_of
from mma_edge.doctor.machine import MACHINE, NEEDED
from mma_edge.errors import without_passwords


@dataclass(frozen=True)
class Row:
    """A check and what it found."""

    group: str
    part: str
    finding: Finding


def examine(devices: bool = True) -> Iterator[Row]:
    """Every check, one after the other; without `devices` no camera or microphone is opened.

    What is found may be published: no passwords, and ~ for the user's folder.
    """
    # The trials of devices take seconds: they go on while the rest is looked at.
    seen: dict[str, Check] = {"microphone": microphone_check(devices)}
    try:
        seen = {**camera_checks(devices), **seen}
    except ImportError as error:
        seen = {"camera": partial(not_importable, error), **seen}
    groups: dict[str, dict[str, Check]] = {
        "this machine": MACHINE,
        "every run needs": NEEDED,
        "engines": ENGINES,
        "devices": seen,
        "features": {name: partial(look, feature) for name, feature in FEATURES.items()},
    }
    for group, checks in groups.items():
        for part, check in checks.items():
            finding = result(check)
            state = BROKEN if checks is NEEDED and finding.state == OPTIONAL else finding.state
            yield Row(group, part, Finding(state, private(finding.found), private(finding.todo)))


def as_data(rows: list[Row]) -> dict[str, Any]:
    """For bug reports."""
    return {
        "mma_edge": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "prefix": private(sys.prefix),
        "packages": {name: version for name in PACKAGES if (version := version_of(name))},
        "findings": [
            {
                "group": row.group,
                "part": row.part,
                "state": row.finding.state,
                "found": row.finding.found,
                "todo": row.finding.todo,
            }
            for row in rows
        ],
    }


def private(text: str) -> str:
    """The text as it may be published."""
    return without_passwords(re.sub(rf"{re.escape(str(Path.home()))}(?![\w.-])", "~", text))
