"""Broadcaster: consecutive numbers from any thread, and no waiting for slow subscriptions."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from runtime.messages import HeartbeatMessage, StreamMessage, encode
from runtime.serving.broadcaster import Broadcaster, Subscription, new_session
from runtime.serving.client_queue import EncodedMessage
from tests.support.aio import TIMEOUT_S
from tests.support.wire import HELLO, make_broadcaster, validate, verdict


class Clock:
    """Clock that is set by hand."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def take(subscription: Any, count: int) -> list[EncodedMessage]:
    """Receive a number of messages."""
    return [await anext(subscription) for _ in range(count)]


async def next_seq(subscription: Subscription) -> int:
    """Return the number of the next message."""
    encoded = await anext(subscription)
    assert isinstance(encoded, EncodedMessage)
    return encoded.seq


def test_published_messages_are_numbered_and_timed() -> None:
    """Messages get the numbers 1, 2, 3 and the time of publishing."""
    wall = Clock(1735689600.0)
    published: list[EncodedMessage] = []
    broadcaster = make_broadcaster(sinks=[published.append], wall=wall)
    assert broadcaster.seq == 0
    assert broadcaster.publish(StreamMessage(stream="cam", state="live")) == 1
    wall.now += 0.125
    assert broadcaster.publish(verdict()) == 2
    assert broadcaster.publish(HeartbeatMessage(uptime_s=1.0)) == broadcaster.seq == 3
    assert [(encoded.seq, encoded.message.time) for encoded in published] == [
        (1, 1735689600.0),
        (2, 1735689600.125),
        (3, 1735689600.125),
    ]
    for encoded in published:
        assert encoded.data == encode(encoded.message)
        validate(encoded.message)


def test_threads_publish_without_a_gap() -> None:
    """Numbers are unique, and sinks and subscriptions receive them in order, whichever thread publishes."""
    published: list[EncodedMessage] = []
    broadcaster = make_broadcaster(sinks=[published.append], capacity=10_000)

    def work(stream: str) -> None:
        for _ in range(200):
            broadcaster.publish(verdict(stream=stream))

    async def listen() -> list[int]:
        with broadcaster.subscribe() as subscription:
            threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
            for thread in threads:
                thread.start()
            received = await take(subscription, 800)
            for thread in threads:
                thread.join()
            return [encoded.seq for encoded in received]

    received = asyncio.run(listen())
    assert [encoded.seq for encoded in published] == list(range(1, 801))
    assert received == list(range(1, 801))


def test_a_subscription_opens_with_the_current_state() -> None:
    """Hello and snapshot carry the last number; the messages after them continue without a gap."""

    async def join() -> None:
        broadcaster = make_broadcaster()
        broadcaster.publish(StreamMessage(stream="cam", state="connecting"))
        broadcaster.publish(StreamMessage(stream="cam", state="live"))
        broadcaster.publish(verdict(face=1, state="stale"))
        broadcaster.publish(verdict(face=2))
        with broadcaster.subscribe() as subscription:
            hello, snapshot = (json.loads(data) for data in subscription.opening)
            validate(hello)
            validate(snapshot)
            assert hello["session"] == HELLO.session
            assert hello["seq"] == snapshot["seq"] == 4
            assert [stream["state"] for stream in snapshot["streams"]] == ["live"]
            assert [message["face"] for message in snapshot["verdicts"]] == [2]
            broadcaster.publish(verdict(face=2))
            assert await next_seq(subscription) == 5

    asyncio.run(join())


def test_subscribing_between_messages_neither_loses_nor_repeats_any() -> None:
    """A message published just before subscribing is in the snapshot and is not delivered again."""

    async def join() -> None:
        broadcaster = make_broadcaster()
        with broadcaster.subscribe() as first:
            broadcaster.publish(verdict())
            # The event loop has not distributed this message yet.
            with broadcaster.subscribe() as second:
                broadcaster.publish(verdict())
                assert [encoded.seq for encoded in await take(first, 2)] == [1, 2]
                assert second.hello.seq == 1
                assert await next_seq(second) == 2

    asyncio.run(join())


def test_a_slow_subscription_loses_only_old_messages() -> None:
    """A subscription that is not read keeps the newest messages and delays no other."""

    async def listen() -> None:
        broadcaster = make_broadcaster(capacity=4)
        with broadcaster.subscribe() as slow, broadcaster.subscribe() as quick:
            broadcaster.publish(StreamMessage(stream="cam", state="live"))
            quick_seqs = [await next_seq(quick)]
            for _ in range(50):
                broadcaster.publish(verdict())
                quick_seqs.append(await next_seq(quick))
            assert quick_seqs == list(range(1, 52))
            assert [encoded.seq for encoded in await take(slow, 4)] == [1, 49, 50, 51]
            assert slow.lost == broadcaster.lost == 47
        assert broadcaster.lost == 47
        assert broadcaster.clients == 0

    asyncio.run(listen())


