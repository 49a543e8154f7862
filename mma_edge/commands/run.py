"""`mma-edge run`: its options, and what they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mma_edge.commands.publish import add_publish_options, followers_of
from mma_edge.commands.recognition import add_clip_options, add_model_options, notes_to, open_recognizer, stream_options
from mma_edge.commands.sources import SOURCE_EXAMPLES, add_source_options, capture_options
from mma_edge.errors import UsageError

if TYPE_CHECKING:
    from mma_edge.pipeline import StreamOptions
    from mma_edge.recognizer import Recognizer
    from mma_edge.sources.names import Spec

RUN_EXAMPLES = f"""\
examples:
{SOURCE_EXAMPLES}  mma-edge run camera:1 --window 3 --hop 0.25
  mma-edge run talk.mp4 --bundle bundles/dfew --backend cpu --output talk.csv
  mma-edge run camera --quiet --output out.jsonl --health 8080    as a service: docs/service.md
  mma-edge run camera --output - | jq .label      other programs: docs/outputs.md
  mma-edge run camera --mqtt 'mqtt://me:${{MQTT_PASSWORD}}@192.168.1.2'    a broker, Home Assistant
  mma-edge run camera --lsl                    the Lab Streaming Layer
  mma-edge run camera --streaming exact --hop 0.25
  mma-edge run camera --streaming auto --backend openvino
  mma-edge run camera --abstain-below 0.5      "uncertain" where no class is that probable
  mma-edge run camera --smooth 2               calmer answers, which come about 2 s later
  mma-edge run clip.mp4 --whole --voice-gate off  all sound for a voice, as the paper has it

A record holds: start and end in seconds of the source's own clock (PTS), number and box of the face, the modalities
that the clip has, the share of speech in its sound, the label, a probability per class, and the age in ms of the newest
frame or sound that was used, and the name of the source. Sound without speech is not used: such a clip is "video"
alone, and without a face too there is no record. With several faces it also holds how well the face's mouth moves with
the voice (speaking, 0 to 1): one that clearly speaks has the sound alone. With --smooth it holds the S.

exit codes: 0 done, 2 usage, 3 file or stream, 4 camera or microphone, 5 bundle, 6 backend, 7 output,
11 missing package, 130 interrupted; of several sources that of the first that failed
"""


def add_run_command(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    run = commands.add_parser("run", help="recognise emotions", description="Emotions of SOURCE.", epilog=RUN_EXAMPLES)
    run.set_defaults(command=run_command)
    add = run.add_argument
    add_source_options(add)
    add_model_options(add)
    add("--output", type=Path, metavar="FILE", help="write records to FILE.jsonl or FILE.csv, or with - to stdout")
    stats = "write every second what a live run does and how old its answers are to FILE (JSON Lines)"
    add("--stats", type=Path, metavar="FILE", help=stats)
    health = "answer GET /healthz there (200 while a source delivers, else 503), and GET /metrics for Prometheus"
    add("--health", metavar="[ADDRESS:]PORT", help=f"{health} (default address: 127.0.0.1)")
    add_publish_options(add)
    add("--overwrite", action="store_true", help="replace FILE if it exists")
    add_clip_options(add)
    add("--quiet", action="store_true", help="print notices and errors only")


def run_command(args: argparse.Namespace, console: Console) -> int:
    from mma_edge.commands.outputs import Outputs, followed, run_sources
    from mma_edge.live import check_together
    from mma_edge.outputs.prometheus import Metrics
    from mma_edge.service import allow_stack_dumps, health_address
    from mma_edge.sinks import STDOUT, record_sink_of
    from mma_edge.sources import named_sources

    options = stream_options(args, capture_options(args), notes_to(Console(stderr=True)))
    # Check the names first: a wrong one should not have to wait for the model.
    if args.output:
        record_sink_of(args.output)
    if args.output == Path(STDOUT):
        # Nothing else may be on stdout, and no live view that paints over what its reader shows in the same terminal.
        console = Console(stderr=True, force_terminal=False)
    sources = named_sources(args.sources)
    live = check_together(sources, options.capture)
    if args.stats and args.stats == args.output:
        raise UsageError(f"--stats and --output are both {args.stats}", "two files")
    for option in ("stats", "health", "lsl"):
        if getattr(args, option) and not live:
            what = f"--{option} with the file {next(iter(sources))}"
            raise UsageError(what, "a live source", "--realtime plays a file as one")
    health = health_address(args.health) if args.health else None
    publishers = followers_of(args)
    allow_stack_dumps()
    recognizer, options = open_recognizer(args, options)
    metrics = Metrics(publishers)
    options, followers = followed(options, [*publishers, *([metrics] if health else [])])
    outputs = Outputs(args.output, args.stats, health, args.overwrite, args.quiet, followers, metrics.text)
    return run_sources(recognizer, sources, options, outputs, title_of(sources, recognizer, options), console)


def title_of(sources: Mapping[str, Spec], recognizer: Recognizer, options: StreamOptions) -> str:
    """What runs, in one line."""
    title = f"{', '.join(sources)}  {recognizer.bundle.name} {recognizer.precision}  {recognizer.engine.details}"
    return f"{title}  streaming {options.streaming}" if options.streaming else title
