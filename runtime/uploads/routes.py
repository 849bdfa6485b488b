"""HTTP routes of uploads, for the page `/scan` and for programs.

POST   scans/?name=clip.mp4     body: the file           -> 201 {"id": ...}
GET    scans/                                            -> {"max_bytes": ..., "active": ..., "max_jobs": ...}
GET    scans/ID                 at least every 90 s      -> {"state": ..., "seconds": ..., ...}
DELETE scans/ID                                          -> 204
GET    scans/ID/report                                   -> page; report.html and report.json: downloads
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from runtime.serving.http.exchange import HttpRequest, HttpResponse, Route, text_response
from runtime.uploads.jobs import UploadRefused
from runtime.uploads.service import UploadService

PATH = "/scans/"
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
)
_LINKS = (
    '<nav><a href="../../scan">Scan another video</a> <a href="report.html" download>Save this page</a> '
    '<a href="report.json" download>Save as JSON</a></nav><main>'
)


def upload_routes(uploads: UploadService) -> list[Route]:
    """Return the routes of uploads; all need the right `send`.

    Args:
        uploads: The running service.
    """
    handlers = _Handlers(uploads)
    max_bytes = uploads.limits.max_bytes
    return [
        Route(path=PATH, handle=handlers.show, right="send"),
        Route(path=PATH, handle=handlers.receive, methods=("POST",), right="send", max_body_bytes=max_bytes),
        Route(path=PATH, handle=handlers.cancel, methods=("DELETE",), right="send"),
    ]


class _Handlers:
    """Handlers of the requests to one service."""

    def __init__(self, uploads: UploadService) -> None:
        self._uploads = uploads

    async def receive(self, request: HttpRequest) -> HttpResponse:
        if request.path != PATH:
            return text_response(HTTPStatus.NOT_FOUND, f"Videos are sent to {PATH.strip('/')}/.")
        if not request.body.length:
            return text_response(HTTPStatus.BAD_REQUEST, "The file is empty.")
        try:
            name = request.query.get("name", "")
            job_id = await self._uploads.receive(name, request.body.length, request.body)
        except UploadRefused as refused:
            if refused.full:
                return text_response(HTTPStatus.INSUFFICIENT_STORAGE, refused.reason)
            return text_response(HTTPStatus.SERVICE_UNAVAILABLE, refused.reason, {"Retry-After": "30"})
        return _json({"id": job_id}, HTTPStatus.CREATED)

    async def show(self, request: HttpRequest) -> HttpResponse:
        if request.path == PATH:
            limits = self._uploads.limits
            return _json(
                {"max_bytes": limits.max_bytes, "active": self._uploads.active, "max_jobs": limits.max_jobs}
            )
        job_id, _, document = request.path.removeprefix(PATH).partition("/")
        status = self._uploads.status(job_id)
        if status is None:
            return _unknown()
        if not document:
            return _json(status)
        return self._document(job_id, document, status["name"])

    def _document(self, job_id: str, document: str, video: str) -> HttpResponse:
        """Return a report, to be shown or to be saved."""
        types = {
            "report": "text/html; charset=utf-8",
            "report.html": "text/html; charset=utf-8",
            "report.json": "application/json",
        }
        content = None
        if document in types:
            content = self._uploads.report(job_id, "json" if document.endswith(".json") else "html")
        if content is None:
            return _unknown()
        headers = {"Content-Security-Policy": _POLICY}
        if document == "report":
            content = content.replace(b"<main>", _LINKS.encode(), 1)
        else:
            name = quote(f"{PurePosixPath(video).stem}-{document}")
            headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
        return HttpResponse(HTTPStatus.OK, types[document], content, headers)

    async def cancel(self, request: HttpRequest) -> HttpResponse:
        if not self._uploads.cancel(request.path.removeprefix(PATH)):
            return _unknown()
        return HttpResponse(HTTPStatus.NO_CONTENT, "text/plain", b"")


def _unknown() -> HttpResponse:
    text = "No such scan: it was cancelled, or its report is no longer kept."
    return text_response(HTTPStatus.NOT_FOUND, text)


def _json(content: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> HttpResponse:
    return HttpResponse(status, "application/json", json.dumps(content).encode("ascii"))
