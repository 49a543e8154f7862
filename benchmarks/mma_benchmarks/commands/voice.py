"""mma-bench voice: what the voice gate takes for speech."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from mma_benchmarks.commands.support import add_output, finish, results_folder, step_lines

HELP = "measure what --voice-gate takes for speech, and what listening costs"
EXAMPLES = """\
examples:
  mma-bench voice --data data

--data holds speech (ravdess_speech/Actor_NN/*.flac, voices/<corpus>/*) and noise (noise/<kind>_<number>.opus).
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the public data")
    limit = "files of each corpus and kind of noise, evenly spread"
    parser.add_argument("--limit", type=int, default=60, metavar="N", help=limit)
    add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.voice.measure import VoiceOptions, measure_voice

    options, folder = VoiceOptions(args.data, args.limit), results_folder(args.output)
    return finish(measure_voice(options, args.typed, step_lines(console)), folder, console)
