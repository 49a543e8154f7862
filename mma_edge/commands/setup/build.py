"""mma-edge build: TensorRT engines of a bundle, built on the device that will run them."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, TaskID

from mma_edge.commands.support import progress, say
from mma_edge.errors import BundleError, MMAEdgeError, exit_codes

if TYPE_CHECKING:
    from mma_edge.bundle import Bundle
    from mma_edge.child import Message, Tell
    from mma_edge.engines.tensorrt.plan import Plan
    from mma_edge.engines.tensorrt.target import BuildOptions, Target
    from mma_edge.types import Clip

BUILD_EXAMPLES = f"""\
examples:
  mma-edge build bundles/dfew                                the precision that suits this GPU best
  mma-edge build bundles/dfew --precision fp16 int8
  mma-edge build bundles/dfew --max-batch 8 --workspace 2048
  mma-edge build bundles/dfew --streaming auto               also the parts for mma-edge run --streaming auto
  mma-edge build bundles/dfew --inspect                      was attention fused? and trtexec's line
  mma-edge build bundles/dfew --unfused                      where a build says that it computes something else
  mma-edge run camera --bundle bundles/dfew --backend tensorrt

Needs TensorRT 10.3 or later and cuda-python (or pycuda), no torch. The engines lie in BUNDLE/engines/, work on this
device only, and are checked here against the bundle's fp32 graph before they are kept.

