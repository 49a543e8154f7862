"""The options of every command that recognises emotions: which model, on what, and how a source becomes clips."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mma_edge.commands.support import say
from mma_edge.manual.parser import group

if TYPE_CHECKING:
    from mma_edge.pipeline import StreamOptions
    from mma_edge.recognizer import Recognizer
    from mma_edge.types import Notify


def add_model_options(add: Callable[..., object]) -> None:
    """Declare which model runs on what; `add` is the parser's `add_argument`."""
    add = group(add, "model")
    add("--bundle", type=Path, metavar="DIR", help="model to run (default: the embedded one)")
    add("--backend", default="auto", metavar="B", help="auto, tensorrt, cuda, openvino or cpu")
    add("--precision", metavar="P", help="one of the bundle's (default: the backend's best)")


def add_clip_options(add: Callable[..., object]) -> None:
    """Declare how a source is cut into clips and what is said of them; `add` is the parser's `add_argument`."""
    add = group(add, "clips")
    add("--whole", action="store_true", help="one clip for the whole file and each face (the paper's protocol)")
    add("--window", type=float, default=4.0, metavar="S", help="length of a clip in seconds")
    add("--hop", type=float, default=0.5, metavar="S", help="seconds between two answers")
    streaming = "do the work that overlapping clips share only once: exactly, or with the old results of old frames"
    add("--streaming", metavar="exact|rolling|auto", help=f"{streaming}; auto: the best that the bundle offers")
    sound = (
        "in mode rolling, how old the sound of a clear answer may be; 0: none of it is (default: as the bundle says)"
    )
    add("--sound-age", metavar="S", help=sound)
    gate = "share of speech below which a clip has no sound, from 0 to 1; off takes all sound for a voice"
    add("--voice-gate", default="0.1", metavar="SHARE|off", help=gate)
    abstain = 'label an answer "uncertain" where the most probable class is less probable than P'
    add("--abstain-below", metavar="P", help=abstain)
    smooth = "average each face's probabilities over S seconds; they come S seconds later (default: not at all)"
    add("--smooth", metavar="S", help=smooth)
    add("--no-audio", action="store_true", help="do not use the sound or the microphone")
    centre = "where no face is found, use the centre of the picture, as the MMA-DFER authors do"
    add("--centre-fallback", action="store_true", help=centre)
    nvdec = "decode a file's pictures on an NVIDIA GPU (not tried on one yet); without one the processor does it"
    add("--nvdec", action="store_true", help=nvdec)


def add_neutral_option(add: Callable[..., object]) -> None:
    """Declare what answers are relative to; `add` is the parser's `add_argument`."""
    text = (
        "answers relative to what the model says of this person at rest, a file of mma-edge neutral; auto: to what it "
        "says of each person on the whole, learnt while running"
    )
    group(add, "clips")("--neutral", metavar="FILE|auto", help=text)


def notes_to(console: Console) -> Notify:
    """Prints notices, each on its line."""
    return lambda line: say(console, f"note: {line}")


def stream_options(args: argparse.Namespace, capture: object, notify: Notify) -> StreamOptions:
    """What a command line asks for; UsageError where it does not fit together."""
    from mma_edge.errors import UsageError
    from mma_edge.pipeline import StreamOptions
    from mma_edge.pipeline.neutral import neutral_from
    from mma_edge.streaming import check_mode

    if args.streaming:
        check_mode(args.streaming, auto=True)
    if args.sound_age and args.streaming not in ("rolling", "auto"):
        hint = "add --streaming rolling or auto, or leave --sound-age out"
        raise UsageError(f"--sound-age {args.sound_age} without --streaming rolling", hint=hint)
    return StreamOptions(
        window_s=args.window,
        hop_s=args.hop,
        whole=args.whole,
        centre_fallback=args.centre_fallback,
        audio=not args.no_audio,
        streaming="rolling" if args.streaming == "auto" else args.streaming,
        sound_age_s=_number(args.sound_age),
        voice_gate=None if args.voice_gate == "off" else _number(args.voice_gate),
        abstain_below=_number(args.abstain_below),
        smooth_s=_number(args.smooth),
        neutral=neutral_from(getattr(args, "neutral", None)),
        nvdec=args.nvdec,
        capture=capture,
        notify=notify,
    )


def open_recognizer(args: argparse.Namespace, options: StreamOptions) -> tuple[Recognizer, StreamOptions]:
    """The model, whose notes are said, and the options with the streaming that it offers."""
    from mma_edge.pipeline.neutral import check_neutral
    from mma_edge.recognizer import Recognizer
    from mma_edge.streaming import choose_mode

    recognizer = Recognizer.open(args.bundle, args.backend, args.precision, args.streaming)
    check_neutral(options.neutral, recognizer.bundle)
    options = dataclasses.replace(options, streaming=choose_mode(recognizer, args.streaming, options.notify))
    for note in recognizer.notes:
        options.notify(note)
    return recognizer, options


def _number(text: str | None) -> float | str | None:
    """The number that a text says; any other text as it is, for `StreamOptions` to say what was expected."""
    try:
        return text and float(text)
    except ValueError:
        return text
