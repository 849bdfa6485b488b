"""Client of a running unmask, for other programs.

    from unmask import watch

    async for message in watch("127.0.0.1:8765"):
        if message["type"] == "verdict" and message["state"] == "fake":
            print(message["stream"], message["face"], message["p_fake"])

Messages are dictionaries as they were sent, so that fields of later versions are kept. `runtime/messages.py`
defines them; `msgspec.convert(message, runtime.messages.Message)` returns the struct of any message. Every
connection begins with a `hello` and a `snapshot` of the current state. A lost connection is made again for as
long as the loop runs.

WatchError
 ├─ AddressInvalid     the URL cannot be the address of a server
 ├─ NotUnmask          another program answers there
 ├─ AccessRefused      the server does not accept this client or host name
 ├─ ProtocolMismatch   the server uses another version of the messages
 └─ ServerUnreachable  no connection within the allowed time
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import random
import urllib.parse
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeAlias, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from runtime.errors import UnmaskError
from runtime.messages import PROTOCOL_VERSION

logger = logging.getLogger(__name__)

MessageDict: TypeAlias = dict[str, Any]

DEFAULT_PORT = 8765
SCHEMES = {"ws": "ws", "http": "ws", "wss": "wss", "https": "wss"}
# Several heartbeats. A server that is silent for longer is gone, even if the network reports no error.
SILENCE_S = 10.0
OPEN_TIMEOUT_S = 5.0
MIN_DELAY_S = 0.25
MAX_DELAY_S = 10.0
# A snapshot holds every stream and face, about 300 bytes each.
MAX_MESSAGE_BYTES = 8 * 2**20


class WatchError(UnmaskError):
    """Base of the errors of `watch`.

    Args:
        url: Address of the WebSocket, or the text given as such.
        reason: Cause, without a full stop.
    """

    advice = "is `unmask monitor` running there?"

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}; {self.advice}"


class AddressInvalid(WatchError, ValueError):
    """The URL cannot be the address of a server."""

    advice = (
        "give the address that `unmask monitor` printed, such as ws://127.0.0.1:8765/ws or 127.0.0.1:8765"
    )


class NotUnmask(WatchError, ConnectionError):
    """Another program answers at the URL."""

    advice = "give the address that `unmask monitor` printed"


class AccessRefused(WatchError, PermissionError):
    """The server does not accept this client or host name."""

    advice = "use its IP address, or start it with --allow-origin"


class ProtocolMismatch(WatchError, ConnectionError):
    """The server uses another version of the messages than this client."""

    advice = "install the same version of unmask on both sides"


class ServerUnreachable(WatchError, ConnectionError):
    """There was no connection for the allowed time."""


class Watch:
    """Asynchronous iterator over the messages of a running unmask, returned by `watch`."""

    def __init__(self, receiver: _Receiver) -> None:
        # The generator refers to the receiver only: when the last reference to this object goes, as after a
        # `break`, the generator goes too and closes the connection.
        self._receiver = receiver
        self._messages = receiver.receive()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MessageDict:
        return await anext(self._messages)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Disconnect and end the iteration."""
        await self._messages.aclose()

    @property
    def url(self) -> str:
        """Address of the WebSocket."""
        return self._receiver.url

    @property
    def hello(self) -> MessageDict | None:
        """Last `hello`; None before the first."""
        return self._receiver.hello

    @property
    def connected(self) -> bool:
        """Whether there is a connection; without one, no received verdict is valid."""
        return self._receiver.connected

    @property
    def lost(self) -> int:
        """Number of broadcast messages that never arrived, from gaps in `seq` within a session."""
        return self._receiver.lost


