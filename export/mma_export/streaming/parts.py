"""`mma-export --streaming`: the graphs of `mma-edge run --streaming` in every precision, each behind its gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch

from mma_edge.bundle import golden_inputs
from mma_edge.bundle.streaming import MODES, SEEING, STEM, own_entry
from mma_edge.engines.cpu import OnnxCpuEngine, OnnxCpuPart
from mma_edge.precisions import MIN_TOP1_AGREEMENT
from mma_edge.streaming import Roll, StreamingGraphs, golden_difference
from mma_export.graph import check_for_tensorrt, save_graph, trace_module
from mma_export.parity import check_batches
from mma_export.precision.parts import Convert, PartRecipe
from mma_export.precision.write import TOLERANCE_FACTOR
from mma_export.streaming.gate import PartsGate, Windows, least_agreement
from mma_export.weights import share_weights, store_half
from mma_trainer.model import MMADFER
from mma_trainer.model.streaming import FrameStem, Rolling, Seeing, Window, check_streamable, summary_width

BATCHES = (1, 2)
NEW = 3
"""Frames that come together, in the example inputs and in the checks."""


def add_streaming(
    model: MMADFER,
    work: Path,
    whole: Path,
    recipes: Sequence[PartRecipe] = (),
    gate: PartsGate | None = None,
    report: Callable[[str], None] = print,
) -> dict:
    """Write the parts of `model` into `work` and gate them.

    Args:
        model: as exported.
        work: folder in which the bundle is made.
        whole: the float32 graph in it. Like those of the recipes it is finished: the parts point into these files, so
            they must not change any more.
        recipes: of the other precisions.
        gate: what the parts are measured on, against full recomputation; None: the sample.
        report: called with the name of every step.

    Returns:
        The manifest's `streaming` object. Where a mode fails its gate, that says so, and the file is not there.

    Raises:
        CheckpointError: this variant of the model cannot be cut into parts.
        ParityError: the float32 parts do not compute what the whole graph computes, or TensorRT would refuse a part.
        DataError: none of the sources has a face.
    """
    check_streamable(model.config)
    model = model.eval()
    report("tracing the parts for streaming")
    protos = write_parts(model, work, whole)
    engine, size = OnnxCpuEngine(whole, "fp32"), model.config.image_size
    graphs = {mode: _open(*(work / part_file(part) for part in parts_of(mode))) for mode in MODES}
    parity = {mode: {"parity": _parity(mode, graphs[mode], engine, size)} for mode in MODES}
    report("comparing rolling with full recomputation, window by window")
    gate = gate or PartsGate()
    windows = Windows(engine, size, gate)
    verdicts = {"exact": {}, "rolling": windows.judge_rolling(graphs["rolling"], "fp32")}
    entries = {"fp32": _entry("fp32", {mode: parity[mode] | verdicts[mode] for mode in MODES}, work, gate, report)}
    golden = golden_inputs(0, size)
    for recipe in recipes:
        report(f"{recipe.name}: writing and comparing the parts for streaming")
        found = _convert(recipe, protos, work, windows, (*golden, engine(*golden)))
        entries[recipe.name] = _entry(recipe.name, found, work, gate, report)
    return entries


def parts_of(mode: str) -> tuple[str, ...]:
    """Names of the parts that a mode runs, in the order of `StreamingGraphs`."""
    return (STEM, mode, SEEING) if mode == "rolling" else (STEM, mode)


def part_file(part: str, name: str = "fp32") -> str:
    """Of the stem, of a mode's rest or of what runs in its place, by its entry in the manifest."""
    return f"streaming.{part}.onnx" if name == "fp32" else f"streaming.{part}.{name}.onnx"


