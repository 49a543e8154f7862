"""The troubleshooting guide knows every error of engines and bundles, and quotes no text that is not in the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "troubleshooting.md"
ERRORS = {"BackendError", "BundleError", "DependencyError"}
SOURCES = sorted(path for room in ("engines", "bundle") for path in (ROOT / "mma_edge" / room).rglob("*.py"))


def text_of(node: ast.AST) -> str:
    """A string as the guide writes it: ... for whatever is filled in; "" for what is no literal."""
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "..." for part in node.values]
        return re.sub(r"(\.\.\.)+", "...", "".join(map(str, parts)))
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def raised(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ERRORS and node.args:
            yield text_of(node.args[0])


def headings() -> list[str]:
    """Every quoted message of the guide."""
    lines = [line for line in GUIDE.read_text(encoding="utf-8").splitlines() if line.startswith("#### ")]
    return [quoted for line in lines for quoted in re.findall(r"`([^`]+)`", line)]


def fits(message: str, heading: str) -> bool:
    """Whether a heading quotes the message: the same words in order, with ... for any others."""
    pattern = ".*".join(re.escape(part.strip()) for part in heading.split("...") if part.strip())
    return bool(pattern) and re.search(pattern, message) is not None


def test_every_error_of_engines_and_bundles_has_an_entry() -> None:
    # Of a message that is nearly all filled in, one word says nothing.
    messages = {text for path in SOURCES for text in raised(path) if len(re.findall(r"[a-zA-Z]{2,}", text)) > 1}
    assert len(messages) > 50
    known = headings()
    assert sorted(message for message in messages if not any(fits(message, heading) for heading in known)) == []


def test_every_entry_quotes_a_text_of_the_code() -> None:
    texts = [
        text_of(node)
        for package in ("mma_edge", "export")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant | ast.JoinedStr)
    ]
    for heading in headings():
        words = [part.strip(" :") for part in heading.removeprefix("note: ").split("...") if part.strip(" :")]
        assert all(any(word in text for text in texts) for word in words), heading


def test_a_text_without_an_entry_would_be_found() -> None:
    assert not any(fits("the moon is made of ...", heading) for heading in headings())
