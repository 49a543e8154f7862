"""A page as a list of blocks: HTML that needs nothing else (light and dark), Markdown, tables on the console."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable

STYLE = """\
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --paper: #fff; --panel: #f6f8fa; --line: #dfe4e9;
  --blue: 47, 111, 183; --note: #fff8e1; --note-edge: #d9a400; }
@media (prefers-color-scheme: dark) { :root { --ink: #dde3ea; --soft: #9aa5b1; --paper: #14181d; --panel: #1c2229;
  --line: #313a44; --blue: 66, 130, 206; --note: #2b2614; --note-edge: #b88a00; } }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin-bottom: .4rem; }
h2 { font-size: 1.3rem; margin-top: 2.6rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { font-size: 1.05rem; margin-top: 1.8rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; margin: .8rem 0; }
caption { text-align: left; color: var(--soft); padding-bottom: .35rem; }
th, td { padding: .32rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { background: var(--panel); vertical-align: bottom; } td:first-child, td.number { white-space: nowrap; }
tbody th { font-weight: 400; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.note { background: var(--note); border-left: 4px solid var(--note-edge); padding: .5rem .9rem; }
code, pre { font: .88em ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; white-space: pre-wrap; }
pre, .command { background: var(--panel); padding: .6rem .9rem; border-radius: 6px; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .92rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.tiles div { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .6rem 1rem;
  min-width: 6.2rem; flex: 1 1 6.2rem; }
.tiles b { display: block; font-size: 1.4rem; line-height: 1.3; font-weight: 600; font-variant-numeric: tabular-nums; }
.tiles span, .tiles small { color: var(--soft); font-size: .85rem; display: block; }
.gallery { display: flex; flex-wrap: wrap; gap: 0 1.5rem; } .gallery > * { flex: 1 1 24rem; max-width: 30rem; }
.matrix td { text-align: center; border: 2px solid var(--paper); padding: .3rem .2rem; min-width: 3.1rem;
  line-height: 1.2; background: rgba(var(--blue), var(--share)); font-variant-numeric: tabular-nums; }
.matrix td small { display: block; opacity: .75; font-size: .72rem; }
.matrix th { border: 0; text-align: right; } .matrix thead th { text-align: center; background: none; }
.matrix td.full { color: #fff; } caption { white-space: nowrap; }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--soft); }
.bars td { border: 0; padding: .18rem .6rem; } .bars td:nth-child(2) { width: 24rem; }
.bar { position: relative; height: 1.05rem; background: var(--panel); border-radius: 3px; min-width: 14rem; }
.bar i { position: absolute; inset: 0 auto 0 0; background: rgba(var(--blue), .75); border-radius: 3px; }
.bar u { position: absolute; top: 45%; height: 2px; background: var(--ink); opacity: .75; }
"""
DARK_CELL = 0.55  # share from which the ink of a matrix cell changes


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph; `note` sets it apart as something to know before reading the figures."""

    text: str
    note: bool = False


@dataclass(frozen=True)
class Code:
    """A command line or a listing."""

    text: str


@dataclass(frozen=True)
class Table:
    """Cells are text. Columns in `prose` are set left, all others (but the first) as numbers to the right."""

    caption: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    prose: tuple[int, ...] = ()

    def is_number(self, column: int) -> bool:
        return column > 0 and column not in self.prose


@dataclass(frozen=True)
class Figure:
    """An inline SVG and what it shows; Markdown has no place for it."""

    svg: str
    description: str


@dataclass(frozen=True)
class Gallery:
    """Small blocks side by side where there is room."""

    blocks: Sequence[Figure | Matrix | Table]


@dataclass(frozen=True)
class Tiles:
    """The figures to be seen first: (what, value, its interval or nothing)."""

    tiles: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: counts (C, C), rows true; each cell shows the share of its row in percent and the count."""

    caption: str
    labels: tuple[str, ...]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Bars:
    """Shares with their 95 % intervals: (name, share or None, low, high, remark)."""

    caption: str
    rows: Sequence[tuple[str, float | None, float, float, str]]


@dataclass(frozen=True)
class Folded:
    """Blocks that most readers pass over, behind a line that opens them."""

    summary: str
    blocks: Sequence[Table | Code]


Block = Folded | Heading | Text | Code | Table | Figure | Gallery | Tiles | Matrix | Bars


@dataclass(frozen=True)
class Page:
    title: str
    blocks: Sequence[Block]


def to_html(page: Page) -> str:
    """One file: style and figures inside, no script, no font or picture from elsewhere."""
    title = html.escape(page.title)
    body = "\n".join(map(_html, page.blocks))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )


def to_markdown(page: Page) -> str:
    """Headings, text and tables; every figure's numbers are in a table."""
    parts = [f"# {_plain(page.title)}", *(part for block in page.blocks if (part := _markdown(block)))]
    return "\n\n".join(parts) + "\n"


def to_rich(table: Table) -> RichTable:
    """The same table for the console."""
    rich_table = RichTable(title=table.caption, title_justify="left", title_style="bold")
    for column, name in enumerate(table.header):
        rich_table.add_column(name, justify="right" if table.is_number(column) else "left", overflow="fold")
    for row in table.rows:
        rich_table.add_row(*(cell.replace("[", r"\[") for cell in row))  # a bracket would be markup
    return rich_table


def number(value: float | None, digits: int) -> str:
    """A figure with fixed digits; "-" where there is none (None or NaN)."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1, unit: str = "") -> str:
    """A share from 0 to 1 in percent; " %" as its `unit` where neither column nor caption says so."""
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}{unit}"


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Text):
        kind = ' class="note"' if block.note else ""
        return f"<p{kind}>{html.escape(block.text)}</p>"
    if isinstance(block, Code):
        return f"<pre>{html.escape(block.text)}</pre>"
    if isinstance(block, Figure):
        # The description is the picture's name to a screen reader.
        name = html.escape(block.description)
        svg = block.svg.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)
        return f"<figure>{svg}<figcaption>{name}</figcaption></figure>"
    if isinstance(block, Gallery):
        return f'<div class="gallery">{"".join(map(_html, block.blocks))}</div>'
    if isinstance(block, Tiles):
        tiles = (
            f"<div><span>{html.escape(name)}</span><b>{html.escape(value)}</b><small>{html.escape(more)}</small></div>"
            for name, value, more in block.tiles
        )
        return f'<div class="tiles">{"".join(tiles)}</div>'
    if isinstance(block, Folded):
        return f"<details><summary>{html.escape(block.summary)}</summary>{''.join(map(_html, block.blocks))}</details>"
    if isinstance(block, Matrix):
        return _html_matrix(block)
    return _html_bars(block) if isinstance(block, Bars) else _html_table(block)


def _html_table(block: Table) -> str:
    kinds = [' class="number"' if block.is_number(column) else "" for column in range(len(block.header))]
    head = "".join(f"<th{kind}>{html.escape(cell)}</th>" for cell, kind in zip(block.header, kinds, strict=True))
    cells = [
        [f"<td{kind}>{html.escape(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)] for row in block.rows
    ]
    rows = "\n".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    body = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n"
    return _wide(f"<table>\n<caption>{html.escape(block.caption)}</caption>\n{body}</table>")


def _html_matrix(block: Matrix) -> str:
    head = "".join(f"<th>{html.escape(label)}</th>" for label in block.labels)
    rows = []
    for label, counts in zip(block.labels, block.counts, strict=True):
        total = sum(counts)
        cells = [f"<th>{html.escape(label)}</th>"]
        for count in counts:
            share = count / total if total else 0.0
            ink = ' class="full"' if share >= DARK_CELL else ""
            text = percent(share if total else None, 0)
            cells.append(f'<td{ink} style="--share: {share:.3f}">{text}<small>{count}</small></td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return _wide(f'<table class="matrix"><caption>{html.escape(block.caption)}</caption>{body}</table>')


def _html_bars(block: Bars) -> str:
    rows = []
    for name, share, low, high, remark in block.rows:
        interval = f'<u style="left: {100 * low:.1f}%; width: {100 * (high - low):.1f}%"></u>'
        bar = "" if share is None else f'<i style="width: {100 * share:.1f}%"></i>{interval}'
        rows.append(
            f'<tr><td>{html.escape(name)}</td><td><div class="bar">{bar}</div></td>'
            f'<td class="number">{_share(share, low, high)}</td><td class="number">{html.escape(remark)}</td></tr>'
        )
    body = f"<caption>{html.escape(block.caption)}</caption><tbody>{''.join(rows)}</tbody>"
    return _wide(f'<table class="bars">{body}</table>')


def _wide(table: str) -> str:
    """A table that scrolls by itself where the window is narrower."""
    return f'<div class="wide">{table}</div>'


def _share(share: float | None, low: float, high: float) -> str:
    return "-" if share is None else f"{percent(share)} % ({percent(low)} to {percent(high)})"


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {_plain(block.text)}"
    if isinstance(block, Text):
        return f"> {_plain(block.text)}" if block.note else _plain(block.text)
    if isinstance(block, Code):
        return "\n".join(f"    {line}" for line in block.text.splitlines())
    if isinstance(block, Figure):
        return f"*In the HTML page: {block.description}.*"
    if isinstance(block, (Gallery, Folded)):
        return "\n\n".join(map(_markdown, block.blocks))
    return _markdown_table(_as_table(block))


def _as_table(block: Table | Tiles | Matrix | Bars) -> Table:
    if isinstance(block, Tiles):
        return Table("At a glance", ("figure", "value", "interval"), block.tiles, prose=(2,))
    if isinstance(block, Matrix):
        rows = [(label, *map(str, counts)) for label, counts in zip(block.labels, block.counts, strict=True)]
        return Table(block.caption, ("true", *block.labels), rows)
    if isinstance(block, Bars):
        rows = [(name, _share(share, low, high), remark) for name, share, low, high, remark in block.rows]
        return Table(block.caption, ("class", "share (95 % interval)", "of"), rows)
    return block


def _markdown_table(table: Table) -> str:
    rule = ["---:" if table.is_number(column) else "---" for column in range(len(table.header))]
    lines = [table.header, rule, *table.rows]
    return f"{_plain(table.caption)}:\n\n" + "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in lines)


def _plain(text: str) -> str:
    """Text that Markdown takes as it stands: no tag, no column of a table, no emphasis."""
    return "".join(f"\\{letter}" if letter in r"\<|*`" else letter for letter in text)
