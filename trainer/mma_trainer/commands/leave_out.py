"""mma-train leave-out: how well voices are read of a corpus, a language and people that were never trained on."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from rich.console import Console

from mma_edge.audio.logmel import NUM_MEL_FRAMES
from mma_edge.commands.support import run_cli, say
from mma_edge.errors import CheckpointError, DataError, UsageError
from mma_edge.files import to_json, write_text
from mma_edge.pipeline.neutral import NEUTRAL
from mma_edge.pipeline.usual import relative_in_turn
from mma_trainer.commands import train as cli
from mma_trainer.commands.data_options import LEAVABLE
from mma_trainer.commands.model_options import VOICE_TRAINING
from mma_trainer.commands.run_options import INCIDENTAL, job_args
from mma_trainer.data.augment.sound import place_mel
from mma_trainer.data.public.voices import CORPORA, load_corpus
from mma_trainer.data.public.waves import mel_rows
from mma_trainer.evaluation.calibration import cooled, expected_calibration_error, fit_temperature
from mma_trainer.evaluation.metrics import metrics_of
from mma_trainer.labels import DFEW_LABELS
from mma_trainer.model.inputs import prepare_mel
from mma_trainer.report.page import Page, Table, number, percent, to_markdown, to_rich
from mma_trainer.training.pretrain import EncoderClassifier
from mma_trainer.training.processes import Processes
from mma_trainer.training.state import LAST
from mma_trainer.training.sweeps.sweep import Job, Sweep
from mma_trainer.weights.checkpoint import read_checkpoint

SCHEMA = 2
EVAL_BATCH = 64
UARS = ("uar", "uar_among", "uar_usual", "war")
TITLE = "A corpus never trained on"
CAPTION = "percent; usual: relative to what is usual for each speaker; T: temperature fitted on the others, for its ECE"
EXAMPLES = """\
example:
  mma-train leave-out --data DATA --run runs/leave-out
trains the audio encoder once for each corpus of voices/, without it, and tests it on that corpus; the table and the
logits are in RUN. Repeat the command to go on: finished corpora are not trained again, a begun one goes on.
every other option is that of mma-train --dataset voices --model nano
"""


@dataclass(frozen=True, eq=False)
class LeftOut:
    """What a model said about all voices of the corpus that it was not trained on."""

    FILE: ClassVar[str] = "left_out.json"
    corpus: str
    labels: np.ndarray  # int64 (N,)
    logits: np.ndarray  # float64 (N, 7)
    speakers: np.ndarray  # str (N,)
    options: dict = field(default_factory=dict)

    def to_dict(self) -> dict:
        logits = [[round(float(value), 4) for value in row] for row in self.logits]
        plain = {"labels": self.labels.tolist(), "logits": logits, "speakers": self.speakers.tolist()}
        return {"schema": SCHEMA, "corpus": self.corpus, **plain, "options": self.options}

    @classmethod
    def read(cls, path: Path) -> LeftOut:
        """A `left_out.json`; DataError for anything else."""
        try:
            found = json.loads(path.read_text())
            if found["schema"] != SCHEMA:
                raise ValueError(f"schema {found['schema']!r}")
            labels, logits = np.array(found["labels"], np.int64), np.array(found["logits"], np.float64)
            speakers = np.array(found["speakers"], str)
            if logits.ndim != 2 or not len(logits) == len(labels) == len(speakers):
                raise ValueError("labels, logits and speakers do not fit")
            return cls(str(found["corpus"]), labels, logits, speakers, dict(found["options"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = f"{path} cannot be used ({error})"
            raise DataError(what, "what mma-train leave-out wrote", "delete it to repeat the corpus") from error

    @staticmethod
    def refusal(folder: Path, changed: dict) -> CheckpointError:
        return CheckpointError(
            f"{folder} was trained with another {', '.join(changed)}",
            "the same options as before",
            "repeat the first command, or start in another --run folder",
        )


def build_parser() -> argparse.ArgumentParser:
    """mma-train's own options, and which corpora."""
    parser = cli.run_parser()
    parser.prog, parser.description, parser.epilog = "mma-train leave-out", __doc__, EXAMPLES
    group = parser.add_argument_group("corpora left out")
    text = f"some of {', '.join(LEAVABLE)} (default: each in turn)"
    group.add_argument("--corpora", nargs="+", default=list(LEAVABLE), metavar="CORPUS", help=text)
    parser.set_defaults(run=Path("runs/leave-out"), dataset="voices", model="nano")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_cli(build_parser(), leave_out, argv, extra="train")