def write_parts(model: MMADFER, work: Path, whole: Path) -> dict[str, onnx.ModelProto]:
    """Trace and save the four float32 graphs, which share their weights with `whole`; returns them with their own."""
    c = model.config
    frames, mel = (torch.from_numpy(array) for array in golden_inputs(0, c.image_size, clips=2))
    with torch.no_grad():
        tokens = FrameStem(model)(frames.flatten(0, 1))  # (32, T, W)
    rolled = {
        "owner": torch.tensor([0, 0, 1]),
        "past": torch.zeros(2, c.num_frames, summary_width(c)),
        "order": torch.arange(2 * c.num_frames).reshape(2, c.num_frames),
    }
    sizes = {"owner": "M", "past": "N", "order": "N"}
    parts = {
        STEM: (FrameStem(model), {"frames": frames[0]}, ("tokens",), {"frames": "M"}),
        "exact": (
            Window(model),
            {"tokens": tokens.unflatten(0, (2, c.num_frames)), "mel": mel},
            ("logits",),
            {"tokens": "N", "mel": "N"},
        ),
        "rolling": (
            Rolling(model),
            {"tokens": tokens[:NEW], **rolled, "mel": mel},
            ("logits", "summaries", "heard"),
            {"tokens": "M", **sizes, "mel": "N"},
        ),
        SEEING: (
            Seeing(model),
            {"frames": frames[0, :NEW], **rolled, "heard": rolled["past"][:, 0]},
            ("logits", "summaries", "tokens"),
            {"frames": "M", **sizes, "heard": "N"},
        ),
    }
    protos = {}
    for part, (module, inputs, outputs, dynamic) in parts.items():
        proto = protos[part] = trace_module(module, tuple(inputs.values()), tuple(inputs), outputs, dynamic)
        _write(proto, work / part_file(part), whole)
        check_for_tensorrt(work / part_file(part))
    return protos


def _write(proto: onnx.ModelProto, path: Path, whole: Path, half_storage: bool = True) -> None:
    """Save a graph whose weights are in the file of `whole`; `proto` is not changed."""
    stored = onnx.ModelProto()
    stored.CopyFrom(proto)
    if half_storage:
        store_half(stored)
    share_weights(stored, whole)
    save_graph(stored, path, half_storage=False)
    onnx.checker.check_model(str(path), full_check=True)


