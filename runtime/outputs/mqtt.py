"""MQTT output: the state of each stream and its changes, found by Home Assistant by itself.

Needs paho-mqtt, the extra `mqtt`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote, urlsplit

from runtime.errors import ExtraMissing
from runtime.messages import StreamMessage
from runtime.outputs.background_writer import BackgroundWriter
from runtime.outputs.changes import StateChanges
from runtime.outputs.home_assistant import Topics, discovery, stream_state
from runtime.outputs.interface import FailureLog
from runtime.serving.client_queue import EncodedMessage
from runtime.serving.snapshot import SnapshotStore

if TYPE_CHECKING:
    from paho.mqtt.client import Client

logger = logging.getLogger(__name__)

# Changes that may wait while the broker cannot be reached.
CAPACITY = 1000
# Messages that the broker has not acknowledged.
MAX_UNACKNOWLEDGED = 100
# The score of a stream is published at most once in this time; changes of its state at once.
STATE_INTERVAL_S = 1.0
KEEPALIVE_S = 30
CONNECT_TIMEOUT_S = 5.0
MAX_RECONNECT_S = 60
POLL_S = 0.2
# Time for the last message, after the others have used up the time for closing.
MIN_LAST_STATUS_S = 0.2
PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, kw_only=True)
class MqttOptions:
    """Broker and topics.

    Args:
        url: `mqtt://[USER[:PASSWORD]@]HOST[:PORT][/TOPIC]`, or `mqtts://` for TLS. The topic is the one above
            all others, `unmask` by default.
        password: Password of the user, instead of one in the address; None for none.
        discovery: Topic that Home Assistant listens on; None to publish nothing for it.

    Raises:
        ValueError: The address or a topic cannot be used.
    """

    url: str = field(repr=False)
    password: str | None = field(default=None, repr=False)
    discovery: str | None = "homeassistant"

    def __post_init__(self) -> None:
        form = "write mqtt://[USER@]HOST[:PORT][/TOPIC]"
        try:
            parts = urlsplit(self.url)
            _ = parts.port
            (parts.hostname or "").encode("idna")
        except ValueError:  # not chained: its text may quote a part of a password
            raise ValueError(f"not an address of a broker; {form}") from None
        if parts.scheme not in PORTS or not parts.hostname or not self.url.isprintable():
            raise ValueError(f"not an address of a broker; {form}")
        if "?" in self.url or "#" in self.url:
            raise ValueError(f"the address contains ? or #; {form}")
        if self.password is not None and parts.username is None:
            raise ValueError(f"a password needs a user name in the address; {form}")
        for topic in (self.topic, self.discovery or "homeassistant"):
            if any(character in topic for character in "+#\0") or topic.startswith("$"):
                raise ValueError(f"{topic!r} is not a topic to publish on; leave out +, # and a leading $")

    @property
    def topic(self) -> str:
        """Topic above all others."""
        return unquote(urlsplit(self.url).path).strip("/") or "unmask"

    @property
    def shown(self) -> str:
        """Scheme, host and port of the broker."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        port = parts.port or PORTS[parts.scheme]
        return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


@dataclass(frozen=True, slots=True)
class _Connected:
    """Instruction to publish everything that a new connection needs."""


@dataclass(frozen=True, slots=True)
class _State:
    """Instruction to publish the present state of a stream."""

    stream: str


@dataclass(frozen=True, slots=True)
class _Removed:
    """Instruction to delete the retained messages of a stream."""

    stream: str


_Item: TypeAlias = _Connected | _State | _Removed | EncodedMessage


