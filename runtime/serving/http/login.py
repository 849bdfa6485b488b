"""Login page: a token entered in a browser becomes a cookie."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from http import HTTPStatus
from importlib import resources
from urllib.parse import parse_qsl

from runtime.serving.access.gate import Gate, Refusal
from runtime.serving.http.exchange import HttpRequest, HttpResponse, Route

MAX_FORM_BYTES = 4096
# A wrong token is answered this late, so that a person who mistyped sees no difference but a program does.
WRONG_TOKEN_DELAY_S = 0.5

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
# With `no-referrer`, which the other pages have, browsers would send the form with the origin `null`.
_HEADERS: Mapping[str, str] = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "same-origin"}
# Parts of the page that are replaced.
_MARK, _PAGE = "<!-- problem -->", "PAGE"


def login_routes(gate: Gate, pages: Collection[str] = ()) -> list[Route]:
    """Return the routes of the login page.

    Args:
        gate: Decides on the tokens.
        pages: Paths of the pages to which the user may be led after the login, besides the dashboard.
    """
    page = (resources.files("runtime.serving") / "web" / "login.html").read_text(encoding="utf-8")

    def show(
        status: HTTPStatus, wanted: str, problem: str = "", headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        marked = f'<p class="problem" role="alert">{problem}</p>' if problem else ""
        body = page.replace(_MARK, marked).replace(_PAGE, wanted).encode()
        return HttpResponse(status, "text/html; charset=utf-8", body, {**_HEADERS, **(headers or {})})

    async def login(request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            return show(HTTPStatus.OK, _page_of(request.query, pages))
        form = dict(parse_qsl((await request.body.read(max_bytes=MAX_FORM_BYTES)).decode("utf-8", "replace")))
        wanted = _page_of(form, pages)
        if gate.tokens is None:
            return _to_page(wanted, {})
        token = form.get("token", "")
        outcome = gate.authenticate(token, request.address)
        if isinstance(outcome, Refusal):
            await asyncio.sleep(WRONG_TOKEN_DELAY_S)
            sentence = f"{outcome.reason[0].upper()}{outcome.reason[1:]}."
            return show(outcome.status, wanted, sentence, outcome.headers)
        value, lifetime_s = gate.cookie(token)
        return _to_page(wanted, {"Set-Cookie": _cookie(gate, value, lifetime_s, secure=request.secure)})

    async def logout(request: HttpRequest) -> HttpResponse:
        cookie = _cookie(gate, "", 0, secure=request.secure)
        return HttpResponse(
            HTTPStatus.SEE_OTHER, "text/plain", b"", {"Location": "login", "Set-Cookie": cookie}
        )

    return [
        Route(
            path="/login", handle=login, methods=("GET", "POST"), right=None, max_body_bytes=MAX_FORM_BYTES
        ),
        Route(path="/logout", handle=logout, methods=("POST",), right=None, max_body_bytes=MAX_FORM_BYTES),
    ]


def _page_of(fields: Mapping[str, str], pages: Collection[str]) -> str:
    """Return the name of the page that a query or a form asks for; empty for the dashboard."""
    name = fields.get("page", "")
    return name if f"/{name}" in pages else ""


def _to_page(name: str, headers: Mapping[str, str]) -> HttpResponse:
    # Relative, so that it also holds under the base path of a proxy.
    return HttpResponse(HTTPStatus.SEE_OTHER, "text/plain", b"", {"Location": f"./{name}", **headers})


def _cookie(gate: Gate, value: str, lifetime_s: int, *, secure: bool) -> str:
    # Without a path, the browser uses the folder of the login page, also under the base path of a proxy.
    marks = "; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
    return f"{gate.cookie_name}={value}; Max-Age={lifetime_s}{marks}"