def _convert(
    recipe: PartRecipe,
    protos: dict[str, onnx.ModelProto],
    work: Path,
    windows: Windows,
    golden: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> dict[str, dict]:
    """Write the parts in a precision; returns what the manifest says of each mode, besides its file."""
    for part, proto in protos.items():
        path = work / part_file(part, recipe.name)
        _write(recipe.convert(proto), path, recipe.whole, recipe.half_storage)
        if recipe.name != own_entry(recipe.precision, "cpu"):
            check_for_tensorrt(path)

    def graphs_of(mode: str, judged: Convert | None) -> StreamingGraphs:
        if judged is None:
            # Optimising, onnxruntime moves a Transpose behind a QuantizeLinear, and has none for E4M3.
            paths = (work / part_file(part, recipe.name) for part in parts_of(mode))
            return _open(*paths, optimized=recipe.precision != "fp8")
        return _open(*(judged(protos[part]).SerializeToString() for part in parts_of(mode)))

    found = {}
    for mode in MODES:
        graphs = graphs_of(mode, recipe.judged)
        entry = (windows.judge_exact if mode == "exact" else windows.judge_rolling)(graphs, recipe.precision)
        differences = [golden_difference(graphs, mode, *golden)]
        if recipe.on_openvino is not None and "refused" not in entry:
            graphs = graphs_of(mode, recipe.on_openvino)
            differences.append(golden_difference(graphs, mode, *golden))
            precision, age_s = recipe.precision, entry.get("max_age_s", float("inf"))
            least = MIN_TOP1_AGREEMENT[precision] if mode == "exact" else least_agreement(precision)
            entry |= _failed_on_openvino(windows.figures(graphs, mode, age_s), least)
            sound = entry.get("sound", {})
            if "max_age_s" in sound:
                sound |= _failed_on_openvino(windows.figures(graphs, mode, age_s, sound["max_age_s"]), least)
        figures = {"max_abs_golden_difference": max(differences)}
        tolerance = max(TOLERANCE_FACTOR * max(differences), 1e-3)
        found[mode] = {**entry, "parity": entry.get("parity", {}) | figures, "tolerance": tolerance}
    return found


def _failed_on_openvino(figures: dict, least: float) -> dict[str, dict]:
    """What an entry says of windows that do not agree there."""
    if figures["top1_agreement"] >= least:
        return {}
    share = f"{figures['top1_agreement']:.1%} of {figures['windows']} windows agree"
    return {"failed_on": {"openvino": f"where it rounds to bf16, {share}, of {least:.1%} that are required"}}


def _entry(
    name: str, found: dict[str, dict], work: Path, gate: PartsGate, report: Callable[[str], None]
) -> dict[str, dict]:
    """The entry of a precision; the file of a mode that is refused is deleted."""
    for mode, entry in found.items():
        file = part_file(mode, name)
        if "refused" in entry and gate.keep_going:
            entry["failed"] = entry.pop("refused")
        if "refused" in entry:
            report(f"{name}: {mode} is refused: {entry['refused']}")
            (work / file).unlink()
        else:
            entry["file"] = file
    sound, file = found["rolling"].get("sound", {}), part_file(SEEING, name)
    if "max_age_s" in sound:
        sound["file"] = file
    else:
        (work / file).unlink()
        if sound:
            report(f"{name}: rolling computes the sound anew in each window: {sound['refused']}")
    return {STEM: part_file(STEM, name), **found}


def _open(*parts: Path | bytes, optimized: bool = True) -> StreamingGraphs:
    return StreamingGraphs(*(OnnxCpuPart(part, optimized) for part in parts))


def _parity(mode: str, graphs: StreamingGraphs, engine: OnnxCpuEngine, image_size: int) -> dict[str, float]:
    """Largest difference from the whole graph where nothing is old, as the manifest stores it."""

    def both(seed: int, clips: int) -> tuple[np.ndarray, np.ndarray]:
        frames, mel = golden_inputs(seed, image_size, clips)
        # In two calls, as a stream would: what is kept must not depend on what came with it.
        flat = frames.reshape(-1, *frames.shape[2:])
        tokens = np.concatenate([graphs.stem(flat[:NEW]), graphs.stem(flat[NEW:])])
        tokens = tokens.reshape(clips, -1, *tokens.shape[1:])
        logits = graphs.window(tokens, mel) if mode == "exact" else _roll_twice(graphs, frames, tokens, mel)
        return logits, np.tile(engine(frames, mel), (len(logits) // clips, 1))

    return check_batches(f"the parts for --streaming {mode} differ from the whole graph", BATCHES, both)


def _roll_twice(graphs: StreamingGraphs, frames: np.ndarray, tokens: np.ndarray, mel: np.ndarray) -> np.ndarray:
    """Logits (2 N, C) of windows of which all but the last NEW frames are summaries, computed with the same sound, and
    of the same windows with the sound as a summary, too.

    Every further clip has one new frame less, as faces of different ages have.
    """
    count = tokens.shape[1]
    nothing = np.zeros((count, graphs.summary_width), np.float32)
    every = [Roll(clip, nothing, np.arange(count), sound) for clip, sound in zip(tokens, mel, strict=True)]
    first, again = graphs.roll(every), []
    for number, (roll, rolled) in enumerate(zip(every, first, strict=True)):
        new = NEW - number
        order = np.concatenate([np.arange(new, count), np.arange(new)])
        again.append(Roll(roll.tokens[-new:], rolled.summaries, order, roll.mel))
    kept = [
        replace(roll, heard=rolled.heard, frames=clip[-len(roll.tokens) :])
        for roll, rolled, clip in zip(again, first, frames, strict=True)
    ]
    return np.stack([rolled.logits for rolls in (again, kept) for rolled in graphs.roll(rolls)])
