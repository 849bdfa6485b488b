"""Numbering of the messages of all streams, and their distribution to sinks and subscriptions.

    broadcaster = Broadcaster(HelloMessage(version="0.1.0", session=new_session()), sinks=[metrics])
    broadcaster.publish(StreamMessage(stream="cam", state="live"))  # from any thread
    with broadcaster.subscribe() as subscription:  # on the event loop
        async for encoded in subscription: ...

The cost of `publish` does not depend on the number of subscriptions: the event loop distributes the messages.
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

from msgspec.structs import replace

from runtime.messages import BroadcastMessage, HeartbeatMessage, HelloMessage, SnapshotMessage, encode
from runtime.serving.client_queue import EncodedMessage, EncodedPreview, OutboundQueue, PreviewQueue
from runtime.serving.snapshot import SnapshotStore

Sink = Callable[[EncodedMessage], None]

# Messages that may wait between the publishing threads and the event loop, which may be blocked.
UNDISTRIBUTED = 1024
# Messages that may wait for one client: several about each face of many streams.
CAPACITY = 256
# When a message has waited longer than this, outdated messages to the client are dropped.
MAX_WAIT_S = 0.5

logger = logging.getLogger(__name__)


def new_session() -> str:
    """Return a random id for one run of the program."""
    return secrets.token_hex(8)


class Subscription:
    """Asynchronous iterator over the messages published since the call of `Broadcaster.subscribe`.

    For one coroutine. If it is slow, outdated messages are dropped. Frames come when no message waits.
    `send_at_once` spares the messages that find the queue empty the way through it.

    Args:
        broadcaster: Broadcaster that it belongs to.
        hello: First message for the client.
        snapshot: State at the time of subscribing.
        capacity: Maximum number of waiting messages.
    """

    def __init__(
        self, broadcaster: Broadcaster, hello: HelloMessage, snapshot: SnapshotMessage, capacity: int
    ) -> None:
        self.hello = hello
        self.snapshot = snapshot
        self._broadcaster = broadcaster
        self._queue: OutboundQueue[EncodedMessage] = OutboundQueue(capacity, max_wait_s=MAX_WAIT_S)
        self._previews = PreviewQueue()
        self._loop = asyncio.get_running_loop()
        self._not_empty = asyncio.Event()
        self._send_at_once: Callable[[EncodedMessage], bool] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._broadcaster.unsubscribe(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EncodedMessage | EncodedPreview:
        while (encoded := self._queue.pop(self._loop.time()) or self._previews.pop()) is None:
            self._not_empty.clear()
            await self._not_empty.wait()
        return encoded

    @property
    def opening(self) -> tuple[bytes, bytes]:
        """JSON of the two messages that open a connection: `hello` and `snapshot`."""
        return encode(self.hello), encode(self.snapshot)

    @property
    def lost(self) -> int:
        """Number of messages dropped because this subscription was slow."""
        return self._queue.lost

    def send_at_once(self, send: Callable[[EncodedMessage], bool]) -> None:
        """Pass each message that finds the queue empty to a function instead of queueing it.

        With many clients this costs a third of waking the coroutine of each.

        Args:
            send: Called on the event loop. Returns whether it sent the message; if not, it is queued.
        """
        self._send_at_once = send

    def put(self, encoded: EncodedMessage) -> None:
        """Send or queue a message; called by the broadcaster on the event loop."""
        # A message published before the subscription but distributed after it is already in the snapshot.
        if encoded.seq <= self.hello.seq:
            return
        if self._send_at_once is not None and not self._queue and self._send_at_once(encoded):
            self._queue.note_delivery(encoded)
            return
        self._queue.push(encoded, self._loop.time())
        self._not_empty.set()

    def put_preview(self, preview: EncodedPreview) -> None:
        """Queue a frame for a client that requested it; called on the event loop."""
        self._previews.push(preview)
        self._not_empty.set()


class Broadcaster:
    """Distribution of messages, with their numbering and the current state.

    Args:
        hello: First message for every client, without number and time.
        sinks: Called with every message in order, one at a time, on the publishing thread. A sink must return
            at once and must not raise.
        capacity: Maximum number of messages waiting for one subscription.
        wall: Returns Unix seconds, for the messages.
        clock: Returns monotonic seconds, for durations.
    """

    def __init__(
        self,
        hello: HelloMessage,
        *,
        sinks: Sequence[Sink] = (),
        capacity: int = CAPACITY,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hello = hello
        self.capacity = capacity
        self._sinks = tuple(sinks)
        self._wall = wall
        self._clock = clock
        self._started = self._last_published = clock()
        # Guards everything below; held for the time it takes to encode one message.
        self._lock = threading.Lock()
        self._seq = 0
        self._store = SnapshotStore(clock=clock)
        self._subscriptions: set[Subscription] = set()
        self._lost_by_closed = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._undistributed: OutboundQueue[EncodedMessage] = OutboundQueue(UNDISTRIBUTED)
        # The event loop on which the distribution is scheduled; None if it is not.
        self._scheduled_on: asyncio.AbstractEventLoop | None = None
        # For clients that may read certain streams only.
        self._views: dict[frozenset[str], Broadcaster] = {}

    def publish(self, message: BroadcastMessage) -> int:
        """Publish a message, from any thread, and return its number."""
        with self._lock:
            self._seq += 1
            stamped = message.stamp(self._seq, self._wall())
            encoded = EncodedMessage(stamped, encode(stamped))
            self._last_published = self._clock()
            self._store.apply(stamped)
            for sink in self._sinks:
                sink(encoded)
            if self._subscriptions:
                self._undistributed.push(encoded)
                self._schedule_distribution()
            for streams, view in self._views.items():
                if (visible := _visible(message, streams)) is not None:
                    view.publish(visible)
            return encoded.seq

    def view(self, streams: frozenset[str] | None) -> Broadcaster:
        """Return a broadcaster of the messages about certain streams, with numbers of their own.

        Views are kept, so that the numbers continue when a client connects again.

        Args:
            streams: Names of the streams; None for all, which is this broadcaster.
        """
        if streams is None:
            return self
        with self._lock:
            if streams not in self._views:
                view = Broadcaster(self.hello, capacity=self.capacity, wall=self._wall, clock=self._clock)
                current: list[BroadcastMessage] = [*self._store.streams()]
                for message in (*current, *self._store.verdicts()):
                    if (visible := _visible(message, streams)) is not None:
                        view.publish(visible)
                self._views[streams] = view
            return self._views[streams]

    def subscribe(self) -> Subscription:
        """Return a subscription to every message from now on; use it as a context manager on the event loop.

        Raises:
            RuntimeError: There is no running event loop, or there are subscriptions of another one.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._loop is not loop:
                self._move_to(loop)
            hello = self.hello.stamp(self._seq, self._wall())
            subscription = Subscription(self, hello, self._snapshot(), self.capacity)
            self._subscriptions.add(subscription)
            return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a subscription; does nothing if it was removed before."""
        with self._lock:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
                self._lost_by_closed += subscription.lost

    @property
    def seq(self) -> int:
        """Number of the last published message; 0 before the first."""
        with self._lock:
            return self._seq

    @property
    def position(self) -> tuple[int, float]:
        """Number of the last published message, and the present Unix time in seconds."""
        return self.seq, self._wall()

    @property
    def clients(self) -> int:
        """Number of subscriptions, including those of views."""
        with self._lock:
            return len(self._subscriptions) + sum(view.clients for view in self._views.values())

    @property
    def lost(self) -> int:
        """Number of messages lost by slow subscriptions, including closed ones."""
        with self._lock:
            lost = self._lost_by_closed + sum(subscription.lost for subscription in self._subscriptions)
            return lost + sum(view.lost for view in self._views.values())

    @property
    def uptime_s(self) -> float:
        """Seconds since the broadcaster was created."""
        return self._clock() - self._started

    @property
    def silent_s(self) -> float:
        """Seconds since the last message, or since the start; heartbeats keep this small."""
        with self._lock:
            return self._clock() - self._last_published

    def snapshot(self) -> SnapshotMessage:
        """Return the current state: every stream and every valid verdict."""
        with self._lock:
            return self._snapshot()

    def _snapshot(self) -> SnapshotMessage:
        streams, verdicts = tuple(self._store.streams()), tuple(self._store.verdicts())
        return SnapshotMessage(seq=self._seq, time=self._wall(), streams=streams, verdicts=verdicts)

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._subscriptions and self._loop is not None and not self._loop.is_closed():
            raise RuntimeError("a broadcaster serves the subscriptions of one event loop")
        # A distribution that is still scheduled on the previous event loop will not run.
        self._subscriptions.clear()
        self._undistributed.clear()
        self._scheduled_on = None
        self._loop = loop

    def _schedule_distribution(self) -> None:
        if self._loop is None or self._scheduled_on is self._loop:
            return
        try:
            self._loop.call_soon_threadsafe(self._distribute, self._loop)
        except RuntimeError:
            logger.debug("the event loop is closed; its subscriptions are removed")
            self._subscriptions.clear()
            self._loop = None
        else:
            self._scheduled_on = self._loop

    def _distribute(self, loop: asyncio.AbstractEventLoop) -> None:
        """Move all waiting messages to every subscription; runs on their event loop."""
        with self._lock:
            if loop is not self._loop:
                return
            self._scheduled_on = None
            subscriptions = tuple(self._subscriptions)
            waiting = []
            while (encoded := self._undistributed.pop()) is not None:
                waiting.append(encoded)
        for subscription in subscriptions:
            for encoded in waiting:
                subscription.put(encoded)


def _visible(message: BroadcastMessage, streams: frozenset[str]) -> BroadcastMessage | None:
    """Return what of a message is about certain streams; None if nothing is."""
    if isinstance(message, HeartbeatMessage):
        return replace(
            message, streams=tuple(health for health in message.streams if health.stream in streams)
        )
    return message if message.stream in streams else None
