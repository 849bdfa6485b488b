"""Watches a running unmask from another program.

    from unmask import watch

    async for message in watch("127.0.0.1:8765"):
        if message["type"] == "verdict" and message["state"] == "fake":
            print(message["stream"], message["face"], message["p_fake"])

The connection is made again whenever it breaks, for as long as the loop runs. Each one begins with a `hello`
and a `snapshot` of what holds. `runtime/messages.py` types every message.

WatchError
 ├─ AddressInvalid     the URL is not one that a server could have
 ├─ NotUnmask          something else answers there
 ├─ AccessRefused      the server does not answer to this host name
 ├─ ProtocolMismatch   the server speaks a newer language
 └─ ServerUnreachable  nothing answered for too long
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import random
import urllib.parse
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeAlias

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from runtime.errors import UnmaskError
from runtime.messages import PROTOCOL_VERSION

logger = logging.getLogger(__name__)

MessageDict: TypeAlias = dict[str, Any]

DEFAULT_PORT = 8765
SCHEMES = {"ws": "ws", "http": "ws", "wss": "wss", "https": "wss"}
# Several heartbeats: a server that is this silent is gone, whatever the network says.
SILENCE_S = 10.0
OPEN_TIMEOUT_S = 5.0
FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 10.0
# A snapshot holds every stream and face, some 300 bytes each.
MAX_MESSAGE_BYTES = 8 * 2**20


class WatchError(UnmaskError):
    """Says why a server cannot be watched.

    Args:
        url: The WebSocket's address, or what was given as such.
        reason: What happened, without a full stop.
    """

    advice = "is `unmask monitor` running there?"

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}; {self.advice}"


class AddressInvalid(WatchError, ValueError):
    """Says that the URL is not one that a server could have."""

    advice = (
        "give the address that `unmask monitor` printed, such as ws://127.0.0.1:8765/ws or 127.0.0.1:8765"
    )


class NotUnmask(WatchError, ConnectionError):
    """Says that something answers at the URL, but not unmask."""

    advice = "give the address that `unmask monitor` printed"


class AccessRefused(WatchError, PermissionError):
    """Says that the server does not let this client in."""

    advice = "use its IP address, or start it with --allow-origin"


class ProtocolMismatch(WatchError, ConnectionError):
    """Says that the server speaks a newer version of the protocol than this client."""

    advice = "install the same version of unmask on both sides"


class ServerUnreachable(WatchError, ConnectionError):
    """Says that no connection came about for the time that was allowed."""


class Watch:
    """Iterates over the messages of a running unmask; `watch` makes it."""

    def __init__(self, receiver: _Receiver) -> None:
        # The generator knows the receiver only: when the last reference to this goes, as after a `break`,
        # the generator goes too and closes the connection.
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
        """Disconnect, and end the iteration."""
        await self._messages.aclose()

    @property
    def url(self) -> str:
        """Give the WebSocket's address."""
        return self._receiver.url

    @property
    def hello(self) -> MessageDict | None:
        """Give the last `hello`; None before the first."""
        return self._receiver.hello

    @property
    def connected(self) -> bool:
        """Tell whether a connection stands; while none does, no verdict that was received holds."""
        return self._receiver.connected

    @property
    def lost(self) -> int:
        """Count the broadcast messages of the runs watched that never arrived, found by gaps in `seq`."""
        return self._receiver.lost


