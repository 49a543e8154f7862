"""TensorRT's own words, kept so that an error can say why."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorrt as trt

KEPT_LINES = 20


def make_logger(trt) -> trt.ILogger:
    """A logger that keeps the last errors and prints nothing.

    Its `because()` is ": <the last error>" or "", for the end of a message.
    """

    class KeepingLogger(trt.ILogger):
        # Defined here because the base class exists only where TensorRT is installed.
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=KEPT_LINES)
            self._lock = threading.Lock()

        def log(self, severity, msg) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                with self._lock:  # TensorRT logs from threads of its own
                    self._errors.append(" ".join(str(msg).split()))

        def because(self) -> str:
            # The first of a chain says most: those after it are its consequences.
            return f": {self._errors[0][:300]}" if self._errors else ""

    return KeepingLogger()