def test_a_message_passes_an_empty_queue_by() -> None:
    """A message is sent at once if none waits before it; the order is kept and nothing is lost."""

    async def listen() -> None:
        broadcaster = make_broadcaster()
        sent: list[int] = []
        blocked = False

        def send(encoded: EncodedMessage) -> bool:
            if not blocked:
                sent.append(encoded.seq)
            return not blocked

        async def publish() -> None:
            broadcaster.publish(verdict())
            await asyncio.sleep(0)

        with broadcaster.subscribe() as subscription:
            await publish()
            subscription.send_at_once(send)
            # The first message still waits.
            await publish()
            assert sent == []
            assert [encoded.seq for encoded in await take(subscription, 2)] == [1, 2]
            await publish()
            assert sent == [3]
            blocked = True
            await publish()
            blocked = False
            await publish()
            assert sent == [3]
            assert [encoded.seq for encoded in await take(subscription, 2)] == [4, 5]
            await publish()
            assert sent == [3, 6]
            assert subscription.lost == 0

    asyncio.run(listen())


def test_publishing_needs_no_subscription_and_no_event_loop() -> None:
    """Messages are numbered without subscriptions; subscriptions can come and go."""
    broadcaster = make_broadcaster()
    broadcaster.publish(verdict())

    async def visit() -> int:
        with broadcaster.subscribe() as subscription:
            assert broadcaster.clients == 1
            broadcaster.unsubscribe(subscription)
            return subscription.hello.seq

    assert asyncio.run(visit()) == 1
    broadcaster.publish(verdict())
    assert asyncio.run(visit()) == 2


def test_a_closed_event_loop_removes_its_subscriptions() -> None:
    """Publishing goes on after the event loop of the server was closed."""
    broadcaster = make_broadcaster()

    async def forget() -> None:
        broadcaster.subscribe()

    asyncio.run(forget())
    assert broadcaster.clients == 1
    broadcaster.publish(verdict())
    assert broadcaster.clients == 0
    broadcaster.publish(verdict())


@pytest.mark.parametrize("unsubscribed", [True, False])
def test_the_next_event_loop_is_served(unsubscribed: bool) -> None:
    """An event loop that closed with a distribution pending, or without unsubscribing, stops no later one."""
    broadcaster = make_broadcaster()

    async def leave() -> None:
        subscription = broadcaster.subscribe()
        broadcaster.publish(verdict())
        # The event loop ends before it distributes this message.
        if unsubscribed:
            broadcaster.unsubscribe(subscription)

    async def stay() -> int:
        with broadcaster.subscribe() as subscription:
            broadcaster.publish(verdict())
            async with asyncio.timeout(TIMEOUT_S):
                return await next_seq(subscription)

    asyncio.run(leave())
    assert asyncio.run(stay()) == 2
    asyncio.run(leave())
    assert asyncio.run(stay()) == 4
    assert broadcaster.clients == 0


def test_a_second_event_loop_is_refused() -> None:
    """Subscribing from another event loop raises an error."""
    broadcaster = make_broadcaster()

    async def join() -> None:
        with broadcaster.subscribe():
            await asyncio.to_thread(join_elsewhere)

    def join_elsewhere() -> None:
        async def subscribe() -> None:
            broadcaster.subscribe()

        with pytest.raises(RuntimeError, match="one event loop"):
            asyncio.run(subscribe())

    asyncio.run(join())


def test_the_time_since_the_last_message_is_measured() -> None:
    """`silent_s` shows whether the monitor is alive."""
    clock = Clock(100.0)
    broadcaster = make_broadcaster(clock=clock)
    clock.now = 103.0
    assert broadcaster.silent_s == broadcaster.uptime_s == 3.0
    broadcaster.publish(HeartbeatMessage(uptime_s=3.0))
    clock.now = 104.0
    assert (broadcaster.silent_s, broadcaster.uptime_s) == (1.0, 4.0)


def test_session_ids_differ() -> None:
    """Clients distinguish a restarted program from a lost connection by the session."""
    assert new_session() != new_session()
    assert isinstance(Broadcaster(HELLO), Broadcaster)
