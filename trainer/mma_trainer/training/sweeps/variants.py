"""The paper's tables of variants: their rows, what each row changes, and how a table is kept and written.

Rows and the paper's parameter counts: Chumachenko et al., CVPRW 2024; its UAR and WAR: report/paper.py.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from mma_edge.errors import CheckpointError
from mma_edge.files import to_json
from mma_trainer.model import MMADFER, MMADFERConfig
from mma_trainer.report.page import number, percent
from mma_trainer.report.paper import ABLATIONS, OURS, PUBLISHED

SCORES = ("uar", "war", "clips")
_BEST = {
    name.upper(): row for name, rows in PUBLISHED.items() for row in rows if (row.method, row.resolution) == (OURS, 224)
}
PAPERS_BEST = (
    "the paper's rows: DFEW, fold 1 at 160 px; of the resolutions mean of 5 folds; its best, mean of 5 folds at 224: "
) + ", ".join(f"{name} UAR {row.uar:.2f} WAR {row.war:.2f}" for name, row in _BEST.items())


@dataclass(frozen=True)
class Variant:
    """A row."""

    name: str  # as the table prints it
    changes: dict[str, object]  # fields of the config; the rest is the base's
    paper_m: float | None = None  # trainable parameters that the paper prints for the row, in millions


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    `part`: prefixes of the parameters that its "temporal part" column counts, () for no such column; the paper's
    figures are then of that part, else of the whole model.
    """

    title: str
    rows: tuple[Variant, ...]
    paper: Mapping[str, tuple[float, float]]  # the paper's UAR and WAR, percent, by the row's name
    part: tuple[str, ...] = ()

    @property
    def varies(self) -> set[str]:
        """The config's fields that its rows set; the command line therefore may not set them."""
        return {key for row in self.rows for key in row.changes}


_THREE = {"prompts_per_update": 3}
_MULT = {"bottleneck_width": 128, "adaptor_heads": 2}
_PROBE = {"prompts": "none", "temporal": "mean", "trained": "classifier"}


def _component(name: str, prompts: str, fusion: str, temporal: str) -> Variant:
    return Variant(name, {"prompts": prompts, "fusion": fusion, "temporal": temporal})


TABLES = {
    "components": Table(
        "components",
        (
            _component("encoders alone", "none", "none", "mean"),
            _component("+ prompts", "static", "none", "mean"),
            _component("+ progressive prompts", "progressive", "none", "mean"),
            _component("+ MTT, no fusion", "progressive", "none", "mtt"),
            _component("fusion, no MTT", "progressive", "bottleneck", "mean"),
            _component("fusion and MTT, no prompts", "none", "bottleneck", "mtt"),
            _component("all", "progressive", "bottleneck", "mtt"),
        ),
        ABLATIONS["components"],
    ),
    "prompts": Table(
        "prompts",
        (
            Variant("none", {"prompts": "none"}),
            Variant("not updated", {"prompts": "static", "num_prompts": 6}),
            *(
                Variant(f"progressive, {n // 3} updates", {"prompts": "progressive", "num_prompts": n, **_THREE})
                for n in (6, 12, 18, 36)
            ),
        ),
        ABLATIONS["prompts"],
    ),
    "fusion": Table(
        "fusion",
        (
            Variant("none", {"fusion": "none"}),
            Variant("add", {"fusion": "add"}),
            Variant("mult", {"fusion": "mult", **_MULT}),
            Variant("mult-concat", {"fusion": "mult-concat", **_MULT}),
            *(
                Variant(f"bottleneck {width}", {"fusion": "bottleneck", "bottleneck_width": width}, paper_m)
                for width, paper_m in ((64, 5.9), (128, 7.5), (256, 12.3), (512, 21.7))
            ),
        ),
        ABLATIONS["fusion"],
    ),
    "temporal": Table(
        "temporal adaptation",
        (
            Variant("mean", {"temporal": "mean"}),
            Variant("MTT", {"temporal": "mtt"}, 2.2),
            *(
                Variant(f"ITA {width}", {"temporal": "ita", "ita_width": width}, paper_m)
                for width, paper_m in ((64, 1.3), (128, 0.8), (256, 4.3))
            ),
            Variant("MTT + ITA 128", {"temporal": "both", "ita_width": 128}, 2.9),
        ),
        ABLATIONS["temporal"],
        part=("temporal.", "adaptors."),
    ),
    "modality": Table(
        "modality",
        (
            Variant("audio only", {"modalities": "audio", **_PROBE}),
            Variant("vision only", {"modalities": "vision", **_PROBE}),
            Variant(OURS, {"modalities": "both", "prompts": "progressive", "temporal": "mtt", "trained": "adaptation"}),
        ),
        ABLATIONS["modality"],
    ),
    "resolution": Table(
        "resolution",
        tuple(Variant(f"{size}", {"image_size": size}) for size in (112, 160, 224)),
        ABLATIONS["resolution"],
    ),
}


@dataclass
class Row:
    """A variant on its base architecture, and its result once it is trained."""

    variant: Variant
    config: MMADFERConfig | None  # None where the variant does not fit the base architecture
    folder: Path  # of its run, or of the runs of its folds; rows of several tables that are the same model share it
    trainable: int = 0
    part: int = 0  # trainable parameters of the table's part of the model
    problem: str = ""  # why it does not fit
    paper: tuple[float, float] | None = None  # the paper's UAR and WAR, percent
    result: dict | None = None  # UAR and WAR (fractions, mean of the folds), clips and folds, once it is trained


