"""Downloads of what sessions kept: by a session's id and a name out of its list, never by a path."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path

from aiohttp import web

from mma_edge.dashboard.sessions import session_files, session_folder

MOST_AT_ONCE = 4
_PIECE = 1 << 18
"""Bytes that are read and sent at a time."""


class Downloads:
    """GET /sessions/ID (all of it, as a zip) and /sessions/ID/FILE. To be used in the server's thread."""

    def __init__(self, root: Path, executor: Executor) -> None:
        """`executor` reads from the disk."""
        self._root, self._executor = root, executor
        self._going = 0

    def set_up(self, app: web.Application) -> None:
        app.router.add_get("/sessions/{id}", self._zip)
        app.router.add_get("/sessions/{id}/{file}", self._file)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        folder = self._folder(request)
        path = next((path for path in session_files(folder) if path.name == request.match_info["file"]), None)
        if path is None:
            raise web.HTTPNotFound
        return await self._counted(lambda: self._send_file(request, path))

    async def _zip(self, request: web.Request) -> web.StreamResponse:
        folder = self._folder(request)
        return await self._counted(lambda: self._send_zip(request, folder))

    def _folder(self, request: web.Request) -> Path:
        folder = session_folder(self._root, request.match_info["id"])
        if folder is None:
            raise web.HTTPNotFound
        return folder

    async def _counted(self, send: Callable[[], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        if self._going >= MOST_AT_ONCE:
            raise web.HTTPServiceUnavailable(text="too many downloads at once\n")
        self._going += 1
        try:
            return await send()
        finally:
            self._going -= 1

    async def _send_file(self, request: web.Request, path: Path) -> web.StreamResponse:
        response = _attachment(f"{path.parent.name}_{path.name}", "application/octet-stream")
        response.content_length = left = path.stat().st_size  # of a session that goes on: as it is now
        await response.prepare(request)
        with path.open("rb") as file:
            while left and (piece := await self._read(file, min(left, _PIECE))):
                left -= len(piece)
                await response.write(piece)
        return response

    async def _send_zip(self, request: web.Request, folder: Path) -> web.StreamResponse:
        response, buffer = _attachment(f"{folder.name}.zip", "application/zip"), _Stream()
        await response.prepare(request)
        with zipfile.ZipFile(buffer, "w") as archive:
            for path in session_files(folder):
                info = zipfile.ZipInfo.from_file(path, f"{folder.name}/{path.name}")
                info.compress_type = zipfile.ZIP_STORED if path.suffix == ".mp4" else zipfile.ZIP_DEFLATED
                with path.open("rb") as file, archive.open(info, "w", force_zip64=True) as target:
                    while piece := await self._read(file, _PIECE):
                        target.write(piece)
                        await response.write(buffer.take())
        await response.write(buffer.take())
        return response

    async def _read(self, file: io.BufferedReader, most: int) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._executor, file.read, most)


def _attachment(name: str, kind: str) -> web.StreamResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}  # of signs that need no escape
    response = web.StreamResponse(headers=headers)
    response.content_type = kind
    return response


class _Stream(io.RawIOBase):
    """What a zip is written to, and taken from piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken
