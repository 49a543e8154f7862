"""mma-train ablate: train the rows of the paper's tables and print them in the paper's form."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from pathlib import Path

from rich.console import Console

from mma_edge.commands.support import run_cli, say
from mma_edge.errors import DataError, UsageError
from mma_edge.files import write_text
from mma_trainer.commands import train as cli
from mma_trainer.commands.data_options import ALL_FOLDS, LISTS, RECIPES, num_folds, set_labels
from mma_trainer.commands.model_options import given_fields, make_config
from mma_trainer.commands.run_options import INCIDENTAL, job_args, make_recipe, open_device
from mma_trainer.model.config import REVISION
from mma_trainer.report.page import Table, to_rich
from mma_trainer.training.processes import Processes
from mma_trainer.training.state import MODEL
from mma_trainer.training.sweeps import variants
from mma_trainer.training.sweeps.sweep import Job, Sweep
from mma_trainer.training.sweeps.variants import TABLES, Row, RowResult
from mma_trainer.weights.checkpoint import read_checkpoint

EXAMPLES = """\
examples:
  what the tables would train, and how many parameters:
    mma-train ablate --table fusion temporal --image-size 160 --dry-run
  the table of fusions on annotation lists, one run folder per row under runs/ablate:
    mma-train ablate --table fusion --train-list DFEW_set_1_train.txt --val-list DFEW_set_1_test.txt \\
        --frames-root DFEW/clip_224x224 --audio-root DFEW/raw_wav \\
        --image-encoder mae_face_pretrain_vit_base.pth --audio-encoder audiomae_pretrained.pth
  every row on all five folds, and the means:
    mma-train ablate --table prompts --dataset dfew --fold all --image-encoder FILE --audio-encoder FILE
  go on after an interruption:
    repeat the command: finished rows are not run again, an interrupted one resumes
every other option is mma-train's and holds for every row
"""


def build_parser() -> argparse.ArgumentParser:
    """mma-train's own options, and which tables."""
    parser = cli.run_parser()
    parser.prog, parser.description, parser.epilog = "mma-train ablate", __doc__, EXAMPLES
    group = parser.add_argument_group("ablation")
    text = f"one or more of {', '.join(TABLES)}"
    group.add_argument("--table", nargs="+", choices=TABLES, required=True, metavar="T", help=text)
    group.add_argument("--dry-run", action="store_true", help="print the rows and their parameter counts only")
    parser.set_defaults(run=Path("runs/ablate"))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_cli(build_parser(), ablate, argv, extra="train")


def ablate(args: argparse.Namespace, console: Console) -> int:
    _check(args)
    set_labels(args)
    base = make_config(args)
    tables = {name: variants.plan(TABLES[name], base, args.run) for name in dict.fromkeys(args.table)}
    for row in (row for rows in tables.values() for row in rows if row.problem):
        say(console, f"{row.variant.name} does not fit this architecture: {row.problem}")
    if args.dry_run:
        _show(tables, console)
        return 0
    processes = Processes.from_environment()
    console = processes.console(console)
    rows = [row for rows in tables.values() for row in rows if row.config]
    folds = _folds(args)
    names = {fold: f"fold{fold}" if fold else "" for fold in folds}
    jobs = [[Job(row.folder / names[fold], _identity(args, fold) | _revision(row)) for fold in folds] for row in rows]
    sweep = Sweep(RowResult, itertools.chain.from_iterable(jobs), resume=True, is_writer=processes.is_writer)
    for number, (row, own) in enumerate(zip(rows, jobs, strict=True), 1):
        for fold, job in zip(folds, own, strict=True):
            if not sweep.is_finished(job):
                say(console, f"row {number}/{len(rows)}: {row.variant.name} in {job.folder}")
                settings = [*args.set, *(f"{key}={value}" for key, value in row.variant.changes.items())]
                cli.train(job_args(args, job, fold or args.fold, set=settings), console)
                sweep.keep(job, _result(row, job) if processes.is_writer else None)
        if processes.is_writer:
            row.result = variants.mean_scores([sweep.results[job.folder].scores for job in own])
            write_text(args.run / "ablation.md", variants.markdown(tables))
            write_text(args.run / "ablation.json", variants.as_json(tables, _identity(args, None)))
    _show(tables, console)
    say(console, f"tables and runs in {args.run}")
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.dataset in ("faces", "voices"):
        what = f"ablate --dataset {args.dataset}"
        raise UsageError(what, "a set of faces with voices", "the tables are of the whole model")
    if args.init:
        raise UsageError(
            "ablate --init",
            "--image-encoder and --audio-encoder",
            "the rows are different models: each is adapted anew from the same encoders",
        )
    for name in args.table:
        if taken := sorted(TABLES[name].varies & set(given_fields(args))):
            raise UsageError(f"{', '.join(taken)} set for table {name}", "options that the table does not vary")


def _folds(args: argparse.Namespace) -> list[int | None]:
    """The folds that each row is trained on; [None] for a data set without."""
    if args.dataset not in LISTS or args.dataset == "lists":
        return [None]
    return list(range(1, num_folds(args) + 1)) if args.fold == ALL_FOLDS else [args.fold]


def _identity(args: argparse.Namespace, fold: int | None) -> dict:
    """What a result depends on besides the row: the options that were given; where and how it ran apart."""
    recipe = dataclasses.asdict(make_recipe(args, RECIPES[args.dataset], open_device(args.device)))
    left_out = {*INCIDENTAL, *recipe, "table", "dry_run", "command", "half"}
    options = {k: v for k, v in vars(args).items() if k not in left_out and v not in (None, [], False)}
    options |= {} if fold is None else {"fold": fold}
    return {**json.loads(json.dumps(options, default=str)), **recipe}


def _revision(row: Row) -> dict:
    """Keeps results of a variant that was made otherwise before from being taken for today's."""
    return {"variants": REVISION} if row.config.revised else {}


def _result(row: Row, job: Job) -> RowResult:
    """Of a row that was trained just now, from the figures in its model."""
    path = job.folder / MODEL
    found = read_checkpoint(path).provenance.get("val")
    if found is None:
        raise DataError(f"{path} holds no validation figures", "those that mma-train writes")
    return RowResult(row.variant.name, row.trainable, job.options, {key: found[key] for key in variants.SCORES})


def _show(tables: dict[str, list[Row]], console: Console) -> None:
    for name, rows in tables.items():
        headings, lines = variants.cells(TABLES[name], rows)
        console.print(to_rich(Table(TABLES[name].title, tuple(headings), lines)), highlight=False)
    say(console, f"({variants.PAPERS_BEST})")