class _Receiver:
    """Connection to one server, with its reconnection."""

    def __init__(
        self,
        url: str,
        give_up_s: float | None,
        silence_s: float,
        on_disconnect: Callable[[str], None] | None,
    ) -> None:
        self.url = url
        self.hello: MessageDict | None = None
        self.connected = False
        self.lost = 0
        self._give_up_s = give_up_s
        self._silence_s = silence_s
        self._on_disconnect = on_disconnect
        self._seq = 0
        self._disconnected_at = 0.0
        self._reported = False
        self._delay_s = MIN_DELAY_S

    async def receive(self) -> AsyncGenerator[MessageDict, None]:
        self._disconnected_at = asyncio.get_running_loop().time()
        # A generator, though it is declared as an iterator: it must be closed for the connection to be
        # closed.
        connections = cast(AsyncGenerator[ClientConnection, None], aiter(self._connect()))
        async with aclosing(connections):
            async for connection in connections:
                reason = "the connection was closed"
                try:
                    async with aclosing(self._messages(connection)) as messages:
                        async for message in messages:
                            yield message
                except ConnectionClosed as error:
                    reason = f"the connection was closed ({error})"
                except TimeoutError:
                    reason = "no message for too long"
                finally:
                    self._note_disconnection()
                # The iterator waits only after a failed attempt, not after a connection that broke.
                if (unreachable := self._retry(reason)) is not None:
                    raise unreachable
                await asyncio.sleep(next(self._delays()))

    def _connect(self) -> connect:
        options: dict[str, Any] = {"compression": None, "max_size": MAX_MESSAGE_BYTES}
        if _is_loopback(self.url):
            # A proxy of the system would look for the server on its own machine.
            options["proxy"] = None
        return connect(
            self.url,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=1,
            process_exception=self._process_failure,
            reconnect_delays=self._delays,
            **options,
        )

    def _delays(self) -> Generator[float, None, None]:
        """Yield growing delays; randomised, so that clients of one server do not return all at once."""
        while True:
            delay_s = self._delay_s * random.uniform(0.8, 1.2)
            self._delay_s = min(2 * self._delay_s, MAX_DELAY_S)
            yield delay_s

    def _process_failure(self, error: Exception) -> Exception | None:
        """Return the error that ends the iteration after a failed attempt; None to try again."""
        if isinstance(error, InvalidHandshake):
            refusal = self._refusal(error)
            return self._retry(refusal) if isinstance(refusal, str) else refusal
        if isinstance(error, TimeoutError):
            return self._retry("no answer for too long")
        if isinstance(error, ConnectionRefusedError):
            return self._retry("nothing listens there")
        if isinstance(error, OSError):
            return self._retry((error.strerror or str(error)).lower())
        return error

    def _retry(self, reason: str) -> ServerUnreachable | None:
        """Report a disconnection once; return an error if it has lasted too long."""
        if not self._reported:
            self._reported = True
            logger.warning("%s: %s; trying again", self.url, reason)
            if self._on_disconnect is not None:
                self._on_disconnect(reason)
        disconnected_s = asyncio.get_running_loop().time() - self._disconnected_at
        if self._give_up_s is not None and disconnected_s >= self._give_up_s:
            return ServerUnreachable(self.url, reason)
        return None

    def _note_connection(self) -> None:
        if not self.connected:
            self.connected, self._reported, self._delay_s = True, False, MIN_DELAY_S
            logger.info("watching %s", self.url)

    def _note_disconnection(self) -> None:
        if self.connected:
            self.connected = False
            self._disconnected_at = asyncio.get_running_loop().time()

    async def _messages(self, connection: ClientConnection) -> AsyncGenerator[MessageDict, None]:
        greeted = False
        while True:
            async with asyncio.timeout(self._silence_s):
                text = await connection.recv()
            message = self._parse(text)
            if message["type"] == "hello":
                greeted = True
                self._check_hello(message)
            elif not greeted:
                raise NotUnmask(self.url, "the first message is not the hello of unmask")
            elif message["type"] != "snapshot":
                self.lost += max(message["seq"] - self._seq - 1, 0)
            self._seq = message["seq"]
            self._note_connection()
            yield message

    def _parse(self, text: str | bytes) -> MessageDict:
        try:
            message = json.loads(text)
            if isinstance(message["type"], str) and isinstance(message["seq"], int):
                return dict(message)
        except (ValueError, KeyError, TypeError):
            pass
        raise NotUnmask(self.url, "it sends something that is no message of unmask")

    def _check_hello(self, hello: MessageDict) -> None:
        if hello.get("software") != "unmask":
            raise NotUnmask(self.url, "the first message is not the hello of unmask")
        if hello["protocol"] != PROTOCOL_VERSION:
            raise ProtocolMismatch(
                self.url, f"the server uses protocol {hello['protocol']}, this client {PROTOCOL_VERSION}"
            )
        if self.hello is not None and self.hello["session"] == hello["session"]:
            # The same run of the program: messages sent during the disconnection were missed.
            self.lost += max(hello["seq"] - self._seq, 0)
        self.hello = hello

    def _refusal(self, error: InvalidHandshake) -> WatchError | str:
        """Return the error to raise, or the reason for which to try again."""
        if isinstance(error, InvalidStatus):
            status = error.response.status_code
            if status in {403, 421}:
                return AccessRefused(self.url, f"the server refused (HTTP {status})")
            if status < 500:
                return NotUnmask(self.url, f"it is no WebSocket (HTTP {status})")
            return f"the server is not ready (HTTP {status})"
        if isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError):
            return "the connection was closed"
        return NotUnmask(self.url, f"it is no WebSocket ({error})")


