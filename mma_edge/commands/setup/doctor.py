"""`mma-edge doctor`: checks each part of the machine, whether it works, and says what to do."""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from mma_edge.commands.setup.sync import SYNC, add_sync_options, run_sync
from mma_edge.commands.support import say
from mma_edge.errors import UsageError, exit_codes
from mma_edge.manual.parser import group

if TYPE_CHECKING:
    from mma_edge.doctor.examine import Row

STYLES = {"ok": "green", "none": "yellow", "broken": "bold red"}
NARROW = 60
"""Columns of a terminal below which a row has its text below its name."""
DOCTOR = f"""\
Checks what this machine can run, feature by feature, and says what to install. Each camera and the microphone are
opened for a second. {SYNC}"""
EPILOG = f"""\
examples:
  mma-edge doctor
  mma-edge doctor --json > doctor.json         for a bug report: no passwords, ~ for your folder
  mma-edge doctor --no-devices                 leave cameras and microphone closed
  mma-edge doctor --sync-film flash.mp4        a film of flashes and beeps, to play before a camera
  mma-edge doctor --sync camera --remember

ok: it was tried and works. none: not there, and not needed for files on the CPU. broken: it is there, or every run
needs it, and it does not work.

{exit_codes(1, 3, 4, 7, 11)}
"""


def add_doctor_command(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    brief = "check what this machine can run, and what to install"
    doctor = commands.add_parser("doctor", help=brief, description=DOCTOR, epilog=EPILOG)
    doctor.set_defaults(command=doctor_command)
    doctor.add_argument("--json", action="store_true", help="print all findings as JSON")
    doctor.add_argument("--no-devices", action="store_true", help="do not open cameras and microphones")
    add_sync_options(group(doctor.add_argument, "sound and picture in step"))


def doctor_command(args: argparse.Namespace, console: Console) -> int:
    if (args.sync or args.sync_film) and (args.json or args.no_devices):
        raise UsageError("--json or --no-devices with --sync", "one or the other")
    if run_sync(args, console):
        return 0
    from mma_edge.doctor.examine import as_data, examine

    with Console(stderr=True).status("looking around; cameras and microphone are opened for a second"):
        rows = list(examine(devices=not args.no_devices))
    if args.json:
        print(json.dumps(as_data(rows), indent=1))
    else:
        show(rows, console)
    return 1 if any(row.finding.state == "broken" for row in rows) else 0


def show(rows: list[Row], console: Console) -> None:
    """One table of all groups, and what comes next."""
    column = max(len(row.part) for row in rows) + 2
    group = ""
    for row in rows:
        if row.group != group:
            console.print(Text(f"{row.group}" if not group else f"\n{row.group}", style="bold"))
            group = row.group
        _show_row(row, column, console)
    broken = [row.part for row in rows if row.finding.state == "broken"]
    console.print()
    if broken:
        say(console, f"does not work: {', '.join(broken)}", "bold red")
        return
    camera = next((row.part for row in rows if row.part.startswith("camera:")), None)
    say(console, f"ready: mma-edge run {camera or 'sample'}", "bold green")
    if camera:
        say(console, f"are its sound and picture in step? mma-edge doctor --sync {camera}")


def _show_row(row: Row, column: int, console: Console) -> None:
    finding = row.finding
    narrow = console.width < NARROW
    indent = 4 if narrow else 10 + column
    wrap = textwrap.TextWrapper(console.width - indent, break_on_hyphens=False)
    found = wrap.wrap(finding.found) or [""]
    wrap.initial_indent, wrap.subsequent_indent = "> ", "  "
    todo = wrap.wrap(finding.todo)
    name = row.part if narrow else f"{row.part:<{column}}{found.pop(0)}"
    console.print(Text.assemble((f"  {finding.state:<8}", STYLES[finding.state]), name), soft_wrap=True)
    for text in found:
        say(console, " " * indent + text)
    for text in todo:
        say(console, " " * indent + text, "" if finding.state == "broken" else "dim")
