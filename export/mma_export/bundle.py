"""From a checkpoint to the folder of a bundle: all of it or nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mma_edge.bundle import Bundle, check_output, write_manifest
from mma_edge.bundle.manifest import AUDIO, FACE_CROP, SCHEMA_VERSION, graphs_of
from mma_edge.files import replaced_folders
from mma_edge.sources.file import videos_in
from mma_export.graph import OPSET, export_graph
from mma_export.parity import check_parity, reference_logits
from mma_export.precision.write import GateOptions, PrecisionWriter, effort_of
from mma_export.streaming.gate import PartsGate
from mma_export.streaming.parts import add_streaming
from mma_trainer.weights.checkpoint import Checkpoint, build_model
from mma_trainer.weights.start import ASSETS, DEFAULT_CHECKPOINT, TERMS, read_start, terms_of

GOLDEN_SEED = 0
GOLDEN_TOLERANCE = 1e-3
"""Of the load-time self-test. Other processors sum in another order; a wrong kernel is off by far more."""
DEFAULT_NAME = "mma-dfer-nano"


@dataclass(frozen=True)
class WeightsLicense:
    """Terms of the weights: their name for the manifest, and the text of the file LICENSE."""

    name: str
    text: str


@dataclass(frozen=True)
class Written:
    """A bundle on disk, and what is not in it.

    Attributes:
        refused: precisions that missed their gates -> the manifest's entry that they would have had.
    """

    bundle: Bundle
    refused: dict[str, dict]


UNSTATED = WeightsLicense(
    "unstated",
    "The terms of these weights were not stated at export.\n"
    "They follow those of the checkpoint and of the data it was trained on.\n",
)


def write_bundle(
    checkpoint: Checkpoint,
    source: Path,
    name: str,
    output: Path,
    precisions: str | Sequence[str],
    license_: WeightsLicense,
    extra_files: tuple[Path, ...] = (),
    overwrite: bool = False,
    report: Callable[[str], None] = print,
    gate: GateOptions | None = None,
    streaming: bool = False,
) -> Written:
    """Export, gate and write a bundle.

    It is made in a temporary folder beside `output` and moved there at the end: a graph unlike PyTorch's or a full disk
    leaves nothing behind, and an existing bundle stays until the new one is complete. A precision that misses its gate
    costs the others nothing: it is left out, unless `gate.keep_going`.

    Args:
        precisions: some of fp32, fp16, bf16, int8, fp8. The float32 graph is always written: the others are gated
            against it, here and again where an engine is built.
        gate: what the other precisions are calibrated and gated with; None: clips made of the sample.
        streaming: also write the graphs of `mma-edge run --streaming`.

    Raises:
        OutputError: `output` exists and is not to be overwritten, or cannot be written.
        ParityError: the float32 graph does not match PyTorch.
    """
    check_output(output, overwrite)
    model, gate, refused = build_model(checkpoint, source), gate or GateOptions(), {}
    with replaced_folders([output], output, "free disk space or choose another --output") as (work,):
        graph = work / "model.fp32.onnx"
        report(f"tracing at {model.config.image_size} px, opset {OPSET}")
        proto = export_graph(model, graph)
        report("comparing with PyTorch")
        entries = {"fp32": {"file": graph.name, "parity": check_parity(model, graph)}}
        golden = reference_logits(model, GOLDEN_SEED, 1)
        recipes, most = [], gate.count or effort_of(proto).gate_clips
        others = [precision for precision in _listed(precisions) if precision != "fp32"]
        if others:
            config = model.config
            writer = PrecisionWriter(proto, work, config.image_size, config.labels, (GOLDEN_SEED, golden), gate, report)
            found = {precision: writer.write(precision) for precision in others}
            refused = {} if gate.keep_going else {name: entry for name, entry in found.items() if "failed" in entry}
            for entry in refused.values():
                for file in graphs_of(entry):
                    (work / file).unlink()
            entries |= {name: entry for name, entry in found.items() if name not in refused}
            recipes = [recipe for name in others if name not in refused for recipe in writer.recipes.get(name, ())]
        (work / "LICENSE").write_text(license_.text)
        for path in extra_files:
            shutil.copyfile(path, work / path.name)
        manifest = _manifest(checkpoint, name, entries, license_, golden.tolist())
        if streaming:
            judged = PartsGate(videos_in(gate.clips) if gate.clips else ("sample",), most, gate.keep_going)
            manifest["streaming"] = add_streaming(model, work, graph, recipes, judged, report)
        report("hashing")
        manifest = write_manifest(work, manifest).manifest  # now with the hashes
    return Written(Bundle(output, manifest), refused)


def _listed(precisions: str | Sequence[str]) -> list[str]:
    return [precisions] if isinstance(precisions, str) else list(dict.fromkeys(precisions))


def _manifest(checkpoint: Checkpoint, name: str, entries: dict, license_: WeightsLicense, golden: list) -> dict:
    config = checkpoint.config
    recipe = checkpoint.provenance.get("recipe", {})
    provenance = {key: value for key, value in checkpoint.provenance.items() if key != TERMS}  # they have their file
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "labels": list(config.labels),
        "image_size": config.image_size,
        "num_frames": config.num_frames,
        "audio": AUDIO,
        "face_crop": FACE_CROP,
        "color": config.color,
        "missing_modality": {"trained": recipe.get("modality_dropout", 0) > 0},
        "temperature": checkpoint.provenance.get("calibration", {}).get("temperature", 1.0),
        "opset": OPSET,
        "precisions": entries,
        "license": {"name": license_.name, "file": "LICENSE"},
        "provenance": {**provenance, "exported_with": f"torch {torch.__version__}"},
        "golden": {"seed": GOLDEN_SEED, "logits": golden, "tolerance": GOLDEN_TOLERANCE},
    }


def license_of(checkpoint: Checkpoint, given: str | None = None) -> WeightsLicense:
    """The terms of a checkpoint's weights: the `given` ones, and those of the model that it was tuned from."""
    own = [WeightsLicense(given, f"Terms of these weights: {given}\n")] if given else []
    inherited = terms_of(checkpoint.provenance)
    terms = own + ([WeightsLicense(*inherited)] if inherited else [])
    return WeightsLicense("; ".join(t.name for t in terms), "\n".join(t.text for t in terms)) if terms else UNSTATED


def default_source() -> tuple[Path, WeightsLicense, tuple[Path, ...]]:
    """The default model: its checkpoint, the terms of its weights, and the files that go into its bundle."""
    return DEFAULT_CHECKPOINT, license_of(read_start(DEFAULT_CHECKPOINT)), (ASSETS / "MODEL_CARD.md",)
