"""The processor: its name, and the instruction sets that decide which precision is worth it."""

from __future__ import annotations

import platform
from pathlib import Path

INSTRUCTION_SETS = (
    # x86: what onnxruntime's and OpenVINO's kernels choose by.
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_bf16", "amx_int8", "amx_fp16",
    # ARM: half precision, dot product, 8-bit matrix product, bfloat16, scalable vectors.
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
X86 = ("x86_64", "amd64")


def instruction_sets() -> tuple[str, ...]:
    """Those of INSTRUCTION_SETS that the kernel lists; () where it does not tell (not Linux)."""
    return parse_cpuinfo(read_text(Path("/proc/cpuinfo")))[1]


def cpu_model() -> str:
    """As the kernel states it, or the board's name where it does not (Jetson, Raspberry Pi)."""
    stated = parse_cpuinfo(read_text(Path("/proc/cpuinfo")))[0]
    board = read_text(Path("/proc/device-tree/model")).rstrip("\0 \n")
    return stated or board or platform.processor() or platform.machine() or "unknown processor"


def is_x86() -> bool:
    return platform.machine().lower() in X86


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """Model name ("" if not stated, as on ARM) and those of INSTRUCTION_SETS that /proc/cpuinfo lists."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return fields.get("model name", ""), tuple(name for name in INSTRUCTION_SETS if name in flags)


def read_text(path: Path) -> str:
    """What a file of the kernel says, "" where there is none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
