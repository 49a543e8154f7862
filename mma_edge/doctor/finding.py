"""The result of one check of `mma-edge doctor`."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass

from mma_edge.errors import DependencyError, MMAEdgeError, first_line

OK, OPTIONAL, BROKEN = "ok", "none", "broken"


@dataclass(frozen=True)
class Finding:
    """State is OK, OPTIONAL (absent, and not needed for files on the CPU) or BROKEN (something there does not work)."""

    state: str
    found: str
    todo: str = ""


Check = Callable[[], Finding]


def result(check: Check) -> Finding:
    """What a check finds; one that fails unexpectedly is itself a finding, so that the others still run."""
    try:
        return check()
    except DependencyError as error:
        return Finding(OPTIONAL, error.what, error.hint)
    except MMAEdgeError as error:
        return Finding(BROKEN, error.what, error.hint)
    except ImportError as error:
        return not_importable(error)
    except Exception as error:
        return Finding(BROKEN, f"{type(error).__name__}: {error}", "report this, with mma-edge doctor --json")


def not_importable(error: ImportError) -> Finding:
    """Of a package that every installation has."""
    return Finding(BROKEN, f"{error.name} cannot be imported ({first_line(error)})", "install mma-edge again")


def version_of(distribution: str) -> str | None:
    """The version that is installed; None where it is not."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