{exit_codes(5, 6, 7, 10, 11)}
"""


def add_build_command(commands: argparse._SubParsersAction) -> None:
    """The subcommand `build` of `mma-edge`."""
    description = "TensorRT engines of BUNDLE, for this very device."
    brief = "make TensorRT engines on this device"
    parser = commands.add_parser("build", help=brief, description=description, epilog=BUILD_EXAMPLES)
    parser.set_defaults(command=build_command)
    add = parser.add_argument
    add("bundle", nargs="?", type=Path, metavar="BUNDLE", help="its folder (default: the embedded one)")
    precisions = "some of fp32, fp16, bf16, int8, fp8 (default: the one of the bundle that suits this GPU best)"
    add("--precision", nargs="+", action="extend", metavar="P", help=precisions)
    add("--max-batch", type=int, default=4, metavar="N", help="clips that can run at once")
    add("--workspace", type=int, metavar="MIB", help="scratch memory of a kernel (default: 4096, on a Jetson 512)")
    add("--optimization-level", type=int, metavar="L", help="0 builds fast, 5 long (default: TensorRT's own)")
    streaming = "also the parts for mma-edge run --streaming: exact, rolling, or auto, the best that the bundle offers"
    add("--streaming", metavar="MODE", help=streaming)
    add("--unfused", action="store_true", help="keep TensorRT from fusing attention, which may be wrong: slower")
    add("--inspect", action="store_true", help="also tell what became of its layers, and the trtexec line of the same")
    add("--overwrite", "--force", action="store_true", help="build again even if a plan exists and fits")


def build_command(args: argparse.Namespace, console: Console) -> int:
    from mma_edge.bundle import read_bundle
    from mma_edge.engines.tensorrt import build
    from mma_edge.engines.tensorrt.layers import layers_of, trtexec_line
    from mma_edge.engines.tensorrt.target import BuildOptions, targets_of
    from mma_edge.streaming import check_mode

    if args.streaming:
        check_mode(args.streaming, auto=True)
    options = BuildOptions(args.max_batch, args.workspace, args.optimization_level, args.unfused)
    bundle = read_bundle(args.bundle)
    precisions = list(dict.fromkeys(args.precision or [build.choose_precision(bundle)]))
    for precision in precisions:
        bundle.require(precision)
    wanted = [targets_of(bundle, precision) for precision in precisions]
    for precision in precisions if args.streaming else ():
        mode = (best_mode(bundle, precision) or "exact") if args.streaming == "auto" else args.streaming
        bundle.parts("tensorrt", precision, mode)  # says what is wrong where it does not offer it
        wanted.append(targets_of(bundle, precision, mode))
    # Check all of them first: a wrong name should not have to wait for a build.
    for targets in wanted:
        build.require_buildable(targets, options)
    for targets in wanted:
        there = None if args.overwrite else build.existing_plans(targets, options)
        if there:
            for plan in there:
                say(console, f"{plan.path} exists and fits this device; --overwrite builds it again")
        else:
            paths = _build(targets, options, console)
            there = build.existing_plans(targets, options) or []
            for line in map(_summary, there) if there else map(str, paths):
                say(console, line)
        for plan in there if args.inspect else ():
            say(console, f"{layers_of(plan.target)}: {plan.target.layers}")
            say(console, trtexec_line(plan.target, plan.sidecar["builder"]))
    return 0


def build_if_possible(bundle: Bundle, precision: str, console: Console, mode: str | None = None) -> list[Path] | str:
    """For `mma-export`: the paths of the plans that TensorRT built, or why it could not."""
    from mma_edge.engines.tensorrt.target import BuildOptions, targets_of

    try:
        return _build(targets_of(bundle, precision, mode), BuildOptions(), console)
    except MMAEdgeError as error:
        return str(error)


def gate_clips(bundle: Bundle, mode: str | None = None) -> list[Clip]:
    """The clips that a new engine is judged on: those of the package's sample, in this bundle's image size."""
    from mma_edge.clip import GridClips, SlidingClips
    from mma_edge.engines.tensorrt.gate import HOP_S, STREAMING_HOP_S
    from mma_edge.pipeline import collect_clips

    hop_s, cut = (STREAMING_HOP_S, GridClips) if mode else (HOP_S, SlidingClips)
    return collect_clips("sample", bundle.image_size, hop_s, cut)


def _build(targets: Sequence[Target], options: BuildOptions, console: Console) -> list[Path]:
    from mma_edge.engines.tensorrt.build import build_plans

    bundle, mode = targets[0].bundle, targets[0].mode
    with progress(console) as bars:
        return build_plans(targets, lambda: gate_clips(bundle, mode), options, _bars_of(bars, targets[0]))


def best_mode(bundle: Bundle, precision: str) -> str | None:
    """Of `--streaming`: rolling where the bundle offers it for TensorRT in a precision, else exact, else None."""
    from mma_edge.bundle.streaming import MODES

    for mode in reversed(MODES):
        with contextlib.suppress(BundleError):
            if bundle.parts("tensorrt", precision, mode).failed is None:
                return mode
    return None


def _summary(plan: Plan) -> str:
    """A new plan in one line: size, check, speed."""
    gate = plan.sidecar["gate"]
    many, one = ("windows", "update of stem and rest") if plan.target.mode else ("clips", "clip")
    parts = [
        f"{plan.path}: {len(plan.data) / 1e6:.1f} MB, up to {plan.max_batch} {many} at once",
        f"checked on {gate['clips']} {many}: same class in {gate['top1_agreement']:.1%}, "
        f"largest difference of a logit {gate['max_difference']:.1e}",
    ]
    if gate["device_ms_per_clip"] is not None:
        parts.append(f"{gate['device_ms_per_clip']:.2f} ms per {one} on the GPU")
    return "; ".join(parts)


def _bars_of(bars: Progress, target: Target) -> Tell:
    """For `build_plans`: one bar for each phase that TensorRT reports; the bar disappears with its phase."""
    tasks: dict[str, TaskID] = {}
    what = " ".join(filter(None, (target.precision, target.mode)))

    def follow(message: Message) -> None:
        phase = message["phase"]
        if "step" in message:
            if phase in tasks:
                bars.update(tasks[phase], completed=message["step"])
            return
        # The phase begins or ends.
        if phase in tasks:
            bars.remove_task(tasks.pop(phase))
        if "steps" in message:
            tasks[phase] = bars.add_task(f"{what}  {phase}", total=max(1, message["steps"]))

    return follow