class _Receiver:
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

    async def receive(self) -> AsyncGenerator[MessageDict, None]:
        loop = asyncio.get_running_loop()
        lonely_since = loop.time()
        delay_s = FIRST_DELAY_S
        warned = False
        while True:
            reason = "the connection was closed"
            try:
                async with self._connect() as connection:
                    try:
                        async with aclosing(self._converse(connection)) as messages:
                            async for message in messages:
                                if not self.connected:
                                    self.connected, warned, delay_s = True, False, FIRST_DELAY_S
                                    logger.info("watching %s", self.url)
                                yield message
                    finally:
                        connected, self.connected = self.connected, False
                        if connected:
                            lonely_since = loop.time()
            except WatchError:
                raise
            except ConnectionClosed as error:
                reason = f"the connection was closed ({error})"
            except InvalidHandshake as error:
                reason = self._refusal(error)
            except TimeoutError:
                reason = "nothing was heard for too long"
            except ConnectionRefusedError:
                reason = "nothing listens there"
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
            if not warned:
                logger.warning("%s: %s; trying again", self.url, reason)
                warned = True
                if self._on_disconnect is not None:
                    self._on_disconnect(reason)
            if self._give_up_s is not None and loop.time() - lonely_since >= self._give_up_s:
                raise ServerUnreachable(self.url, reason)
            # Not all clients of a server that restarts should come back in the same moment.
            await asyncio.sleep(delay_s * random.uniform(0.8, 1.2))
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def _connect(self) -> connect:
        options: dict[str, Any] = {"compression": None, "max_size": MAX_MESSAGE_BYTES}
        if _is_loopback(self.url):
            # A proxy that the system is set to use would look for the server on itself.
            options["proxy"] = None
        return connect(self.url, open_timeout=OPEN_TIMEOUT_S, close_timeout=1, **options)

    async def _converse(self, connection: ClientConnection) -> AsyncGenerator[MessageDict, None]:
        greeted = False
        while True:
            async with asyncio.timeout(self._silence_s):
                text = await connection.recv()
            message = self._parse(text)
            if message["type"] == "hello":
                greeted = True
                self._greet(message)
            elif not greeted:
                raise NotUnmask(self.url, "the first message is not the hello of unmask")
            elif message["type"] != "snapshot":
                self.lost += max(message["seq"] - self._seq - 1, 0)
            self._seq = message["seq"]
            yield message

    def _parse(self, text: str | bytes) -> MessageDict:
        try:
            message = json.loads(text)
            if isinstance(message["type"], str) and isinstance(message["seq"], int):
                return dict(message)
        except (ValueError, KeyError, TypeError):
            pass
        raise NotUnmask(self.url, "what it sends is no message of unmask")

    def _greet(self, hello: MessageDict) -> None:
        if hello.get("software") != "unmask":
            raise NotUnmask(self.url, "the first message is not the hello of unmask")
        if hello["protocol"] != PROTOCOL_VERSION:
            raise ProtocolMismatch(
                self.url, f"the server speaks protocol {hello['protocol']}, this client {PROTOCOL_VERSION}"
            )
        if self.hello is not None and self.hello["session"] == hello["session"]:
            # The same run of the program: what it said while the connection was down was missed.
            self.lost += max(hello["seq"] - self._seq, 0)
        self.hello = hello

    def _refusal(self, error: InvalidHandshake) -> str:
        if isinstance(error, InvalidStatus):
            status = error.response.status_code
            if status in {403, 421}:
                raise AccessRefused(self.url, f"the server refused (HTTP {status})") from error
            if status < 500:
                raise NotUnmask(self.url, f"it is no WebSocket (HTTP {status})") from error
            return f"the server is not ready (HTTP {status})"
        if isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError):
            return "the connection was closed"
        raise NotUnmask(self.url, f"it is no WebSocket ({error})") from error


def watch(
    url: str,
    *,
    give_up_s: float | None = None,
    silence_s: float = SILENCE_S,
    on_disconnect: Callable[[str], None] | None = None,
) -> Watch:
    """Watch a running unmask: `async for message in watch(url)`.

    Args:
        url: `ws://host:port/ws`, the dashboard's `http://host:port/`, or `host[:port]`.
        give_up_s: Seconds without a connection after which to raise `ServerUnreachable`; None tries for ever.
        silence_s: Seconds without a message after which the connection counts as dead and is made again.
        on_disconnect: Called with the reason when a connection breaks or the first cannot be made. From then
            until the next `hello`, no verdict that was received holds.

    Returns:
        An asynchronous iterator over the messages as dictionaries, and context manager; its `lost` counts
        the messages missed.

    Raises:
        AddressInvalid: The URL is not one that a server could have.
    """
    return Watch(_Receiver(websocket_url(url), give_up_s, silence_s, on_disconnect))


def websocket_url(text: str) -> str:
    """Turn any address of a server into that of its WebSocket.

    Args:
        text: `ws://host:port/ws`, `http://host:port/`, `https://host/prefix/` or `host[:port]`.

    Returns:
        `ws://host:port/ws` or `wss://…`.

    Raises:
        AddressInvalid: The text is none of these.
    """
    bare = "://" not in text
    try:
        parts = urllib.parse.urlsplit(f"ws://{text}" if bare else text.strip())
        port = parts.port
        # What no name server could look up fails here rather than at every attempt.
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except ValueError as error:
        raise AddressInvalid(text.rpartition("@")[2], "it is malformed") from error
    if parts.username is not None:
        raise AddressInvalid(host, "the server knows no user names")
    if parts.scheme not in SCHEMES:
        raise AddressInvalid(text, f"{parts.scheme} is no protocol of the server")
    if not host or any(character.isspace() for character in host):
        raise AddressInvalid(text or "(empty)", "there is no host in it")
    if port is None and bare:
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