def leave_out(args: argparse.Namespace, console: Console) -> int:
    """Train without each corpus and test on it; exit code 0."""
    if args.dataset != "voices":
        raise UsageError(f"leave-out --dataset {args.dataset}", "--dataset voices", "corpora are of voices")
    if args.data is None:
        raise UsageError("leave-out without --data", "--data DIR", "see mma-train leave-out --help")
    if unknown := [name for name in args.corpora if name not in LEAVABLE]:
        raise UsageError(f"corpus {unknown[0]!r} left out", f"some of {', '.join(LEAVABLE)}")
    processes = Processes.from_environment()
    console = processes.console(console)
    values = {k: v for k, v in sorted(vars(args).items()) if k not in (*INCIDENTAL, "corpora", "leave_out", "command")}
    options = {k: v if isinstance(v, (int, float, bool, type(None))) else str(v) for k, v in values.items()}
    jobs = {corpus: Job(args.run / corpus, options) for corpus in dict.fromkeys(args.corpora)}
    sweep = Sweep(LeftOut, jobs.values(), resume=True, is_writer=processes.is_writer)
    for corpus, job in jobs.items():
        if not sweep.is_finished(job):
            say(console, f"without {corpus}, in {job.folder}")
            cli.train_one(job_args(args, job, 1, leave_out=[corpus]), console)
            sweep.keep(job, test(job, args.data, corpus) if processes.is_writer else None)
    if processes.is_writer:
        results = [sweep.results[job.folder] for job in jobs.values()]
        table = table_of(results)
        write_text(args.run / "leave_out.md", to_markdown(Page(TITLE, [table])))
        write_text(args.run / "leave_out.json", to_json(figures_of(results)))
        console.print(to_rich(table), highlight=False)
        say(console, f"table and runs in {args.run}")
    return 0


def test(job: Job, data: Path, corpus: str) -> LeftOut:
    """All voices of the corpus, as a file's log-mels, through the encoder that was trained without it."""
    found = read_checkpoint(job.folder / LAST)
    model = EncoderClassifier(found.config, "audio", **VOICE_TRAINING)
    model.load_state_dict(found.state_dict)
    model.eval()
    voices = load_corpus(data, corpus)
    logits = []
    with torch.inference_mode():
        for start in range(0, len(voices.waves), EVAL_BATCH):
            rows = [mel_rows(wave, voices.sample_rate_hz) for wave in voices.waves[start : start + EVAL_BATCH]]
            mels = [place_mel(torch.from_numpy(row), NUM_MEL_FRAMES, None) for row in rows]
            logits.append(model(prepare_mel(torch.stack(mels))))
    return LeftOut(corpus, voices.labels, torch.cat(logits).double().numpy(), voices.speakers, job.options)


def figures_of(results: list[LeftOut]) -> list[dict]:
    """Of each corpus: UAR over its classes (any class may be answered), the same among them alone and relative to what
    is usual for each speaker (as `mma-edge run --neutral auto`), WAR, and ECE.

    `temperature` is fitted on the voices of the other corpora, each as heard by a model that was not trained on it: no
    model and no temperature has met the voices that `ece` is about. It is None where there is no other corpus.
    """
    rows = []
    for result in results:
        metrics = metrics_of(result.labels, result.logits)
        others = [other for other in results if other is not result]
        temperature = _temperature(others) if others else None
        row = {"corpus": result.corpus, "language": CORPORA[result.corpus].language, "clips": metrics.num_clips}
        row |= {"classes": len(np.unique(result.labels))}
        row |= {"uar": metrics.uar, "uar_among": _uar_among(result)}
        row |= {"uar_usual": _uar_usual(result, temperature or 1.0), "war": metrics.war}
        row |= {"ece_raw": expected_calibration_error(cooled(result.logits, 1.0), result.labels)}
        row |= {"temperature": temperature, "ece": None}
        if temperature:
            row["ece"] = expected_calibration_error(cooled(result.logits, temperature), result.labels)
        rows.append(row)
    return rows


def _uar_among(result: LeftOut) -> float:
    """UAR of answers that are of the corpus's own classes: what a user gets who knows which can occur."""
    own = np.isin(np.arange(result.logits.shape[1]), result.labels)
    return metrics_of(result.labels, np.where(own, result.logits, -np.inf)).uar


def _uar_usual(result: LeftOut, temperature: float) -> float:
    """UAR of answers relative to earlier ones to the same speaker, the clips in an order by chance, always the same."""
    probabilities = cooled(result.logits, temperature).astype(np.float32)
    relative = relative_in_turn(probabilities, result.speakers, "audio", DFEW_LABELS.index(NEUTRAL))
    return metrics_of(result.labels, relative).uar


def _temperature(results: list[LeftOut]) -> float:
    return fit_temperature(*(np.concatenate([getattr(r, key) for r in results]) for key in ("logits", "labels")))


def table_of(results: list[LeftOut]) -> Table:
    rows = figures_of(results)
    mean = {key: float(np.mean([row[key] for row in rows])) for key in UARS}
    eces = [row["ece"] for row in rows if row["ece"] is not None]
    mean |= {"corpus": "mean", "language": "", "clips": sum(row["clips"] for row in rows), "classes": ""}
    mean |= {"temperature": None, "ece": float(np.mean(eces)) if eces else None}
    headings = ("left out", "clips", "classes", "UAR", "among its own", "usual", "WAR", "T", "ECE")
    cells = [
        (
            f"{row['corpus']} {row['language']}".strip(),
            *(str(row[key]) for key in ("clips", "classes")),
            *(percent(row[key]) for key in UARS),
            number(row["temperature"], 2),
            percent(row["ece"]),
        )
        for row in (*rows, mean)
    ]
    return Table(f"{TITLE} ({CAPTION})", headings, cells)
