"""The one place through which every message goes out: it numbers them and hands each to all who listen.

    hub = Hub(Identity(version="0.1.0", session=new_session()), sinks=[metrics])
    hub.publish(StreamMessage(stream="cam", state="live"))  # from any thread
    with hub.subscribe() as subscription:  # on the event loop
        async for parcel in subscription: ...

Publishing costs the same with no listener as with a thousand: the event loop does the rest.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from runtime.messages import (
    BroadcastMessage,
    HelloDict,
    Identity,
    SnapshotDict,
    encode,
    snapshot,
)
from runtime.serving.client_queue import EncodedMessage, OutboundQueue
from runtime.serving.snapshot import SnapshotStore

Sink = Callable[[EncodedMessage], None]

logger = logging.getLogger(__name__)


def new_session() -> str:
    """Make a name for this run of the program, different from any other's."""
    return secrets.token_hex(8)


class Subscription:
    """Receives what the hub broadcasts, from the moment it was made; `Broadcaster.subscribe` makes it.

    Iterate over it in one coroutine. One that is slow loses old messages and keeps the newest.

    Args:
        hub: Where it came from.
        hello: Opens the conversation.
        snapshot: What holds at the moment of joining.
        capacity: How many messages may wait.
    """

    def __init__(
        self, broadcaster: Broadcaster, hello: HelloDict, snapshot: SnapshotDict, capacity: int
    ) -> None:
        self.hello = hello
        self.snapshot = snapshot
        self._hub = broadcaster
        self._backlog = OutboundQueue(capacity)
        self._filled = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._hub.unsubscribe(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EncodedMessage:
        while (encoded := self._backlog.pop()) is None:
            self._filled.clear()
            await self._filled.wait()
        return encoded

    @property
    def greeting(self) -> tuple[bytes, bytes]:
        """Give what a client that joins is told first, as JSON: `hello` and `snapshot`."""
        return encode(self.hello).encode("ascii"), encode(self.snapshot).encode("ascii")

    @property
    def lost(self) -> int:
        """Count the messages that gave way because this listener was slow."""
        return self._backlog.lost

    def put(self, encoded: EncodedMessage) -> None:
        """Queue a message; called by the hub, on the event loop."""
        # What was published before it joined, but handed round after, is already in its snapshot.
        if encoded.seq > self.hello["seq"]:
            self._backlog.push(encoded)
            self._filled.set()


class Broadcaster:
    """Numbers the broadcast messages, remembers what holds, and passes every message on.

    Args:
        identity: What `hello` says.
        sinks: Called with every message in order, one at a time, on the publishing thread. A sink must return
            at once and must not raise.
        capacity: How many messages may wait for one subscription.
        wall: Gives Unix seconds, for the messages.
        clock: Gives seconds that never jump, for durations.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        sinks: Sequence[Sink] = (),
        capacity: int = 64,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.identity = identity
        self.capacity = capacity
        self._sinks = tuple(sinks)
        self._wall = wall
        self._clock = clock
        self._started = self._last_published = clock()
        # Guards all that follows; held for the time it takes to encode one message.
        self._lock = threading.Lock()
        self._seq = 0
        self._board = SnapshotStore()
        self._subscriptions: set[Subscription] = set()
        self._lost_by_gone = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        # Between the publishing threads and the loop. Bounded, in case that the loop hangs.
        self._outbox = OutboundQueue(1024)
        self._hand_round_due = False

    def publish(self, message: BroadcastMessage) -> int:
        """Broadcast a message; safe from any thread.

        Args:
            message: What to say.

        Returns:
            The number that the message got.
        """
        with self._lock:
            self._seq += 1
            stamped = message.stamp(self._seq, self._wall())
            encoded = EncodedMessage(stamped, encode(stamped).encode("ascii"))
            self._last_published = self._clock()
            self._board.apply(stamped)
            for sink in self._sinks:
                sink(encoded)
            if self._subscriptions:
                self._outbox.push(encoded)
                self._wake_loop()
            return encoded.seq

    def subscribe(self) -> Subscription:
        """Join: receive every message from now on.

        Returns:
            The subscription, to be used as a context manager on the running event loop.

        Raises:
            RuntimeError: No event loop runs here, or others have subscribed from another loop.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._subscriptions and self._loop is not loop:
                raise RuntimeError("a hub serves the subscriptions of one event loop")
            self._loop = loop
            hello = self.identity.hello(self._seq, self._wall())
            subscription = Subscription(self, hello, self._snapshot(), self.capacity)
            self._subscriptions.add(subscription)
            return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Leave; a subscription that has left already is no error."""
        with self._lock:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
                self._lost_by_gone += subscription.lost

    @property
    def seq(self) -> int:
        """Give the number of the last broadcast message; 0 before the first."""
        with self._lock:
            return self._seq

    @property
    def clients(self) -> int:
        """Count the subscriptions."""
        with self._lock:
            return len(self._subscriptions)

    @property
    def lost(self) -> int:
        """Count the messages that slow subscriptions lost, over all there ever were."""
        with self._lock:
            return self._lost_by_gone + sum(subscription.lost for subscription in self._subscriptions)

    @property
    def uptime_s(self) -> float:
        """Give the seconds since the hub was made."""
        return self._clock() - self._started

    @property
    def silent_s(self) -> float:
        """Give the seconds since the last message, or since the start: heartbeats keep this small."""
        with self._lock:
            return self._clock() - self._last_published

    def snapshot(self) -> SnapshotDict:
        """Give what holds now: the state of every stream and the verdicts that have not expired."""
        with self._lock:
            return self._snapshot()

    def _snapshot(self) -> SnapshotDict:
        now = self._wall()
        return snapshot(self._seq, now, self._board.streams(), self._board.verdicts(now))

    def _wake_loop(self) -> None:
        if self._hand_round_due or self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._hand_round)
        except RuntimeError:
            logger.debug("the event loop is gone, and its subscriptions with it")
            self._subscriptions.clear()
            self._loop = None
        else:
            self._hand_round_due = True

    def _hand_round(self) -> None:
        with self._lock:
            self._hand_round_due = False
            subscriptions = tuple(self._subscriptions)
            messages_ = []
            while (encoded := self._outbox.pop()) is not None:
                messages_.append(encoded)
        for subscription in subscriptions:
            for encoded in messages_:
                subscription.put(encoded)
