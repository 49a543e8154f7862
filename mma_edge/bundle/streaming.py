"""The parts of a model in a bundle, for `mma-edge run --streaming`: which there are, and for which engine.

The manifest's `streaming` has an entry per precision, and "int8-cpu" and "int8-tensorrt" for what onnxruntime's CPU and
TensorRT run instead of "int8". Bundles from before there was more than fp32 have the entry itself, with its
`precision`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mma_edge.errors import BundleError

STEM, MODES, SEEING = "stem", ("exact", "rolling"), "seeing"
OWN = ("cpu", "tensorrt")
"""Backends that may have an entry of their own in a precision, called as `own_entry` says."""


@dataclass(frozen=True)
class Parts:
    """What a mode needs, as files of the bundle.

    Attributes:
        mode: its name.
        stem, rest: names of the ONNX files.
        seeing: of the one that takes the place of `rest` while the sound's summary is kept, in mode rolling, or None.
        max_age_s: of a frame's summary, in mode rolling.
        sound_age_s: the same of the sound's; 0 without `seeing`.
        tolerance: allowed absolute difference of a logit from the golden output; None: the precision's own.
        failed: in words, which gate they failed, of a bundle that was exported all the same; else None.
    """

    mode: str
    stem: str
    rest: str
    seeing: str | None
    max_age_s: float
    sound_age_s: float
    tolerance: float | None
    failed: str | None

    @property
    def files(self) -> dict[str, str]:
        """Name of each part, as of the attributes -> its file."""
        named = {"stem": self.stem, "rest": self.rest, SEEING: self.seeing}
        return {name: file for name, file in named.items() if file is not None}


def entries_of(streaming: dict) -> dict[str, dict]:
    """Name of each entry -> the entry, of the manifest's `streaming` in either form."""
    if "precision" not in streaming:
        return streaming
    return {str(streaming["precision"]): {key: value for key, value in streaming.items() if key != "precision"}}


def own_entry(precision: str, backend: str) -> str:
    """Name of the entry for one backend alone."""
    return f"{precision}-{backend}"


def precision_of(name: str) -> str:
    """The precision of the entry of a name."""
    precision, _, backend = name.partition("-")
    return precision if not backend or backend in OWN else name


def find_parts(folder: Path, streaming: dict | None, backend: str, precision: str, mode: str) -> Parts:
    """The parts for a mode on an engine; BundleError, with the command that helps, where the bundle has none.

    Args:
        folder: of the bundle, for messages. streaming: of its manifest, None where it has none.
    """
    export = f"mma-export --streaming --precision {precision}"
    if streaming is None:
        hint = f"export it with {export}, or leave --streaming out"
        raise BundleError(f"bundle {folder} has no graphs for --streaming", "a bundle exported for it", hint)
    entries = entries_of(streaming)
    name = own if (own := own_entry(precision, backend)) in entries else precision
    if name not in entries:
        has = ", ".join(key for key in entries if key == precision_of(key))
        hint = f"export it with {export}, or add --precision {has.split(', ')[0]}"
        raise BundleError(f"bundle {folder} has graphs for --streaming in {has} only, not in {precision}", hint=hint)
    entry = entries[name][mode]
    if refused := entry.get("refused") or entry.get("failed_on", {}).get(backend):
        hint = "use exact" if mode == "rolling" else "use another --precision, or leave --streaming out"
        what = f"bundle {folder} does not offer --streaming {mode} in {precision} on {backend}: {refused}"
        raise BundleError(what, hint=hint)
    # OpenVINO rounds to bf16 itself, as it does with the whole graph.
    files = entries["fp32"] if (backend, precision) == ("openvino", "bf16") and "fp32" in entries else entries[name]
    file = files[mode].get("file", entry["file"])
    age_s, tolerance, failed = float(entry.get("max_age_s", "inf")), entry.get("tolerance"), entry.get("failed")
    sound = entry.get("sound", {})
    seeing, sound_age_s = files[mode].get("sound", {}).get("file"), float(sound.get("max_age_s", 0.0))
    if not sound_age_s or backend in sound.get("failed_on", {}):
        seeing = None
    return Parts(mode, files[STEM], file, seeing, age_s, sound_age_s if seeing else 0.0, tolerance, failed)