@dataclass(frozen=True)
class RowResult:
    """A finished row on one fold; `scores`: UAR and WAR as fractions, and the number of clips."""

    FILE: ClassVar[str] = "result.json"
    variant: str
    trainable: int
    options: dict
    scores: dict

    def to_dict(self) -> dict:
        options = {"identity": self.options, "result": self.scores}
        return {"variant": self.variant, "trainable": self.trainable, **options}

    @classmethod
    def read(cls, path: Path) -> RowResult:
        """A `result.json`; CheckpointError for anything else."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            scores = {key: stored["result"][key] for key in SCORES}
            return cls(stored["variant"], stored["trainable"], dict(stored["identity"]), scores)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is not the result of a row ({error})", hint="delete its folder") from error

    @staticmethod
    def refusal(folder: Path, changed: dict) -> CheckpointError:
        words = "; ".join(f"{key} was {before}, is {now}" for key, (before, now) in changed.items())
        what = f"{folder} was run with other options: {words}"
        return CheckpointError(what, "those of before", "choose another --run")


def plan(table: Table, base: MMADFERConfig, folder: Path) -> list[Row]:
    """The rows of a table on a base architecture, with their parameter counts."""
    rows = []
    for variant in table.rows:
        paper = table.paper.get(variant.name)
        try:
            config = base.replace(**variant.changes)
            counts = count_trainable(config, table.part)
            rows.append(Row(variant, config, folder / folder_name(base, config), *counts, paper=paper))
        except CheckpointError as error:
            rows.append(Row(variant, None, folder, paper=paper, problem=error.what.removeprefix("model config: ")))
    return rows


def count_trainable(config: MMADFERConfig, part: tuple[str, ...] = ()) -> tuple[int, int]:
    """Number of trainable parameters, and of those whose names begin with one of `part`; no memory is allocated."""
    with torch.device("meta"):
        model = MMADFER(config)
    counts = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    return sum(counts.values()), sum(count for name, count in counts.items() if name.startswith(part))


def folder_name(base: MMADFERConfig, config: MMADFERConfig) -> str:
    """ "base", or what differs: "fusion=mult,adaptor_heads=4"; the same model has the same name in every table."""
    pairs = zip(base.to_dict().items(), config.to_dict().values(), strict=True)
    return ",".join(f"{key}={new}" for (key, old), new in pairs if old != new) or "base"


def mean_scores(results: list[dict]) -> dict:
    """Of the folds: mean UAR and WAR, all clips."""
    means = {key: sum(result[key] for result in results) / len(results) for key in ("uar", "war")}
    return {**means, "clips": sum(result["clips"] for result in results), "folds": len(results)}


def cells(table: Table, rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings and lines of a table in the paper's form: variant, parameters in millions, UAR and WAR in percent."""
    headings = ["variant", "trainable (M)", "temporal part (M)", "paper (M)", "UAR", "WAR", "paper UAR", "paper WAR"]
    shown = [True, True, bool(table.part), any(row.variant.paper_m is not None for row in rows), *[True] * 4]
    lines = []
    for row in rows:
        counts = [f"{count / 1e6:.2f}" if row.config else "does not fit" for count in (row.trainable, row.part)]
        scores = [percent(row.result[key] if row.result else None, 2) for key in ("uar", "war")]
        published = [number(value, 2) for value in row.paper or (None, None)]
        lines.append([row.variant.name, *counts, number(row.variant.paper_m, 1), *scores, *published])
    headings, *lines = (list(itertools.compress(line, shown)) for line in (headings, *lines))
    return headings, lines


def markdown(tables: dict[str, list[Row]]) -> str:
    """All tables as Markdown, with the reasons of the rows that do not fit."""
    text = []
    for name, rows in tables.items():
        headings, lines = cells(TABLES[name], rows)
        text += [f"## {TABLES[name].title}", "", "| " + " | ".join(headings) + " |"]
        text += ["| --- |" + " ---: |" * (len(headings) - 1)]
        text += ["| " + " | ".join(line) + " |" for line in lines]
        text += ["", *(f"{row.variant.name}: {row.problem}." for row in rows if row.problem), ""]
    return "\n".join([*text, f"({PAPERS_BEST})\n"])


def as_json(tables: dict[str, list[Row]], options: dict) -> str:
    """All tables as JSON; UAR and WAR are fractions, null where a row is not finished."""

    def plain(row: Row) -> dict:
        return {
            "variant": row.variant.name,
            "changes": row.variant.changes,
            "trainable": row.trainable or None,
            "part": row.part or None,
            "paper_m": row.variant.paper_m,
            "paper_percent": dict(zip(("uar", "war"), row.paper, strict=True)) if row.paper else None,
            "problem": row.problem or None,
            "folder": row.folder.name if row.config else None,
            **(row.result or dict.fromkeys((*SCORES, "folds"))),
        }

    return to_json({"options": options, "tables": {name: list(map(plain, rows)) for name, rows in tables.items()}})
