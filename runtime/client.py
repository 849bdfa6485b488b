"""Client of a running unmask, for other programs.

    from unmask import watch

    async for message in watch("127.0.0.1:8765"):
        if message["type"] == "verdict" and message["state"] == "fake":
            print(message["stream"], message["face"], message["p_fake"])

Messages are dictionaries as they were sent, so that fields of later versions are kept. `runtime/messages.py`
defines them; `msgspec.convert(message, runtime.messages.Message)` returns the struct of any message. Every
connection begins with a `hello` and a `snapshot` of the current state. After a lost connection the client
reconnects, for as long as the loop runs. For a slow program, outdated messages are dropped.

WatchError
 ├─ AddressInvalid     the URL cannot be the address of a server
 ├─ NotUnmask          another program listens there
 ├─ AccessRefused      the server does not accept this client or host name
 │   └─ TokenRefused   the server requires a token, or the token is wrong or has ended
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
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeAlias, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from runtime.errors import UnmaskError, os_reason
from runtime.message_delay import MessageDelay
from runtime.messages import PROTOCOL_VERSION
from runtime.serving.client_queue import OutboundQueue, Subject

logger = logging.getLogger(__name__)

MessageDict: TypeAlias = dict[str, Any]

DEFAULT_PORT = 8765
SCHEMES = {"ws": "ws", "http": "ws", "wss": "wss", "https": "wss"}
# Several heartbeats. After a longer silence the connection is dead, even if the network reports no error.
SILENCE_S = 10.0
OPEN_TIMEOUT_S = 5.0
MIN_DELAY_S = 0.25
MAX_DELAY_S = 10.0
# Messages that may wait for the program: several about each face of many streams.
CAPACITY = 1024
# Close codes of a server that requires another token; see `runtime.serving.session`.
TOKEN_CODES = frozenset({4401, 4403})
# From this age on, outdated messages are dropped.
MAX_WAIT_S = 0.5
# The fields of a message that this client uses; all others are passed on as they are.
ALWAYS_NEEDED = (("type", str), ("seq", int), ("time", int | float))
NEEDED_FIELDS = {
    "hello": (("session", str),),
    "verdict": (("stream", str), ("face", int)),
    "stream": (("stream", str), ("state", str)),
}
# A snapshot contains every stream and face, about 300 bytes each.
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
    """Another program listens at the URL."""

    advice = "give the address that `unmask monitor` printed"


class AccessRefused(WatchError, PermissionError):
    """The server does not accept this client or host name."""

    advice = "connect to its IP address, or start `unmask monitor` with --allow-origin"


class TokenRefused(AccessRefused):
    """The server requires a token, or the token is wrong, has expired or was removed."""

    advice = "give a valid token: watch(url, token=...)"


class ProtocolMismatch(WatchError, ConnectionError):
    """The server uses another version of the messages than this client."""

    advice = "install the same version of unmask on both sides"


class ServerUnreachable(WatchError, ConnectionError):
    """There was no connection for the allowed time."""


class Watch:
    """Asynchronous iterator over the messages of a running unmask, returned by `watch`.

    The connection is read by a task of its own. If the program is slow or blocks the event loop, outdated
    messages are dropped and counted in `lost`. Cancelling the wait for a message, as `asyncio.timeout` does,
    does not end the iteration.
    """

    def __init__(self, receiver: _Receiver) -> None:
        # The task refers to the receiver only, so that this object is collected once nothing else refers to
        # it, as after a `break`. The task is then cancelled and closes the connection.
        self._receiver = receiver
        self._task: asyncio.Task[None] | None = None
        self._last: _Received | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MessageDict:
        if self._task is None:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._receiver.run(), name=f"watch {self.url}")
            weakref.finalize(self, _cancel, loop, self._task).atexit = False
        self._last = await self._receiver.next()
        return self._last.message

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
        self._receiver.end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def url(self) -> str:
        """Address of the WebSocket."""
        return self._receiver.url

    @property
    def hello(self) -> MessageDict | None:
        """Last `hello` received; None before the first."""
        return self._receiver.hello

    @property
    def connected(self) -> bool:
        """Whether there is a connection; without one, no received verdict is valid."""
        return self._receiver.connected

    @property
    def lost(self) -> int:
        """Number of broadcast messages that this program did not receive.

        The sum of those that the server dropped, known from gaps in `seq` within a session, and those dropped
        by this client because the program was slow.
        """
        return self._receiver.lost

    @property
    def age_s(self) -> float:
        """Age in seconds, at present, of the message that was returned last; 0 before the first.

        It is counted from the time of sending. The offset between the two clocks is estimated from the
        fastest message of the connection; see `runtime.message_delay`.
        """
        return 0.0 if self._last is None else self._last.age_s


class _Received:
    """Message with the time at which it was sent, on the clock of the event loop."""

    def __init__(self, message: MessageDict, sent_at: float, clock: Callable[[], float]) -> None:
        self.message = message
        self.sent_at = sent_at
        self._clock = clock

    @property
    def subject(self) -> Subject:
        """Key of the face, stream or program that the message is about."""
        kind = self.message["type"]
        if kind == "verdict":
            return (kind, self.message["stream"], self.message["face"])
        return (kind, self.message["stream"]) if kind == "stream" else (kind,)

    @property
    def ends_verdicts(self) -> bool:
        """Whether the message ends the verdicts of its stream."""
        return bool(self.message["type"] == "stream" and self.message["state"] != "live")

    @property
    def age_s(self) -> float:
        """Seconds since the message was sent."""
        return max(self._clock() - self.sent_at, 0.0)


class _Receiver:
    """Connection to one server, with its reconnection, and the queue of its messages."""

    def __init__(
        self,
        url: str,
        give_up_s: float | None,
        silence_s: float,
        on_disconnect: Callable[[str], None] | None,
        token: str | None,
    ) -> None:
        self.url = url
        self._token = None if token is None else token.strip()
        self.hello: MessageDict | None = None
        self.connected = False
        self._give_up_s = give_up_s
        self._silence_s = silence_s
        self._on_disconnect = on_disconnect
        self._seq = 0
        self._missed = 0
        self._disconnected_at = 0.0
        self._reported = False
        self._delay_s = MIN_DELAY_S
        # Hello and snapshot of a connection come before its broadcast messages and are never dropped.
        self._opening: deque[_Received] = deque()
        self._queue: OutboundQueue[_Received] = OutboundQueue(CAPACITY, max_wait_s=MAX_WAIT_S)
        self._arrived = 0
        self._not_empty = asyncio.Event()
        self._ended = False
        self._failure: BaseException | None = None

    @property
    def lost(self) -> int:
        return self._missed + self._queue.lost

    async def next(self) -> _Received:
        """Return the next message.

        Raises:
            WatchError: The connection failed for good.
            StopAsyncIteration: The iteration has ended.
        """
        await self._drain_socket()
        while not self._ended:
            if (received := self._pop()) is not None:
                return received
            if self._failure is not None:
                self._ended = True
                raise self._failure
            self._not_empty.clear()
            await self._not_empty.wait()
        raise StopAsyncIteration

    async def run(self) -> None:
        """Receive until the task is cancelled or the connection fails for good."""
        try:
            await self._receive()
        except Exception as error:  # noqa: BLE001  raised by `next`
            self._failure = error
        finally:
            self.connected = False
            self._not_empty.set()

    def end(self) -> None:
        """End the iteration, also for a caller that waits in `next`."""
        self._ended = True
        self._not_empty.set()

    def _pop(self) -> _Received | None:
        if self._opening:
            return self._opening.popleft()
        return self._queue.pop(asyncio.get_running_loop().time())

    async def _drain_socket(self) -> None:
        """Queue all messages that wait in the socket, so that the queue can drop the outdated ones.

        If the program blocks the event loop between two messages, the receiving task runs only here.
        """
        loop = asyncio.get_running_loop()
        deadline, idle = loop.time() + MAX_WAIT_S, 0
        # A message takes up to three passes of the event loop from the socket to the queue.
        while idle < 4 and loop.time() < deadline:
            arrived = self._arrived
            await asyncio.sleep(0)
            idle = 0 if self._arrived > arrived else idle + 1

    async def _receive(self) -> None:
        self._disconnected_at = asyncio.get_running_loop().time()
        # websockets declares an iterator but returns a generator; closing it closes the connection.
        connections = cast(AsyncGenerator[ClientConnection, None], aiter(self._connect()))
        async with aclosing(connections):
            async for connection in connections:
                reason = "the connection was closed"
                try:
                    await self._receive_from(connection)
                except ConnectionClosed as error:
                    if error.rcvd is not None and error.rcvd.code in TOKEN_CODES:
                        raise TokenRefused(self.url, error.rcvd.reason) from error
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
        if self._token is not None:
            options["additional_headers"] = {"Authorization": f"Bearer {self._token}"}
        if _is_loopback(self.url):
            # A proxy configured in the system would resolve a loopback address to itself.
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
        """Yield growing delays; randomised, so that the clients of a server do not reconnect all at once."""
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
            return self._retry(os_reason(error))
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

    async def _receive_from(self, connection: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        delay = MessageDelay()
        first = True
        while True:
            async with asyncio.timeout(self._silence_s):
                text = await connection.recv()
            message = self._parse(text, first=first)
            first = False
            now = loop.time()
            received = _Received(message, now - delay.measure(message["time"], now), loop.time)
            if message["type"] == "hello":
                self._start_session(message)
                self._opening.append(received)
            elif message["type"] == "snapshot":
                self._opening.append(received)
            else:
                self._missed += max(message["seq"] - self._seq - 1, 0)
                self._queue.push(received, received.sent_at)
            self._seq = message["seq"]
            self._arrived += 1
            self._note_connection()
            self._not_empty.set()

    def _parse(self, text: str | bytes, *, first: bool) -> MessageDict:
        try:
            message = dict(json.loads(text))
            if first:
                self._check_first(message)
            needed = NEEDED_FIELDS.get(message["type"], ())
            if all(isinstance(message[name], kind) for name, kind in (*ALWAYS_NEEDED, *needed)):
                return message
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise NotUnmask(self.url, "it sent something that is not a message of unmask")

    def _check_first(self, message: MessageDict) -> None:
        # Checked before the fields, because another version of the messages may have other fields.
        if message["type"] != "hello" or message.get("software") != "unmask":
            raise NotUnmask(self.url, "the first message is not the hello of unmask")
        if message["protocol"] != PROTOCOL_VERSION:
            raise ProtocolMismatch(
                self.url, f"the server uses protocol {message['protocol']}, this client {PROTOCOL_VERSION}"
            )

    def _start_session(self, hello: MessageDict) -> None:
        if self.hello is not None and self.hello["session"] == hello["session"]:
            # The program was not restarted: messages sent during the disconnection were missed.
            self._missed += max(hello["seq"] - self._seq, 0)
        self.hello = hello
        # The snapshot that follows replaces all messages of the previous connection.
        self._opening.clear()
        self._queue.clear()

    def _refusal(self, error: InvalidHandshake) -> WatchError | str:
        """Return the error to raise, or the reason for which to try again."""
        if isinstance(error, InvalidStatus):
            status = error.response.status_code
            if status == 401:
                return TokenRefused(self.url, "the server refused the token (HTTP 401)")
            if status == 429:
                return "the server asks to wait after wrong tokens (HTTP 429)"
            if status in {403, 421}:
                return AccessRefused(self.url, f"the server refused (HTTP {status})")
            if status < 500:
                return NotUnmask(self.url, f"it is not a WebSocket (HTTP {status})")
            return f"the server is not ready (HTTP {status})"
        if isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError):
            return "the connection was closed"
        return NotUnmask(self.url, f"it is not a WebSocket ({error})")


def watch(
    url: str,
    *,
    give_up_s: float | None = None,
    silence_s: float = SILENCE_S,
    on_disconnect: Callable[[str], None] | None = None,
    token: str | None = None,
) -> Watch:
    """Receive the messages of a running unmask: `async for message in watch(url)`.

    Args:
        url: `ws://host:port/ws`, `http://host:port/` as for the dashboard, or `host[:port]`.
        give_up_s: Time in seconds without a connection after which to raise `ServerUnreachable`; None to try
            forever.
        silence_s: Time in seconds without a message after which to connect again.
        on_disconnect: Called with the reason when a connection is lost or the first one fails. From then
            until the next `hello`, no received verdict is valid.
        token: Token, where the server requires one; white space around it is ignored.

    Returns:
        An asynchronous iterator over the messages as dictionaries, also a context manager. Its attribute
        `lost` counts missed messages; `age_s` is the age of the message returned last.

    Raises:
        AddressInvalid: The URL cannot be the address of a server.
    """
    return Watch(_Receiver(websocket_url(url), give_up_s, silence_s, on_disconnect, token))


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
        # An impossible host name fails here, not at every attempt to connect.
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except ValueError as error:
        raise AddressInvalid("the address", "it is malformed") from error
    if parts.username is not None:
        raise AddressInvalid(host, "the server has no user names")
    if parts.scheme not in SCHEMES:
        raise AddressInvalid(f"{parts.scheme}://{host}", f"{parts.scheme} is not a protocol of the server")
    if not host or any(character.isspace() for character in host):
        raise AddressInvalid("the address", "it contains no host")
    if port is None and without_scheme:
        port = DEFAULT_PORT
    host = f"[{host}]" if ":" in host else host
    prefix = parts.path.rstrip("/")
    for page in ("/ws", "/overlay"):
        prefix = prefix.removesuffix(page)
    return f"{SCHEMES[parts.scheme]}://{host}{'' if port is None else f':{port}'}{prefix}/ws"


def _cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    """Cancel a task from any thread: the garbage collector may run on another one than the event loop."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(task.cancel)


def _is_loopback(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