def watch(
    url: str,
    *,
    give_up_s: float | None = None,
    silence_s: float = SILENCE_S,
    on_disconnect: Callable[[str], None] | None = None,
) -> Watch:
    """Receive the messages of a running unmask: `async for message in watch(url)`.

    Args:
        url: `ws://host:port/ws`, `http://host:port/` as for the dashboard, or `host[:port]`.
        give_up_s: Time in seconds without a connection after which to raise `ServerUnreachable`; None to try
            forever.
        silence_s: Time in seconds without a message after which to connect again.
        on_disconnect: Called with the reason when a connection is lost or the first one fails. From then
            until the next `hello`, no received verdict is valid.

    Returns:
        An asynchronous iterator over the messages as dictionaries, also a context manager. Its attribute
        `lost` counts missed messages.

    Raises:
        AddressInvalid: The URL cannot be the address of a server.
    """
    return Watch(_Receiver(websocket_url(url), give_up_s, silence_s, on_disconnect))


def websocket_url(text: str) -> str:
    """Return the address of a server's WebSocket.

    Args:
        text: Any address of the server: `ws://host:port/ws`, `http://host:port/`, `https://host/prefix/` or
            `host[:port]`.

    Returns:
        `ws://host:port/ws` or `wss://…`.

    Raises:
        AddressInvalid: The text has another form.
    """
    without_scheme = "://" not in text
    try:
        parts = urllib.parse.urlsplit(f"ws://{text}" if without_scheme else text.strip())
        port = parts.port
        # Names that no name server can look up fail here, not at every attempt to connect.
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except ValueError as error:
        raise AddressInvalid(text.rpartition("@")[2], "it is malformed") from error
    if parts.username is not None:
        raise AddressInvalid(host, "the server has no user names")
    if parts.scheme not in SCHEMES:
        raise AddressInvalid(text, f"{parts.scheme} is not a protocol of the server")
    if not host or any(character.isspace() for character in host):
        raise AddressInvalid(text or "(empty)", "it contains no host")
    if port is None and without_scheme:
        port = DEFAULT_PORT
    host = f"[{host}]" if ":" in host else host
    prefix = parts.path.rstrip("/")
    for page in ("/ws", "/overlay"):
        prefix = prefix.removesuffix(page)
    return f"{SCHEMES[parts.scheme]}://{host}{'' if port is None else f':{port}'}{prefix}/ws"


def _is_loopback(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
