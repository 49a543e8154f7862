"""A page as a list of blocks, and its three forms: HTML that needs nothing else, Markdown, tables on the console."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable

STYLE = """\
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; color: #1f2328; background: #fff;
  max-width: 60rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; line-height: 1.25; } h2 { font-size: 1.3rem; margin-top: 2.6rem;
  border-bottom: 1px solid #d9dee4; padding-bottom: .25rem; } h3 { font-size: 1.05rem; margin-top: 1.8rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; margin: .8rem 0; }
caption { text-align: left; color: #59636e; padding-bottom: .35rem; }
th, td { padding: .32rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid #e4e8ec; }
thead th { background: #f4f6f8; border-bottom: 2px solid #c9d1d9; }
thead th { vertical-align: bottom; } td:first-child, td.number { white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.note { background: #fff8e1; border-left: 4px solid #d9a400; padding: .5rem .9rem; }
code { font: .9em ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; }
.gallery { display: flex; flex-wrap: wrap; gap: 0 1.5rem; } .gallery figure { flex: 1 1 24rem; max-width: 29rem; }
"""


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
    """A command line."""

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
    """Small figures side by side where there is room."""

    figures: Sequence[Figure]


Block = Heading | Text | Code | Table | Figure | Gallery


@dataclass(frozen=True)
class Page:
    title: str
    blocks: Sequence[Block]


def to_html(page: Page) -> str:
    """One file: style and figures inside, no script, no font or picture from elsewhere."""
    title = html.escape(page.title)
    body = "\n".join(_html(block) for block in page.blocks)
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


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Text):
        kind = ' class="note"' if block.note else ""
        return f"<p{kind}>{html.escape(block.text)}</p>"
    if isinstance(block, Code):
        return f"<p><code>{html.escape(block.text)}</code></p>"
    if isinstance(block, Figure):
        # The description is the picture's name to a screen reader.
        svg = block.svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(block.description)}"', 1)
        return f"<figure>{svg}</figure>"
    if isinstance(block, Gallery):
        return f'<div class="gallery">{"".join(map(_html, block.figures))}</div>'
    kinds = [' class="number"' if block.is_number(column) else "" for column in range(len(block.header))]
    head = "".join(f"<th{kind}>{html.escape(cell)}</th>" for cell, kind in zip(block.header, kinds, strict=True))
    rows = "\n".join(
        "<tr>" + "".join(f"<td{k}>{html.escape(cell)}</td>" for cell, k in zip(row, kinds, strict=True)) + "</tr>"
        for row in block.rows
    )
    return (
        f'<div class="wide"><table>\n<caption>{html.escape(block.caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {_plain(block.text)}"
    if isinstance(block, Text):
        return f"> {_plain(block.text)}" if block.note else _plain(block.text)
    if isinstance(block, Code):
        return f"    {block.text}"
    if isinstance(block, Figure):
        return f"*In the HTML page: {block.description}.*"
    if isinstance(block, Gallery):
        return "\n\n".join(map(_markdown, block.figures))
    rule = ["---:" if block.is_number(column) else "---" for column in range(len(block.header))]
    lines = [block.header, rule, *block.rows]
    table = "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in lines)
    return f"{_plain(block.caption)}:\n\n{table}"


def _plain(text: str) -> str:
    """Text that Markdown takes as it stands: no tag, no column of a table, no emphasis."""
    return "".join(f"\\{letter}" if letter in r"\<|*`" else letter for letter in text)
