"""`mma-edge run`: its options, and what they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mma_edge.commands.publish import add_publish_options, followers_of
from mma_edge.commands.recognition import (
    add_clip_options,
    add_model_options,
    add_neutral_option,
    notes_to,
    open_recognizer,
    stream_options,
)
from mma_edge.commands.serve import SERVE_EXAMPLES, add_page_options, check_page, open_page
from mma_edge.commands.session import add_session_options, check_session_options, session_followers
from mma_edge.commands.sources import SOURCE_EXAMPLES, SOURCE_HELP, add_source_options, capture_options
from mma_edge.commands.support import say
from mma_edge.errors import UsageError, exit_codes
from mma_edge.manual.parser import group

if TYPE_CHECKING:
    from mma_edge.pipeline import StreamOptions
    from mma_edge.recognizer import Recognizer
    from mma_edge.sources.names import Spec

RUN_EXAMPLES = f"""\
examples:
  mma-edge run sample                          the clip that comes with the package
  mma-edge run camera                          first camera and microphone, until Ctrl-C
  mma-edge run talk.mp4 --output talk.jsonl    a file, with its records
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
  mma-edge run camera --neutral ada.json       relative to a person at rest: mma-edge neutral
  mma-edge run camera --neutral auto           relative to what is usual for each person, learnt while running
  mma-edge run camera --session monday --blur-faces   a folder of records, video, marks: docs/sessions.md
  mma-edge run clip.mp4 --whole --voice-gate off  all sound for a voice, as the paper has it

A record holds: start and end in seconds of the source's own clock (PTS), number and box of the face, the modalities
that the clip has, the share of speech in its sound, the label, a probability per class, and the age in ms of the newest
frame or sound that was used, and the name of the source. Sound without speech is not used: such a clip is "video"
alone, and without a face too there is no record. With several faces it also holds how well the face's mouth moves with
the voice (speaking, 0 to 1): one that clearly speaks has the sound alone. With --smooth it holds the S.

{exit_codes(3, 4, 5, 6, 7, 11)}; of several sources that of the first that failed
"""


def add_run_command(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    run = commands.add_parser("run", help="recognise emotions", description="Emotions of SOURCE.", epilog=RUN_EXAMPLES)
    run.set_defaults(command=run_command)
    add = run.add_argument
    group(add, "source")("sources", nargs="+", metavar="SOURCE", help=SOURCE_HELP)
    _add_options(add)
    group(add, "output")("--quiet", action="store_true", help="print notices and errors only")
    add_page_options(group(add, "page"), served=False)


def add_serve_command(commands: argparse._SubParsersAction) -> None:
    """Declare the command that is `run` with a page, and without the view in the terminal."""
    description = "A page that shows the emotions of SOURCE, or of who opens it."
    serve = commands.add_parser("serve", help="show them on a page", description=description, epilog=SERVE_EXAMPLES)
    serve.set_defaults(command=run_command, quiet=True)
    add = serve.add_argument
    group(add, "source")("sources", nargs="*", default=["browser"], metavar="SOURCE", help=SOURCE_HELP)
    add_page_options(group(add, "page"), served=True)
    _add_options(add)


def _add_options(add: Callable[..., object]) -> None:
    """What a run on live sources or files can be told; `add` is the parser's `add_argument`."""
    add_source_options(add)
    add_model_options(add)
    add_clip_options(add)
    add_neutral_option(add)
    output = group(add, "output")
    output("--output", type=Path, metavar="FILE", help="write records to FILE.jsonl or FILE.csv, or with - to stdout")
    output("--overwrite", action="store_true", help="replace FILE if it exists")
    add_session_options(group(add, "session"))
    add_publish_options(group(add, "for other programs"))
    watching = group(add, "watching a live run")
    stats = "write every second what a live run does and how old its answers are to FILE (JSON Lines)"
    watching("--stats", type=Path, metavar="FILE", help=stats)
    health = "answer GET /healthz there (200 while a source delivers, else 503), and GET /metrics for Prometheus"
    watching("--health", metavar="[ADDRESS:]PORT", help=f"{health} (default address: 127.0.0.1)")


def run_command(args: argparse.Namespace, console: Console) -> int:
    from mma_edge.commands.outputs import Outputs, followed, run_sources
    from mma_edge.live import check_together
    from mma_edge.outputs.prometheus import Metrics
    from mma_edge.service import allow_stack_dumps, health_address, share_heaps
    from mma_edge.sinks import STDOUT, record_sink_of
    from mma_edge.sources import named_sources

    options = stream_options(args, capture_options(args), notes_to(Console(stderr=True)))
    place = check_page(args)
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
    check_session_options(args)
    health = health_address(args.health) if args.health else None
    publishers = followers_of(args)
    allow_stack_dumps()
    if live:
        share_heaps()  # before the engine's threads begin
    recognizer, options = open_recognizer(args, options)
    metrics = Metrics(publishers)
    pages, options = open_page(place, args.sessions, recognizer, options, publishers, metrics)
    recorders = session_followers(args, recognizer, options)
    for page, recorder in zip(pages, recorders, strict=False):
        page.sessions.adopt(recorder)
    # The last ends first: clients are told of the end before the page's server closes.
    more = [*pages, *recorders, *publishers, *([metrics] if health or pages else [])]
    options, followers = followed(options, more)
    outputs = Outputs(args.output, args.stats, health, args.overwrite, args.quiet, followers, metrics.text)
    code = run_sources(recognizer, sources, options, outputs, title_of(sources, recognizer, options), console)
    for recorder in recorders if not args.quiet else ():
        say(console, recorder.summary())
    return code


def title_of(sources: Mapping[str, Spec], recognizer: Recognizer, options: StreamOptions) -> str:
    """What runs, in one line."""
    from mma_edge.pipeline.neutral import relative_to

    title = f"{', '.join(sources)}  {recognizer.bundle.name} {recognizer.precision}  {recognizer.engine.details}"
    title += f"  streaming {options.streaming}" if options.streaming else ""
    return f"{title}  {relative_to(options.neutral)}" if options.neutral else title
