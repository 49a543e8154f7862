"""mma-export: a checkpoint becomes a bundle that mma-edge runs."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mma_edge.bundle import Bundle, check_output
from mma_edge.bundle.manifest import graphs_of
from mma_edge.commands.setup.info import streaming_lines
from mma_edge.commands.support import Parser, run_cli, say
from mma_edge.errors import ParityError, UsageError
from mma_edge.manual.completion import add_completion
from mma_edge.precisions import PRECISIONS

if TYPE_CHECKING:
    from mma_export.triton import TritonOptions

EXAMPLES = """\
examples:
  the default model:
    mma-export --precision fp32 --output bundles/nano
  for a GPU, and for a processor in 8 bits, judged on videos of your own:
    mma-export --precision fp16 int8 --clips videos --output bundles/nano
  a checkpoint of mma-train, or one that the MMA-DFER authors published:
    mma-export --checkpoint runs/dfew1/model.pt --output bundles/dfew1
    mma-export --checkpoint DFEW_set_1.pth --name mma-dfer-dfew --output bundles/dfew
  then:
    mma-edge info bundles/dfew
    mma-edge run sample --bundle bundles/dfew
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser("mma-export", description=__doc__, epilog=EXAMPLES)
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="ours or the authors' (default: the default model)"
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        default=["fp32"],
        metavar="P",
        help=f"some of {', '.join(PRECISIONS)}; fp32 is always written",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder to write the bundle to (default: bundles/NAME)"
    )
    parser.add_argument("--name", help="name of the model in the manifest (default: from the checkpoint's file name)")
    parser.add_argument(
        "--license", metavar="TEXT", help="terms of the weights, e.g. CC-BY-NC-4.0, beside those that they inherit"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    parser.add_argument(
        "--no-engine",
        action="store_true",
        help="build no TensorRT engine of fp16, bf16, int8 or fp8, even where this machine could",
    )
    parser.add_argument(
        "--streaming",
        action="store_true",
        help="also write the graphs that mma-edge run --streaming needs, in every precision",
    )
    gate = parser.add_argument_group("gate of fp16, bf16, int8 and fp8 (default: clips made of the sample)")
    gate.add_argument(
        "--clips",
        type=Path,
        metavar="DIR",
        help="your videos; in folders named after the classes they count as labelled",
    )
    gate.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of FER2013 and RAVDESS, as for mma-eval: clips with labels"
    )
    gate.add_argument("--gate-clips", type=int, metavar="N", help="clips to judge with (default: 200; large models 24)")
    gate.add_argument(
        "--softmax-half", action="store_true", help="Softmax in half precision, too (not int8 on OpenVINO and the CPU)"
    )
    text = "ONNX's own Attention in fp16: for onnxruntime-gpu of 2026, and TensorRT from 10.14 on"
    gate.add_argument("--fused-attention", action="store_true", help=text)
    gate.add_argument("--keep-going", action="store_true", help="write a precision that fails, and mark it")
    serving = parser.add_argument_group("NVIDIA Triton")
    serving.add_argument("--triton", type=Path, metavar="DIR", help="also write a model repository for a Triton server")
    serving.add_argument(
        "--triton-plan", action="store_true", help="TensorRT engines, built on this device, instead of ONNX"
    )
    serving.add_argument("--triton-batch", type=int, default=16, metavar="N", help="clips in one call of the engine")
    add_completion(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_cli(build_parser(), export, argv, extra="export")


def export(args: argparse.Namespace, console: Console) -> int:
    precisions = _checked(args)
    # torch takes seconds to import; wrong options should not have to wait for it.
    with console.status("loading torch"):
        from mma_export.bundle import DEFAULT_NAME, default_source, license_of, write_bundle
        from mma_export.precision.write import GateOptions
        from mma_trainer.weights.start import read_start

    source, extra = args.checkpoint, ()
    if source is None:
        source, _, extra = default_source()
    name = args.name or (DEFAULT_NAME if args.checkpoint is None else source.stem)
    output = args.output or Path("bundles") / name
    check_output(output, args.overwrite)
    serving = _check_triton(args)
    start = time.monotonic()
    with console.status("reading the checkpoint") as status:
        checkpoint = read_start(source)
        written = write_bundle(
            checkpoint,
            source,
            name,
            output,
            precisions,
            license_of(checkpoint, args.license),
            extra,
            overwrite=args.overwrite,
            report=status.update,
            gate=GateOptions(
                args.clips, args.data, args.gate_clips, args.keep_going, args.softmax_half, args.fused_attention
            ),
            streaming=args.streaming,
        )
    bundle, refused = written.bundle, written.refused
    say(console, f"{name}: {len(bundle.labels)} classes, {bundle.image_size} px")
    for precision in bundle.precisions:
        _print_precision(bundle, precision, console)
    for precision, entry in refused.items():
        say(console, f"  {precision}: not written")
        _print_entry(entry, console)
    for line in streaming_lines(bundle):
        say(console, f"  streaming {line}")
    if not args.no_engine:
        _build_engines(bundle, [name for name in bundle.precisions if name != "fp32"], console)
    took_s = time.monotonic() - start
    say(console, f"  written to {output} in {took_s:.0f} s; run it: mma-edge run sample --bundle {output}")
    if serving:
        _write_triton(bundle, args, serving, console)
    if refused:
        raise ParityError(
            "not in the bundle: " + "; ".join(f"{name}, {entry['failed']}" for name, entry in refused.items()),
            hint="judge with clips like those that it will get (--clips DIR), or have it written and marked "
            "(--keep-going); all else was written",
        )
    return 0


def _check_triton(args: argparse.Namespace) -> TritonOptions | None:
    """The options of the repository; wrong ones should not have to wait for the export."""
    if not args.triton:
        if args.triton_plan:
            raise UsageError("--triton-plan without --triton", "a folder for the repository", "add --triton DIR")
        return None
    from mma_export.triton import TritonOptions

    return TritonOptions(max_batch=args.triton_batch)


def _write_triton(bundle: Bundle, args: argparse.Namespace, options: TritonOptions, console: Console) -> None:
    from mma_export.triton import choose_precisions, write_repository

    if args.triton_plan:
        from mma_edge.commands.setup.build import gate_clips
        from mma_edge.engines.tensorrt.build import build_plans, existing_plans
        from mma_edge.engines.tensorrt.target import BuildOptions, targets_of

        built = BuildOptions(max_batch=options.max_batch)
        for precision in choose_precisions(bundle, None):
            targets = targets_of(bundle, precision)
            if existing_plans(targets, built) is None:
                build_plans(targets, lambda: gate_clips(bundle), built)
    folders = write_repository(bundle, args.triton, None, args.triton_plan, options, args.overwrite)
    for folder in folders:
        say(console, f"  Triton model {folder.name} in {args.triton}")


def _checked(args: argparse.Namespace) -> list[str]:
    """The precisions, with commas or spaces between them."""
    precisions = [name for text in args.precision for name in text.split(",") if name]
    if unknown := [name for name in precisions if name not in PRECISIONS]:
        raise UsageError(f"precision {unknown[0]}", f"some of {', '.join(PRECISIONS)}")
    if args.clips and args.data:
        raise UsageError("--clips and --data", "one of them")
    if args.gate_clips is not None and args.gate_clips < 1:
        raise UsageError(f"--gate-clips {args.gate_clips}", "at least 1")
    return precisions


def _build_engines(bundle: Bundle, precisions: list[str], console: Console) -> None:
    """TensorRT engines, where TensorRT is installed; the bundle is whole without them, so a failure is only a note.

    Also of the parts for streaming that the bundle offers, of the best mode.
    """
    from mma_edge.commands.setup.build import best_mode, build_if_possible

    reasons: dict[str, list[str]] = {}
    for precision in precisions:
        modes = [None] if "streaming" not in bundle.manifest else [None, best_mode(bundle, precision)]
        for mode in dict.fromkeys(modes):
            built = build_if_possible(bundle, precision, console, mode)
            name = f"{precision} --streaming {mode}" if mode else precision
            if isinstance(built, str):
                reasons.setdefault(built, []).append(name)
                break
            for path in built:
                say(console, f"  TensorRT engine {path}")
    for reason, names in reasons.items():
        say(console, f"  no TensorRT engine of {', '.join(names)}: {reason}")


def _print_precision(bundle: Bundle, precision: str, console: Console) -> None:
    entry = bundle.manifest["precisions"][precision]
    files = [bundle.folder / name for name in graphs_of(entry)]
    sizes = " + ".join(f"{file.stat().st_size / 1e6:.1f} MB" for file in files)
    say(console, f"  {precision}: {sizes}")
    _print_entry(entry, console)


def _print_entry(entry: dict, console: Console) -> None:
    """What the gate found: the figures, and the limits that were missed."""
    for key, value in entry["parity"].items():
        if value is not None:
            shown = f"{value:.3g}" if isinstance(value, float) else value
            say(console, f"    {key.replace('_', ' ')}: {shown}")
    if "failed" in entry:
        say(console, f"    FAILED: {entry['failed']}", style="red")
    for backend, reason in entry.get("failed_on", {}).items():
        say(console, f"    not on {backend} unless asked for by name: {reason}", style="yellow")
