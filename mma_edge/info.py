"""What `mma-edge info` prints."""

from __future__ import annotations

import json

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mma_edge.bundle import Bundle


def _temperature(temperatures: dict[str, float]) -> str:
    if len(set(temperatures.values())) == 1:
        return f"{temperatures['both']:g}"
    return f"{temperatures['both']:g} ({temperatures['video']:g} video only, {temperatures['audio']:g} audio only)"


def show_bundle(bundle: Bundle, console: Console) -> None:
    """The manifest of a checked bundle, for people."""
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
        size_mb = bundle.graph(precision).stat().st_size / 1e6
        parity = ", ".join(
            f"{key.replace('_', ' ')} {value:.1e}" if isinstance(value, float) else f"{key} {value}"
            for key, value in entry["parity"].items()
        )
        rows[precision] = f"{entry['file']}, {size_mb:.1f} MB, {parity}"
    rows["files"] = f"{len(manifest['files'])}, SHA-256 of each checked"
    for key, value in manifest["provenance"].items():
        rows[f"from: {key}"] = value if isinstance(value, str) else json.dumps(value)
    for key, value in rows.items():
        table.add_row(key, escape(value))
    console.print(table, highlight=False)
