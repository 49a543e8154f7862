"""Prints what a bundle holds, for `mma-edge info`."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mma_edge.bundle import Bundle
from mma_edge.bundle.streaming import MODES, entries_of
from mma_edge.engines.tensorrt.plan import usable
from mma_edge.engines.tensorrt.target import targets_of


def _temperature(temperatures: dict[str, float]) -> str:
    if len(set(temperatures.values())) == 1:
        return f"{temperatures['both']:g}"
    return f"{temperatures['both']:g} ({temperatures['video']:g} video only, {temperatures['audio']:g} audio only)"


def _precision(bundle: Bundle, precision: str, entry: dict) -> str:
    """Files with their sizes, the figures of the gate, and whether the gate failed."""
    own = (("on onnxruntime's CPU", bundle.cpu_graph(precision)), ("for TensorRT", bundle.tensorrt_graph(precision)))
    whole = bundle.graph(precision)
    files = [_sized(whole), *(f"{where} {_sized(path)}" for where, path in own if path != whole)]
    figures = [f"{key.replace('_', ' ')} {_figure(value)}" for key, value in entry["parity"].items()]
    failed = [f"FAILED its gate: {entry['failed']}"] if "failed" in entry else []
    failed += [f"FAILED its gate on {backend}: {reason}" for backend, reason in entry.get("failed_on", {}).items()]
    return "; ".join([", ".join(files), *failed, ", ".join(figures) or "no figures"])


def _sized(path: Path) -> str:
    return f"{path.name} ({path.stat().st_size / 1e6:.1f} MB)"


def _figure(value: object) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, float):
        return f"{value:.1e}" if abs(value) < 1e-2 else f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def streaming_lines(bundle: Bundle) -> list[str]:
    """Of each precision the modes of `mma-edge run --streaming` that the bundle has, how well rolling agrees, and how
    old its sound may be.
    """
    streaming = bundle.manifest.get("streaming")
    return [f"{name}: {_modes(entry)}" for name, entry in entries_of(streaming).items()] if streaming else []


def _modes(entry: dict) -> str:
    said = []
    for mode in MODES:
        part, text = entry[mode], mode
        if "refused" in part:
            text += f" was refused: {part['refused']}"
        elif "failed" in part:
            text += f" FAILED its gate: {part['failed']}"
        text += _agreement(part) if text == mode else ""
        sound = part.get("sound", {})
        if "max_age_s" in sound:
            text += f" with sound of up to {sound['max_age_s']:g} s ago{_agreement(sound)}"
        for what, judged in ((mode, part), (f"{mode} with older sound", sound)):
            text += "".join(
                f", {what} was refused on {name}: {why}" for name, why in judged.get("failed_on", {}).items()
            )
        said.append(text)
    return ", ".join(said)


def _agreement(judged: dict) -> str:
    for point in judged.get("curve", []):
        if point["max_age_s"] == judged.get("max_age_s"):
            return f" (same class in {point['top1_agreement']:.1%} of {point['windows']} windows)"
    return ""


def _engines(bundle: Bundle) -> str:
    """The bundle's TensorRT plans, and which of them may be loaded here."""
    said = []
    for mode in (None, *MODES):
        built = {name: targets_of(bundle, name, mode) for name in bundle.precisions}
        found = [name for name, targets in built.items() if any(target.plan.is_file() for target in targets)]
        here = usable(bundle, mode) if found else ()
        what = f" --streaming {mode}" if mode else ""
        said += [f"{name}{what} ({'for this device' if name in here else 'not for this device'})" for name in found]
    return ", ".join(said) or f"no engine built; on the device: mma-edge build {bundle.folder}"


def show_bundle(bundle: Bundle, console: Console) -> None:
    """Print the manifest of a checked bundle."""
    manifest = bundle.manifest
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows = {
        "model": bundle.name,
        "folder": str(bundle.folder),
        "labels": ", ".join(bundle.labels),
        "input": f"{manifest['num_frames']} frames of {bundle.image_size} x {bundle.image_size} px "
        f"({manifest['color']}), log-mel {manifest['audio']['num_mel_frames']} x {manifest['audio']['num_mel_bins']}",
        "faces": f"cut {manifest['face_crop']}",
        "missing modality": "trained for" if manifest["missing_modality"]["trained"] else "defined, not trained for",
        "temperature": _temperature(bundle.temperatures),
        "license": f"{manifest['license']['name']} (see {manifest['license']['file']})",
        "opset": str(manifest["opset"]),
    }
    for precision, entry in manifest["precisions"].items():
        rows[precision] = _precision(bundle, precision, entry)
    nothing = ["not in this bundle; export it with mma-export --streaming"]
    rows["streaming"] = "; ".join(streaming_lines(bundle) or nothing)
    rows["TensorRT"] = _engines(bundle)
    rows["files"] = f"{len(manifest['files'])}, SHA-256 of each checked"
    if bundle.notes:
        rows["note"] = "; ".join(bundle.notes)
    for key, value in manifest["provenance"].items():
        rows[f"from: {key}"] = value if isinstance(value, str) else json.dumps(value)
    for key, value in rows.items():
        table.add_row(key, escape(value))
    console.print(table, highlight=False)
