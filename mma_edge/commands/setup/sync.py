"""`mma-edge doctor --sync SOURCE`: how far sound and picture are apart, and what to do about it."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mma_edge.commands.support import say
from mma_edge.errors import SourceError, UsageError

if TYPE_CHECKING:
    from mma_edge.sources.sync.measure import Offset, Onsets

SYNC = """\
With --sync, measures how far sound and picture of a source are apart instead: play the film that --sync-film writes on
a telephone before camera and microphone (full screen, loud), or clap about once a second where the camera sees your
hands."""
_TRUSTED_MS = 60
"""Offsets that differ by more were paired by chance: in talk without a clap, by 109 to 821 ms."""
_NAMES = {"flash": ("flashes", "beep"), "clap": ("claps", "sound")}


def add_sync_options(add: Callable[..., object]) -> None:
    """Declare the options; `add` is the parser's `add_argument`."""
    add("--sync", metavar="SOURCE", help="measure sound minus picture of a source, as `mma-edge run` takes it")
    add("--microphone", metavar="NAME", help="with --sync: the microphone, as `mma-edge run` takes it")
    add("--seconds", type=float, metavar="S", help="with --sync: longest measurement (default: 30)")
    add("--remember", action="store_true", help="with --sync: let later runs with these devices correct it")
    add("--sync-film", type=Path, metavar="FILE.mp4", help="write a film of flashes and beeps, one minute long")


def run_sync(args: argparse.Namespace, console: Console) -> bool:
    """Do what the options ask for; False where they ask for nothing."""
    if args.sync_film:
        from mma_edge.sources.sync.film import write_film  # here: it needs PyAV, which may be missing

        write_film(args.sync_film)
        say(console, f"{args.sync_film}: play it on a telephone before camera and microphone")
    if args.sync:
        seconds = 30.0 if args.seconds is None else args.seconds
        if not 3 <= seconds <= 600:  # NaN fails too
            raise UsageError(f"--seconds {seconds:g}", "3 to 600 seconds", "flashes come every two seconds")
        _measure(console, args.sync, args.microphone, seconds, args.remember)
    elif args.remember or args.microphone or args.seconds is not None:
        raise UsageError("--remember, --microphone or --seconds without --sync", "them with --sync SOURCE")
    return bool(args.sync or args.sync_film)


def _measure(console: Console, spec: str, microphone: str | None, seconds: float, keep: bool) -> None:
    from mma_edge.sources import CaptureOptions, device_of, name_of, open_source
    from mma_edge.sources.sync.delay import MOST_DELAY_MS, RememberedDelay, remember
    from mma_edge.sources.sync.measure import watch

    shown, device = name_of(spec), device_of(spec, CaptureOptions(microphone=microphone))
    # Zero keeps what was remembered out of the measurement.
    capture = CaptureOptions(microphone=microphone, audio_delay_ms=None if device is None else 0)
    if keep and device is None:
        hint = "give --audio-delay-ms to each run instead"
        raise UsageError(f"--remember with {shown}", "a camera, or an address without a query", hint)
    with open_source(spec, lambda line: say(console, f"note: {line}"), capture=capture) as source:
        if not (source.has_audio and source.has_video):
            missing = "sound" if source.has_video else "picture"
            raise SourceError(f"{shown} has no {missing}", "a source with both: one is measured against the other")
        if source.live:
            say(console, f"play the film of flashes before camera and microphone, or clap: for {seconds:g} s at most")
        with console.status("looking and listening") as status:

            def count(onsets: Onsets) -> None:
                status.update(f"{len(onsets.flashes())} flashes, {len(onsets.sounds())} beeps or claps heard")

            onsets = watch(source, seconds, on_second=count)
    offset = onsets.offset()
    if offset is None:
        raise _nothing(onsets, shown)
    say(console, _found(offset, shown))
    if offset.spread_ms > _TRUSTED_MS:
        what = f"the {_NAMES[offset.kind][0]} of {shown} and what was heard do not belong together"
        hint = "let nothing else move or sound; mma-edge doctor --sync-film FILE.mp4 writes a film that is surer"
        raise SourceError(what, f"offsets that differ by less than {_TRUSTED_MS} ms", hint)
    say(console, _advice(offset))
    if keep:
        delay_ms = round(-offset.median_ms) if abs(offset.median_ms) > offset.uncertain_ms else 0
        delay_ms = max(-MOST_DELAY_MS, min(MOST_DELAY_MS, delay_ms))
        path = remember(device, RememberedDelay(delay_ms, datetime.date.today().isoformat()))
        say(console, f"remembered for {device}: --audio-delay-ms {delay_ms} (in {path})")


def _nothing(onsets: Onsets, shown: str) -> SourceError:
    """What was missing."""
    seen, heard = len(onsets.flashes()) or len(onsets.motions()), len(onsets.sounds())
    if not heard:
        what = f"no beep and no clap was heard from {shown}"
    elif not seen:
        what = f"no flash and no clap was seen in {shown}"
    else:
        what = f"too few flashes or claps of {shown} have their sound ({seen} seen, {heard} heard)"
    hint = "mma-edge doctor --sync-film FILE.mp4 writes the film: play it loud, its flashes large in the picture"
    return SourceError(what, "three flashes or five claps, each seen and heard", hint)


def _found(offset: Offset, shown: str) -> str:
    low_ms, high_ms = offset.quartiles_ms
    seen, heard = _NAMES[offset.kind]
    return (
        f"{shown}: {len(offset.each_ms)} {seen} with their {heard}; sound minus picture: median "
        f"{round(offset.median_ms):+d} ms, half of them from {round(low_ms):+d} to {round(high_ms):+d} ms, "
        f"sure to about {offset.uncertain_ms:.0f} ms"
    )


def _advice(offset: Offset) -> str:
    if abs(offset.median_ms) <= offset.uncertain_ms:
        text = "in step, as far as this can tell: nothing to do"
    else:
        word = "late" if offset.median_ms > 0 else "early"
        text = f"the sound is {word}: give --audio-delay-ms {round(-offset.median_ms)} to mma-edge run"
    if offset.kind == "clap":
        text += "; a clap is seen to a picture or two only, the film of --sync-film is surer"
    return text
