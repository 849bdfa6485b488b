"""Session of one WebSocket client: its token, the messages to it, and its commands.

async def pause(command: PauseMessage, session: ClientSession) -> None:
    session.identity.require("control")
    ...

serve(broadcaster, commands={PauseMessage: pause})
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

from websockets.asyncio.server import broadcast
from websockets.exceptions import ConnectionClosed

from runtime.client_messages import (
    AuthMessage,
    ClientMessage,
    PreviewRequest,
    explain_invalid,
    parse_client_message,
)
from runtime.errors import UnmaskError
from runtime.messages import ResultMessage, encode
from runtime.serving.access.gate import TOKEN_NEEDED, Gate, Refusal
from runtime.serving.access.identity import Identity, RightMissing
from runtime.serving.broadcaster import Broadcaster, Subscription
from runtime.serving.client_queue import EncodedMessage, EncodedPreview
from runtime.serving.connection import ClientConnection
from runtime.serving.previews.publisher import PreviewPublisher, PreviewRequests
from runtime.serving.refusals import RefusalLog
from streams.errors import StreamError

logger = logging.getLogger(__name__)

# Largest message of a client; larger ones close the connection.
MAX_INCOMING_BYTES = 4096
# Longest wait for a token in the first message.
AUTH_TIMEOUT_S = 5.0
# Close codes for clients without a valid token, and for those whose token has ended.
TOKEN_REFUSED = 4401
TOKEN_ENDED = 4403
MAX_REASON_BYTES = 120

CommandHandler: TypeAlias = Callable[[Any, "ClientSession"], Awaitable[None]]
Commands: TypeAlias = Mapping[type[Any], CommandHandler]


@dataclass(frozen=True, kw_only=True)
class SessionServices:
    """Objects that the sessions of a server share.

    Args:
        broadcaster: Source of the messages.
        gate: Decides on tokens.
        commands: Handlers of the messages of clients, by their type.
        refusals: Log of refused tokens.
        previews: Source of the frames for clients that request them; None if there are none.
        send_timeout_s: Time in seconds after which a client that accepts no data is disconnected.
    """

    broadcaster: Broadcaster
    gate: Gate
    commands: Commands
    refusals: RefusalLog
    previews: PreviewPublisher | None
    send_timeout_s: float


class ClientSession:
    """Session of one WebSocket client.

    Args:
        connection: Its connection, which the gate has admitted.
        services: What it shares with the other sessions.

    Attributes:
        identity: Sender of commands and its rights; handlers call `identity.require`. A later token replaces
            it, but messages and frames remain those that the first one may read.
    """

    def __init__(self, connection: ClientConnection, services: SessionServices) -> None:
        assert connection.identity is not None
        self.identity: Identity = connection.identity
        self._reader: Identity = connection.identity
        self._connection = connection
        self._broadcaster = services.broadcaster
        self._gate = services.gate
        self._commands = services.commands
        self._refusals = services.refusals
        self._previews = services.previews
        self._send_timeout_s = services.send_timeout_s

    async def run(self) -> None:
        """Serve the client until it leaves or its token ends."""
        try:
            if not self._reader.rights and not await self._authenticate():
                return
        except ConnectionClosed as closed:
            logger.debug("a client has left: %s", closed)
            return
        if not self._reader.may("read"):
            await self._close(TOKEN_REFUSED, str(RightMissing("read")))
            return
        self._broadcaster = self._broadcaster.view(self._reader.streams)
        with (
            self._broadcaster.subscribe() as subscription,
            nullcontext() if self._previews is None else self._connect_previews(subscription) as requests,
        ):
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(self._send_all(subscription))
                try:
                    # Reading also detects that a client has left.
                    while True:
                        await self._handle(await self._receive(), requests)
                except ConnectionClosed as closed:
                    logger.debug("a client has left: %s", closed)
                sending.cancel()

    @property
    def token_ended(self) -> bool:
        """Whether a token in use, for reading or for commands, no longer gives the same rights."""
        # A client that has presented no token yet has a time limit of its own.
        return any(
            identity.rights and not self._gate.still_valid(identity)
            for identity in (self._reader, self.identity)
        )

    async def end(self) -> None:
        """Disconnect the client, because its token has ended."""
        await self._close(TOKEN_ENDED, "the token has expired or was removed")

    async def _authenticate(self) -> bool:
        """Wait for a token in the first message; return whether it is valid."""
        try:
            async with asyncio.timeout(AUTH_TIMEOUT_S):
                data = await self._receive()
        except TimeoutError:
            await self._close(TOKEN_REFUSED, TOKEN_NEEDED)
            return False
        message = parse_client_message(data)
        if not isinstance(message, AuthMessage):
            await self._close(TOKEN_REFUSED, TOKEN_NEEDED)
            return False
        outcome = self._gate.authenticate(message.token, self._connection.address)
        if isinstance(outcome, Refusal):
            self._refusals.note(outcome.cause, outcome.reason)
            await self._close(TOKEN_REFUSED, outcome.reason)
            return False
        self.identity = self._reader = outcome
        return True

    async def _receive(self) -> bytes:
        data: bytes = await self._connection.recv(decode=False)
        return data

    async def _handle(self, data: bytes, requests: PreviewRequests | None) -> None:
        """Carry out a message of the client, and answer it if it has an `id`; ignore anything else."""
        match parse_client_message(data):
            case None:
                if (invalid := explain_invalid(data)) is not None:
                    await self._answer(*invalid)
                return
            case AuthMessage() as message:
                error = self._change_identity(message)
            case PreviewRequest() as message:
                error = self._request_previews(message, requests)
            case message:
                error = await self._carry_out(message)
        if message.id is not None:
            await self._answer(message.id, error)

    async def _answer(self, id_: str, error: str) -> None:
        result = ResultMessage(id=id_, error=error or None)
        await self._connection.send(encode(result.stamp(*self._broadcaster.position)), text=True)

    @contextmanager
    def _connect_previews(self, subscription: Subscription) -> Iterator[PreviewRequests]:
        assert self._previews is not None

        def put(preview: EncodedPreview) -> None:
            if self._reader.may("read", stream=preview.stream):
                subscription.put_preview(preview)

        with self._previews.connect(put) as requests:
            yield requests

    def _request_previews(self, message: PreviewRequest, requests: PreviewRequests | None) -> str:
        if requests is None:
            return "this server sends no frames"
        requests.request(message)
        return ""

    def _change_identity(self, message: AuthMessage) -> str:
        outcome = self._gate.authenticate(message.token, self._connection.address)
        if isinstance(outcome, Refusal):
            self._refusals.note(outcome.cause, outcome.reason)
            return outcome.reason
        self.identity = outcome
        return ""

    async def _carry_out(self, message: ClientMessage) -> str:
        """Carry out a command; return why it was refused, or an empty text."""
        handler = self._commands.get(type(message))
        if handler is None:
            return "this server does not support the message"
        try:
            await handler(message, self)
        except (RightMissing, UnmaskError, StreamError) as error:
            return str(error)
        except ConnectionClosed:
            raise
        except Exception:
            logger.exception("internal error in a command of a client")
            return "internal error; the log has its traceback"
        return ""

    async def _send_all(self, subscription: Subscription) -> None:
        timeout_s = self._send_timeout_s
        try:
            async with asyncio.timeout(timeout_s) as deadline:
                for data in subscription.opening:
                    await self._connection.send(data, text=True)
                deadline.reschedule(None)
                subscription.send_at_once(self._send_at_once)
                async for encoded in subscription:
                    deadline.reschedule(asyncio.get_running_loop().time() + timeout_s)
                    await self._connection.send(encoded.data, text=isinstance(encoded, EncodedMessage))
                    deadline.reschedule(None)
        except TimeoutError:
            logger.info("a client accepted no data for %g s and is disconnected", timeout_s)
            # A closing handshake would wait behind the data that the client does not accept.
            self._connection.transport.abort()
        except ConnectionClosed as closed:
            logger.debug("a client has left: %s", closed)

    def _send_at_once(self, encoded: EncodedMessage) -> bool:
        """Send a message without waiting; return False if data for the client waits already."""
        if self._connection.transport.get_write_buffer_size():
            return False
        broadcast([self._connection], encoded.data, text=True)
        return True

    async def _close(self, code: int, reason: str) -> None:
        await self._connection.close(code, reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore"))
