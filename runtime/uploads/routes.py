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

    async def receive(request: HttpRequest) -> HttpResponse:
        if request.path != PATH:
            return text_response(HTTPStatus.NOT_FOUND, f"Videos are sent to {PATH.strip('/')}/.")
        name = request.query.get("name", "")
        if not request.body.length:
            return text_response(HTTPStatus.BAD_REQUEST, "The file is empty.")
        try:
            job_id = await uploads.receive(name, request.body.length, request.body)
        except UploadRefused as refused:
            if refused.full:
                return text_response(HTTPStatus.INSUFFICIENT_STORAGE, refused.reason)
            return text_response(HTTPStatus.SERVICE_UNAVAILABLE, refused.reason, {"Retry-After": "30"})
        return _json({"id": job_id}, HTTPStatus.CREATED)

    async def show(request: HttpRequest) -> HttpResponse:
        if request.path == PATH:
            limits = uploads.limits
            return _json(
                {"max_bytes": limits.max_bytes, "active": uploads.active, "max_jobs": limits.max_jobs}
            )
        job_id, _, document = request.path.removeprefix(PATH).partition("/")
        status = uploads.status(job_id)
        if status is None or (document and status["state"] != "done"):
            return _unknown()
        if not document:
            return _json(status)
        if document == "report":
            page = uploads.report(job_id, "html") or b""
            page = page.replace(b"<main>", _LINKS.encode(), 1)
            headers = {"Content-Security-Policy": _POLICY}
            return HttpResponse(HTTPStatus.OK, "text/html; charset=utf-8", page, headers)
        types = {"report.html": "text/html; charset=utf-8", "report.json": "application/json"}
        if document not in types:
            return _unknown()
        kind = document.rpartition(".")[2]
        name = f"{PurePosixPath(status['name']).stem}-{document}"
        headers = {
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}",
            "Content-Security-Policy": _POLICY,
        }
        return HttpResponse(HTTPStatus.OK, types[document], uploads.report(job_id, kind) or b"", headers)

    async def cancel(request: HttpRequest) -> HttpResponse:
        if not uploads.cancel(request.path.removeprefix(PATH)):
            return _unknown()
        return HttpResponse(HTTPStatus.NO_CONTENT, "text/plain", b"")

    return [
        Route(path=PATH, handle=show, right="send"),
        Route(
            path=PATH,
            handle=receive,
            methods=("POST",),
            right="send",
            max_body_bytes=uploads.limits.max_bytes,
        ),
        Route(path=PATH, handle=cancel, methods=("DELETE",), right="send"),
    ]


def _unknown() -> HttpResponse:
    text = "No such scan: it was cancelled, or its report is no longer kept."
    return text_response(HTTPStatus.NOT_FOUND, text)


def _json(content: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> HttpResponse:
    return HttpResponse(status, "application/json", json.dumps(content).encode("ascii"))
