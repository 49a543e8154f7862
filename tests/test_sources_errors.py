"""Promises of `open_source`: whatever is no source is refused with one clear line and the right exit code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mma_edge.errors import SourceError, UsageError
from mma_edge.sources import open_source
from mma_edge.sources.file import FileSource

NOT_MEDIA = {
    "empty.mp4": (b"", "is empty"),
    "notes.txt": (b"dear diary\n" * 50, "is a text file"),
    "notes.mp4": (b"dear diary\n" * 50, "is a text file"),
    "random.mp4": (np.random.default_rng(0).bytes(50_000), "is not a media file"),
    "list.m3u8": (b"#EXTM3U\n#EXTINF:5,\nhttp://localhost:1/a.ts\n#EXT-X-ENDLIST\n", "is a text file"),
    "picture.bmp": (b"BM" + (58).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
                    + (40).to_bytes(4, "little") + (1).to_bytes(4, "little") * 2 + b"\1\0\x18\0" + bytes(28),
                    "is a still picture"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_MEDIA)
def test_what_is_no_media_is_one_clear_line(tmp_path: Path, name: str) -> None:
    content, message = NOT_MEDIA[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message) as caught:
        FileSource(tmp_path / name)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value) and name in str(caught.value)


def test_missing_file_suggests_a_close_name(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"does not exist.*holiday\.mp4"):
        open_source(tmp_path / "holyday.mp4")
    with pytest.raises(SourceError, match="folder"):
        open_source(tmp_path / "nowhere" / "clip.mp4")


def test_directory_device_and_forbidden_file_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="is a directory"):
        FileSource(tmp_path)
    with pytest.raises(SourceError, match="not a regular file"):
        FileSource("/dev/null")
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"x")

    def forbid(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbid)  # chmod would not stop root
    with pytest.raises(SourceError, match="permission denied"):
        FileSource(path)


@pytest.mark.parametrize("spec", ["rtps://me:secret@host/stream", "camera:x", "camera:-1", ""])
def test_what_is_no_source_is_refused(spec: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_source(spec)
    assert caught.value.exit_code == 2 and "secret" not in str(caught.value)
