"""ELAN's annotation file (.eaf, EAF 3.0), which ELAN 6 and other tools for it open.

Elements come in the order that the schema EAFv3.0.xsd asks for. Labels are a controlled vocabulary: ELAN offers them
for corrections, and for nothing else.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from mma_edge.convert.timeline import MARKS, Media, Segment, TimeLine, mark_segments
from mma_edge.files import write_text

_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_EMOTION, _MARK, _VOCABULARY = "emotion", "mark", "emotions"
_UNDETERMINED = {
    "LANG_ID": "und",
    "LANG_DEF": "http://cdb.iso.org/lg/CDB-00130975-001",
    "LANG_LABEL": "undetermined (und)",
}


def write_elan(time_line: TimeLine, path: Path) -> None:
    """One file for one source: a tier for each of its tiers, and one for the marks."""
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    about = {"AUTHOR": "mma-edge", "DATE": now, "FORMAT": "3.0", "VERSION": "3.0"}
    document = Element("ANNOTATION_DOCUMENT", about | {"xmlns:xsi": _XSI, "xsi:noNamespaceSchemaLocation": _SCHEMA})
    header = SubElement(document, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    if time_line.media:
        SubElement(header, "MEDIA_DESCRIPTOR", _media_attributes(time_line.media, path))
    tiers: list[tuple[str, str, Iterable[Segment]]] = [
        (f"{time_line.source} {tier.name}", _EMOTION, tier.segments) for tier in time_line.tiers
    ]
    if time_line.marks:
        tiers.append((f"{time_line.source} {MARKS}", _MARK, mark_segments(time_line)))
    _Tiers(document, header, time_line.source).add(tiers, time_line.labels)
    vocabulary = {"CONTROLLED_VOCABULARY_REF": _VOCABULARY}
    for name, more in ((_EMOTION, vocabulary), (_MARK, {})):
        kind = {"LINGUISTIC_TYPE_ID": name, "TIME_ALIGNABLE": "true", "GRAPHIC_REFERENCES": "false"}
        SubElement(document, "LINGUISTIC_TYPE", kind | more)
    SubElement(document, "LANGUAGE", _UNDETERMINED)
    words = SubElement(document, "CONTROLLED_VOCABULARY", {"CV_ID": _VOCABULARY})
    SubElement(words, "DESCRIPTION", {"LANG_REF": "und"}).text = "the classes of the model"
    for number, label in enumerate(time_line.labels, 1):
        entry = SubElement(words, "CV_ENTRY_ML", {"CVE_ID": f"cve{number}"})
        SubElement(entry, "CVE_VALUE", {"LANG_REF": "und"}).text = label
    ElementTree.indent(document)
    write_text(path, f"{_HEAD}{ElementTree.tostring(document, 'unicode')}\n")


_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


class _Tiers:
    """The time slots and tiers of a document."""

    def __init__(self, document: Element, header: Element, source: str) -> None:
        self._document, self._header, self._source = document, header, source
        self._order = SubElement(document, "TIME_ORDER")

    def add(self, tiers: Iterable[tuple[str, str, Iterable[Segment]]], labels: tuple[str, ...]) -> None:
        """Tiers of name, type and segments; each segment has two slots of its own, all slots in order of time."""
        entries = {label: f"cve{number}" for number, label in enumerate(labels, 1)}
        slots: list[tuple[int, Element, str]] = []
        count = 0
        for name, kind, segments in tiers:
            about = {"TIER_ID": name, "PARTICIPANT": self._source, "LINGUISTIC_TYPE_REF": kind}
            tier = SubElement(self._document, "TIER", about)
            for segment in segments:
                count += 1
                about = {"ANNOTATION_ID": f"a{count}"}
                if kind == _EMOTION:
                    about["CVE_REF"] = entries[segment.label]
                annotation = SubElement(SubElement(tier, "ANNOTATION"), "ALIGNABLE_ANNOTATION", about)
                SubElement(annotation, "ANNOTATION_VALUE").text = segment.label
                slots.append((segment.start_ms, annotation, "TIME_SLOT_REF1"))
                slots.append((segment.end_ms, annotation, "TIME_SLOT_REF2"))
        slots.sort(key=lambda slot: slot[0])
        for number, (time_ms, annotation, reference) in enumerate(slots, 1):
            SubElement(self._order, "TIME_SLOT", {"TIME_SLOT_ID": f"ts{number}", "TIME_VALUE": str(time_ms)})
            annotation.set(reference, f"ts{number}")
        last = SubElement(self._header, "PROPERTY", {"NAME": "lastUsedAnnotationId"})
        last.text = str(count)


def _media_attributes(media: Media, path: Path) -> dict[str, str]:
    """Where ELAN finds the video: by its path, or, after both files moved, beside this one. ELAN cuts "file:" off and
    decodes nothing, so a blank stays a blank."""
    absolute = media.path.resolve()
    found = {"MEDIA_URL": f"file:///{absolute.as_posix().lstrip('/')}", "MIME_TYPE": media.mime_type}
    try:
        relative = Path(os.path.relpath(absolute, path.parent.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return found
    return found | {"RELATIVE_MEDIA_URL": relative if relative.startswith("../") else f"./{relative}"}
