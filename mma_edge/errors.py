"""Every error that a user can meet. Each says what happened, what was expected and what to do next.

The command line prints the message on one line and exits with `exit_code`; a program that uses the Python API catches
`MMAEdgeError` or one of its subclasses.
"""

from __future__ import annotations

import re

# How onnxruntime, OpenVINO, CUDA and the C++ library say that no memory is left.
_OUT_OF_MEMORY = re.compile(
    r"bad_alloc|bad allocation|alloc_failed|out of memory|outofmemory|(failed to|cannot) allocate memory", re.IGNORECASE
)


# Up to the last @ and the whole query: a password may itself hold an @, a slash or a quote. A login whose password is
# only the name of a variable, such as USER:${NAME}@, hides nothing. Of an address that was taken for a path one slash
# is left.
_LOGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:(?://|/(?!/)))(?!\w+:\$\{\w+\}@[^\s@]*(?:\s|$))\S*@")
_QUERY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:(?://|/(?!/))[^\s?]*)\?\S*")


def without_passwords(text: str) -> str:
    """The text with `***` for the login and the query of each address in it."""
    return _QUERY.sub(r"\1?***", _LOGIN.sub(r"\1***@", text))


class MMAEdgeError(Exception):
    """Base of all errors raised on purpose: what happened (with the offending value or path), what would have been
    right, and what the user can do next (a command where there is one). Passwords in addresses are hidden.
    """

    exit_code = 1

    def __init__(self, what: str, expected: str = "", hint: str = "") -> None:
        self.what, self.expected, self.hint = (without_passwords(part) for part in (what, expected, hint))
        parts = (self.what, self.expected and f"expected {self.expected}", self.hint)
        parts = [part.rstrip(".") for part in parts if part]
        # One line, even where a library's text has several: messages are grepped and logged.
        super().__init__(" ".join("; ".join(parts).split()) + ".")


class UsageError(MMAEdgeError):
    """The command line or an argument of the API is wrong (exit 2, as argparse does)."""

    exit_code = 2


class SourceError(MMAEdgeError):
    """A media file or a stream of the network is missing, empty, damaged, or has nothing to recognise."""

    exit_code = 3


class DeviceError(MMAEdgeError):
    """A camera or microphone does not exist, is busy, or stopped and did not come back."""

    exit_code = 4


class BundleError(MMAEdgeError):
    """A bundle is missing, was changed after export, or has another schema."""

    exit_code = 5


class BackendError(MMAEdgeError):
    """The requested backend or precision cannot run on this machine."""

    exit_code = 6


class OutputError(MMAEdgeError):
    """A record could not be written; everything written before it is kept."""

    exit_code = 7


class CheckpointError(MMAEdgeError):
    """The file is not a checkpoint, does not fit the model, or holds code."""

    exit_code = 8


class DataError(MMAEdgeError):
    """A training or evaluation set is missing, empty or inconsistent."""

    exit_code = 9


class ParityError(MMAEdgeError):
    """An exported graph does not compute what the model computes."""

    exit_code = 10


class DependencyError(MMAEdgeError):
    """A package that this task needs is not installed."""

    exit_code = 11


EXIT_INTERRUPTED = 130
"""Shell convention for a program ended by Ctrl-C."""
EXIT_CODES = {
    0: "done",
    1: "doctor: something does not work",
    UsageError.exit_code: "usage",
    SourceError.exit_code: "file or stream",
    DeviceError.exit_code: "camera or microphone",
    BundleError.exit_code: "bundle",
    BackendError.exit_code: "backend or memory",
    OutputError.exit_code: "output",
    CheckpointError.exit_code: "checkpoint",
    DataError.exit_code: "data set",
    ParityError.exit_code: "a graph or engine that computes something else",
    DependencyError.exit_code: "missing package",
    EXIT_INTERRUPTED: "interrupted",
    143: "ended by SIGTERM",
}
"""What every command of the project ends with."""


def exit_codes(*codes: int) -> str:
    """A paragraph of a command's help: those that it ends with. Done, usage and interrupted are every command's."""
    named = sorted({0, 2, EXIT_INTERRUPTED, *codes})
    return "exit codes: " + ", ".join(f"{code} {EXIT_CODES[code]}" for code in named)


def first_line(error: BaseException) -> str:
    """The first line of a library's exception, without the stack that may follow."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def out_of_memory(error: BaseException, what: str) -> MMAEdgeError | None:
    """The error to raise instead when `error` means that there is "not enough memory `what`"; None for others."""
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
        hint = "close other programs, use a smaller precision (--precision fp16 or int8) or model, or fewer clips"
        return BackendError(f"not enough memory {what}", hint=hint)
    return None