class Mqtt:
    """Publisher of states and changes to an MQTT broker; an output.

    While the broker cannot be reached, up to `CAPACITY` changes wait, then the oldest are lost; states are
    those at the time of the connection.

    Args:
        options: Broker and topics.
        clock: Monotonic clock in seconds.

    Raises:
        ExtraMissing: paho-mqtt is not installed.
    """

    def __init__(
        self,
        options: MqttOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = "mqtt"
        self.topics = Topics(options.topic)
        self._options = options
        self._clock = clock
        self._failures = FailureLog(logger, f"MQTT broker {options.shown}")
        self._changes = StateChanges()
        # Guards the store and what was published of it: messages come from the threads of the streams.
        self._lock = threading.Lock()
        self._store = SnapshotStore(clock=clock)
        self._published: dict[str, tuple[dict[str, Any], float]] = {}
        # Streams that this connection has announced to Home Assistant; used by the writing thread only.
        self._announced: set[str] = set()
        self._written: dict[str, bytes] = {}
        self._connected = threading.Event()
        self._client = self._new_client()
        self._writer: BackgroundWriter[_Item] = BackgroundWriter("mqtt", self._write, capacity=CAPACITY)
        parts = urlsplit(options.url)
        self._client.connect_async(parts.hostname or "", parts.port or PORTS[parts.scheme], KEEPALIVE_S)
        # Not the library's own thread, whose end cannot be waited for with a timeout.
        self._network = threading.Thread(
            target=self._client.loop_forever,
            kwargs={"retry_first_connection": True},
            name="mqtt network",
            daemon=True,
        )
        self._network.start()

    def __call__(self, encoded: EncodedMessage) -> None:
        """Queue what the message changes; returns at once."""
        message = encoded.message
        stream: str | None = getattr(message, "stream", None)
        with self._lock:
            self._store.apply(message)
            due = stream is not None and self._is_due(stream)
        if self._changes.accepts(message):
            self._writer.put(encoded)
        if isinstance(message, StreamMessage) and message.state == "removed":
            self._writer.put(_Removed(message.stream))
        elif due and stream is not None and self._connected.is_set():
            # Otherwise the next connection publishes it.
            self._writer.put(_State(stream))

    @property
    def lost(self) -> int:
        """Number of changes and states that were not published."""
        return self._writer.lost

    def finish(self) -> bool:
        """Accept no more messages and return at once, with whether all have been published or lost."""
        return self._writer.finish()

    def close(self, *, timeout_s: float | None = None) -> None:
        """Publish the waiting messages and the status `offline`, and disconnect.

        Args:
            timeout_s: Longest time to wait for the broker; None for no limit.
        """
        self._writer.close(timeout_s=timeout_s)
        rest_s = CONNECT_TIMEOUT_S if timeout_s is None else max(timeout_s, MIN_LAST_STATUS_S)
        if self._connected.is_set():
            # Both errors mean that the connection was lost meanwhile; the broker then publishes the will.
            with contextlib.suppress(RuntimeError, ValueError):
                last_status = self._client.publish(self.topics.status, "offline", qos=1, retain=True)
                last_status.wait_for_publish(rest_s)
        self._client.disconnect()
        self._network.join(rest_s)
        self._failures.closed(self.lost)

    def _new_client(self) -> Client:
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion
        except ModuleNotFoundError as error:
            raise ExtraMissing("MQTT", "paho-mqtt", "mqtt") from error
        client = Client(CallbackAPIVersion.VERSION2)
        parts = urlsplit(self._options.url)
        if parts.username is not None:
            password = self._options.password or unquote(parts.password or "") or None
            client.username_pw_set(unquote(parts.username), password)
        if parts.scheme == "mqtts":
            client.tls_set()
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.reconnect_delay_set(1, MAX_RECONNECT_S)
        client.max_queued_messages_set(MAX_UNACKNOWLEDGED)
        client.will_set(self.topics.status, "offline", qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_connect_fail = lambda client, _: self._failures.failed(_unreachable(sys.exception()))
        client.on_disconnect = self._on_disconnect
        return client

    def _on_connect(self, client: Client, userdata: object, flags: object, reason: Any, _: object) -> None:
        if reason.is_failure:
            self._failures.failed(f"it refuses the connection: {str(reason).lower()}")
            return
        self._failures.succeeded(self.lost)
        logger.info("connected to the MQTT broker %s", self._options.shown)
        self._connected.set()
        self._writer.put(_Connected())

    def _on_disconnect(self, client: Client, userdata: object, flags: object, reason: Any, _: object) -> None:
        if self._connected.is_set() and reason.is_failure:
            self._failures.failed(f"the connection was lost: {str(reason).lower()}")
        self._connected.clear()

    def _is_due(self, stream: str) -> bool:
        """Return whether the state of a stream is to be published; remember it as published then."""
        state, now = self._state(stream), self._clock()
        if state is None:
            return False
        last, published_at = self._published.get(stream, ({}, 0.0))
        score_only = {**last, "p_fake": None} == {**state, "p_fake": None}
        # A new score waits for the next verdict rather than take the place of a change.
        if state == last or (score_only and (now - published_at < STATE_INTERVAL_S or self._writer.waiting)):
            return False
        self._published[stream] = state, now
        return True

    def _state(self, stream: str) -> dict[str, Any] | None:
        message = next((known for known in self._store.streams() if known.stream == stream), None)
        if message is None:
            return None
        verdicts = [v for v in self._store.verdicts() if v.stream == stream]
        return stream_state(message, verdicts)

    def _write(self, item: _Item) -> None:
        while not self._connected.wait(POLL_S):
            if self._writer.closing.is_set():
                raise OSError("the broker cannot be reached")
        match item:
            case _Connected():
                self._announce()
            case _State(stream=stream):
                self._publish_state(stream)
            case _Removed(stream=stream):
                self._remove(stream)
            case EncodedMessage(message=message, data=data):
                self._publish(self.topics.event(getattr(message, "stream", "")), data)

    def _announce(self) -> None:
        self._announced.clear()
        self._written.clear()
        with self._lock:
            streams = [message.stream for message in self._store.streams()]
        for stream in streams:
            self._publish_state(stream)
        self._publish(self.topics.status, b"online", retain=True)

    def _publish_state(self, stream: str) -> None:
        with self._lock:
            state = self._state(stream)
        if state is None:
            return
        if self._options.discovery is not None and stream not in self._announced:
            self._announced.add(stream)
            for topic, payload in discovery(self.topics, self._options.discovery, stream):
                self._publish(topic, payload, retain=True)
        payload = json.dumps(state).encode()
        if self._written.get(stream) != payload:
            self._written[stream] = payload
            self._publish(self.topics.state(stream), payload, retain=True)

    def _remove(self, stream: str) -> None:
        """Delete what the broker keeps of a stream, with which Home Assistant forgets its entities."""
        self._announced.discard(stream)
        self._written.pop(stream, None)
        with self._lock:
            self._published.pop(stream, None)
        if self._options.discovery is not None:
            for topic, _ in discovery(self.topics, self._options.discovery, stream):
                self._publish(topic, b"", retain=True)
        self._publish(self.topics.state(stream), b"", retain=True)

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish a message, waiting while too many are unacknowledged."""
        from paho.mqtt.enums import MQTTErrorCode

        while (
            self._client.publish(topic, payload, qos=1, retain=retain).rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE
        ):
            if self._writer.closing.wait(POLL_S):
                raise OSError("the broker does not acknowledge messages")


def _unreachable(error: BaseException | None) -> str:
    """Return why no connection could be made, from the error that the library is handling."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    reason = error.strerror if isinstance(error, OSError) else None
    return f"it cannot be reached: {reason.lower()}" if reason else "it cannot be reached"
