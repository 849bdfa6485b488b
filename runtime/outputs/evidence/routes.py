"""HTTP routes of the evidence: the list of events, and their files.

    GET /events?limit=50&before=ID&stream=NAME
    GET /events/ID/FILE

Both need the right to read the stream of the event. Files are read on a thread of their own, so that a slow
disk does not hold up the server.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from runtime.outputs.evidence.manifest import MANIFEST, Manifest
from runtime.outputs.evidence.store import EvidenceStore
from runtime.serving.http.exchange import HttpRequest, HttpResponse, Route, text_response

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
CONTENT_TYPES = {
    ".json": "application/json",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".mp4": "video/mp4",
    ".mkv": "video/x-matroska",
}
# A longer range is answered in part, which bounds the memory for players that request the whole clip.
MAX_RANGE_BYTES = 4_000_000
# Files that are read at the same time.
MAX_READERS = 4

_LIMIT = re.compile(r"[0-9]{1,4}")
_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.ASCII)


def event_routes(store: EvidenceStore | None) -> list[Route]:
    """Return the routes.

    Args:
        store: The events; None if no evidence is kept, which the list states then.
    """
    readers = asyncio.Semaphore(MAX_READERS)

    async def listing(request: HttpRequest) -> HttpResponse:
        nothing: dict[str, Any] = {"enabled": False, "events": [], "next": None}
        body = nothing if store is None else _listing(store, request)
        if body is None:
            return text_response(HTTPStatus.BAD_REQUEST, f"limit is a number from 1 to {MAX_LIMIT}.")
        return HttpResponse(HTTPStatus.OK, "application/json", json.dumps(body).encode("ascii"))

    async def file(request: HttpRequest) -> HttpResponse:
        event_id, _, name = unquote(request.path).removeprefix("/events/").partition("/")
        manifest = None if store is None else store.get(event_id)
        path = None if store is None else store.file(event_id, name)
        if manifest is None or path is None:
            return text_response(HTTPStatus.NOT_FOUND, "There is no such event or file; it may be deleted.")
        request.identity.require("read", stream=manifest.stream)
        async with readers:
            return await asyncio.to_thread(_read, path, parse_range(request.headers.get("range")))

    return [Route(path="/events", handle=listing), Route(path="/events/", handle=file)]


def _listing(store: EvidenceStore, request: HttpRequest) -> dict[str, Any] | None:
    """Return the page of the list that a request asks for; None if its limit is wrong."""
    query = request.query
    text = query.get("limit", str(DEFAULT_LIMIT))
    limit = int(text) if _LIMIT.fullmatch(text) else 0
    if not 1 <= limit <= MAX_LIMIT:
        return None
    wanted = [
        manifest
        for manifest in store.events()
        if request.identity.may("read", stream=manifest.stream)
        and query.get("stream", manifest.stream) == manifest.stream
    ]
    if "before" in query:
        ids = [manifest.id for manifest in wanted]
        # The last event of the page before may have been deleted meanwhile, and all older ones with it.
        wanted = wanted[ids.index(query["before"]) + 1 :] if query["before"] in ids else []
    page = wanted[:limit]
    more = page[-1].id if len(wanted) > limit else None
    return {"enabled": True, "events": [summary(manifest) for manifest in page], "next": more}


def summary(manifest: Manifest) -> dict[str, Any]:
    """Return the entry of an event in the list.

    Args:
        manifest: Manifest of the event.
    """
    clip = manifest.clip
    return {
        "id": manifest.id,
        "kind": manifest.kind,
        "stream": manifest.stream,
        "face": manifest.face,
        "time": manifest.time,
        "state": manifest.verdict.get("state"),
        "p_fake": manifest.verdict.get("p_fake"),
        "pts_s": manifest.verdict.get("pts_s"),
        "bytes": manifest.total_bytes,
        "frame": "frame.jpg",
        "crops": [file.name for file in manifest.files if file.name.startswith("crops/")],
        "clip": {
            "file": clip.file,
            "codec": clip.codec,
            "encoded": clip.encoded,
            "seconds": clip.seconds,
            "event_s": clip.event_s,
            "missing": clip.missing,
        },
        "trail": "trail.json",
        "manifest": MANIFEST,
    }


def _read(path: Path, wanted: ByteRange | None) -> HttpResponse:
    """Return a file, or the requested range of it."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start, end = (0, size) if wanted is None else wanted.within(size)
            if wanted is not None and start >= end:
                return text_response(
                    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                    f"The file has {size} bytes.",
                    {"Content-Range": f"bytes */{size}"},
                )
            file.seek(start)
            body = file.read(end - start)
    except OSError as error:
        # Deleted meanwhile, or the disk fails.
        gone = isinstance(error, FileNotFoundError)
        status = HTTPStatus.NOT_FOUND if gone else HTTPStatus.INTERNAL_SERVER_ERROR
        return text_response(status, "The file was deleted." if gone else "The file cannot be read.")
    headers: Mapping[str, str] = {
        "Accept-Ranges": "bytes",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    content_type = CONTENT_TYPES.get(path.suffix, "application/octet-stream")
    if wanted is None:
        return HttpResponse(HTTPStatus.OK, content_type, body, headers)
    headers = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"}
    return HttpResponse(HTTPStatus.PARTIAL_CONTENT, content_type, body, headers)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Range of bytes that a client asks for.

    Args:
        first: First byte; None if the last bytes are wanted.
        last: Last byte, or the number of last bytes if `first` is None; None for the end of the file.
    """

    first: int | None
    last: int | None

    def within(self, size: int) -> tuple[int, int]:
        """Return the start and the end, after the last byte, of the part to send; empty outside the file.

        Args:
            size: Size of the file in bytes.
        """
        if self.first is None:
            start, end = max(0, size - (self.last or 0)), size
        else:
            start, end = self.first, size if self.last is None else min(size, self.last + 1)
        return start, min(end, start + MAX_RANGE_BYTES)


def parse_range(text: str | None) -> ByteRange | None:
    """Parse a Range header; None, which means the whole file, for anything but one range of bytes.

    Args:
        text: Value of the header; None without one.

    Source: RFC 9110 section 14.2, by which a server may ignore the header.
    """
    match = None if text is None else _RANGE.fullmatch(text.strip())
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        return ByteRange(None, int(suffix))
    return ByteRange(int(first), int(last) if last else None)
