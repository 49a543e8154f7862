"""mma-export: a checkpoint becomes a bundle that mma-edge runs."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console

from mma_edge.cli_support import HelpFormatter, run_cli
from mma_edge.errors import UsageError

PRECISIONS = ("fp32",)
KNOWN_PRECISIONS = ("fp32", "fp16", "bf16", "int8")

EXAMPLES = """\
examples:
  the default model:
    mma-export --precision fp32 --output bundles/nano
  a checkpoint of mma-train, or one that the MMA-DFER authors published:
    mma-export --checkpoint runs/dfew1/model.pt --output bundles/dfew1
    mma-export --checkpoint DFEW_set_1.pth --name mma-dfer-dfew --output bundles/dfew
  then:
    mma-edge info bundles/dfew
    mma-edge run sample --bundle bundles/dfew
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("mma-export", description=__doc__, epilog=EXAMPLES, formatter_class=HelpFormatter)
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="ours or the authors' (default: the default model)"
    )
    parser.add_argument("--precision", default="fp32", metavar="P", help=f"of the graph: {', '.join(PRECISIONS)}")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of the bundle (default: bundles/NAME)")
    parser.add_argument("--name", help="name of the model in the manifest (default: from the checkpoint's file name)")
    parser.add_argument("--license", metavar="TEXT", help="terms of the weights, e.g. CC-BY-NC-4.0")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_cli(build_parser(), export, argv, extra="export")


def export(args: argparse.Namespace, console: Console) -> int:
    if args.precision not in PRECISIONS:
        known = args.precision in KNOWN_PRECISIONS
        what = f"precision {args.precision}" + (" is not in this version" if known else "")
        raise UsageError(what, f"one of {', '.join(PRECISIONS)}")
    # torch takes seconds to import; wrong options should not have to wait for it.
    with console.status("loading torch"):
        from mma_export.default import DEFAULT_NAME, default_source
        from mma_export.write import UNSTATED, WeightsLicense, check_output, write_bundle
        from mma_trainer.checkpoint import read_checkpoint

    license_, extra, name = UNSTATED, (), args.name
    if args.checkpoint is None:
        source, license_, extra = default_source()
        name = name or DEFAULT_NAME
    else:
        source = args.checkpoint
        name = name or source.stem
    if args.license:
        license_ = WeightsLicense(args.license, f"Terms of these weights: {args.license}\n")
    output = args.output or Path("bundles") / name
    check_output(output, args.overwrite)
    start = time.monotonic()
    with console.status("reading the checkpoint") as status:
        checkpoint = read_checkpoint(source)
        bundle = write_bundle(
            checkpoint, source, name, output, args.precision, license_, extra, args.overwrite, status.update
        )
    figures = bundle.manifest["precisions"][args.precision]["parity"]
    graph = bundle.graph(args.precision)
    size_mb = graph.stat().st_size / 1e6
    console.print(f"{name} {args.precision}: {size_mb:.1f} MB, {len(bundle.labels)} classes, {bundle.image_size} px")
    for key, value in figures.items():
        console.print(f"  {key.replace('_', ' ')}: {value:.2e}")
    console.print(
        f"  written to {output} in {time.monotonic() - start:.0f} s; run it: mma-edge run sample --bundle {output}",
        soft_wrap=True,
    )
    return 0
