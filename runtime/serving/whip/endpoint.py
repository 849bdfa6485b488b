"""WHIP endpoint: HTTP requests by which senders begin and end.

    POST /whip/KEY            an SDP offer; 201, an SDP answer and the Location of the session
    DELETE /whip/KEY/SESSION  ends the session

Source: RFC 9725. Trickle ICE (PATCH) is not supported; offer and answer contain all candidates.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from runtime.errors import ExtraMissing
from runtime.serving.access.identity import Identity
from runtime.serving.http.exchange import HttpRequest, HttpResponse, Route, text_response
from streams.input.source import Source

if TYPE_CHECKING:
    from streams.input.pushed.inlet import FrameInlet

__all__ = ["WhipEndpoint", "require_webrtc"]

PATH = "/whip/"
MAX_OFFER_BYTES = 64 * 1024
WRONG_KEY_DELAY_S = 0.3
CLOSE_TIMEOUT_S = 0.5
SDP = "application/sdp"


class WhipSender(Protocol):
    """Sender of a session."""

    @property
    def idle(self) -> bool:
        """Whether another sender may take its place."""

    async def answer(self, offer: str) -> str:
        """Return the answer to an offer."""

    async def close(self) -> None:
        """End the connection."""


def require_webrtc(sources: Iterable[Source]) -> None:
    """Check that aiortc is installed if a source needs it.

    Raises:
        ExtraMissing: It is not.
    """
    for source in sources:
        if source.inlet is not None:
            try:
                import aiortc  # noqa: F401
            except ImportError:
                raise ExtraMissing(f"the source {source.name}", "aiortc", "webrtc") from None


class WhipEndpoint:
    """Sessions of the senders, at most one for each source.

    Args:
        sources: Returns the present sources; those with an inlet accept senders.
        stun: Addresses of STUN servers, `stun:HOST:PORT`; default: none.
    """

    def __init__(self, sources: Callable[[], Iterable[Source]], *, stun: Sequence[str] = ()) -> None:
        self._sources = sources
        self._stun = tuple(stun)
        # Key of the source -> id and sender of its session, and who began it.
        self._sessions: dict[str, tuple[str, WhipSender, Identity]] = {}
        # Key of the source -> id of its last session. A sender that closes its connection and then deletes
        # the session has made no mistake.
        self._ended: dict[str, str] = {}

    @property
    def routes(self) -> list[Route]:
        """Routes for the server."""
        return [
            Route(
                path=PATH,
                handle=self._handle,
                methods={"POST", "DELETE"},
                right="send",
                max_body_bytes=MAX_OFFER_BYTES,
                # The page for senders uses this key by default.
                offered=lambda: self._find("browser") is not None,
                recheck=self._recheck,
            )
        ]

    async def close(self) -> None:
        """End all sessions."""
        await self._recheck(lambda identity: False)

    async def _recheck(self, still_valid: Callable[[Identity], bool]) -> None:
        """End the sessions whose token has ended."""
        senders = [sender for _, sender, identity in self._sessions.values() if not still_valid(identity)]
        if senders:
            await asyncio.wait([asyncio.create_task(s.close()) for s in senders], timeout=CLOSE_TIMEOUT_S)

    async def _handle(self, request: HttpRequest) -> HttpResponse:
        key, _, session = request.path.removeprefix(PATH).partition("/")
        source = self._find(key)
        if source is None or source.inlet is None:
            await asyncio.sleep(WRONG_KEY_DELAY_S)
            text = "No source accepts a sender here; start unmask with the source browser or whip:KEY."
            return text_response(HTTPStatus.NOT_FOUND, text)
        if request.method == "DELETE":
            return await self._end(key, session)
        if session:
            return text_response(HTTPStatus.NOT_FOUND, "Send the offer to the address of the source.")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != SDP:
            return text_response(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"The offer must be {SDP}.")
        offer = await request.body.read(max_bytes=MAX_OFFER_BYTES)
        return await self._begin(source, source.inlet, offer.decode("utf-8", "replace"), request.identity)

    def _find(self, key: str) -> Source | None:
        found = None
        for source in self._sources():
            if source.inlet is not None and hmac.compare_digest(source.inlet.key.encode(), key.encode()):
                found = source
        return found

    async def _begin(self, source: Source, inlet: FrameInlet, offer: str, identity: Identity) -> HttpResponse:
        from runtime.serving.whip.sender import OfferInvalid, Sender

        key = inlet.key
        # Again after each wait: another sender may have begun meanwhile.
        while key in self._sessions:
            previous = self._sessions[key][1]
            if not previous.idle:
                text = "Another sender is connected; end it first, or try again when it has left."
                return text_response(HTTPStatus.CONFLICT, text, {"Retry-After": "5"})
            await previous.close()
        session = secrets.token_urlsafe(16)

        def forget() -> None:
            if self._sessions.get(key, ("",))[0] == session:
                self._ended[key] = session
                del self._sessions[key]

        sender = Sender(inlet, name=source.name, stun=self._stun, on_end=forget)
        self._sessions[key] = session, sender, identity
        try:
            answer = await sender.answer(offer)
        except OfferInvalid as error:
            await sender.close()
            return text_response(HTTPStatus.BAD_REQUEST, f"{str(error)[0].upper()}{str(error)[1:]}.")
        headers = {
            # Relative, because a proxy may serve this under another path.
            "Location": f"{quote(key)}/{session}",
            "ETag": f'"{session}"',
            "Unmask-Stream": quote(source.name),
        }
        return HttpResponse(HTTPStatus.CREATED, SDP, answer.encode(), headers)

    async def _end(self, key: str, session: str) -> HttpResponse:
        known, sender, _ = self._sessions.get(key, (self._ended.get(key, ""), None, None))
        if not known or not hmac.compare_digest(known.encode(), session.encode()):
            return text_response(HTTPStatus.NOT_FOUND, "There is no such session; it may have ended.")
        if sender is not None:
            await sender.close()
        return text_response(HTTPStatus.OK, "The session has ended.")
