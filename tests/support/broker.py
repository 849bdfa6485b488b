"""Mosquitto as a broker for tests, and a client that is independent of unmask's own."""

from __future__ import annotations

import queue
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

TIMEOUT_S = 30.0
USER, PASSWORD = "unmask", "a password"


def find_mosquitto() -> str | None:
    """Return the path of mosquitto; None if it is not installed."""
    return shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


class Broker:
    """Broker that can be stopped and started again on the same port.

    Args:
        program: Path of mosquitto.
        folder: Folder for its configuration.
        password: Whether clients need `USER` and `PASSWORD`.
        tls: Whether clients need TLS; `certificate` is what they have to trust then.
    """

    def __init__(self, program: str, folder: Path, *, password: bool = False, tls: bool = False) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._program = program
        self._configuration = folder / f"mosquitto-{self.port}.conf"
        # As root, mosquitto would change to a user that cannot read the folder.
        lines = [
            "user root",
            f"listener {self.port} 127.0.0.1",
            f"allow_anonymous {str(not password).lower()}",
        ]
        if password:
            users = folder / "users"
            subprocess.run(["mosquitto_passwd", "-b", "-c", users, USER, PASSWORD], check=True)
            lines.append(f"password_file {users}")
        self.certificate = folder / "certificate.pem"
        if tls:
            key = folder / "key.pem"
            subject = ["-subj", "/CN=broker", "-addext", "subjectAltName=IP:127.0.0.1"]
            made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
            subprocess.run([*made, "-keyout", key, "-out", self.certificate], check=True, capture_output=True)
            lines += [f"certfile {self.certificate}", f"keyfile {key}"]
        self._configuration.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = subprocess.Popen(
            [self._program, "-c", self._configuration], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
                return
            except OSError:
                assert self._process.poll() is None, "mosquitto has ended"
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def stop(self) -> None:
        """Stop it; retained messages are lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Subscriber:
    """Client that receives every message; `messages` contains topic, payload and whether it was retained."""

    def __init__(self) -> None:
        self.messages: queue.SimpleQueue[tuple[str, bytes, bool]] = queue.SimpleQueue()

    def on_message(self, client: Client, _: object, message: MQTTMessage) -> None:
        """Keep a message."""
        self.messages.put((message.topic, bytes(message.payload), message.retain))

    def until(self, topic: str, payload: bytes | None = None) -> list[tuple[str, bytes, bool]]:
        """Return the messages up to the next one of a topic, with a certain content if one is given."""
        received = []
        while True:
            received.append(self.messages.get(timeout=TIMEOUT_S))
            if received[-1][0] == topic and payload in (None, received[-1][1]):
                return received


@contextmanager
def subscriber(
    broker: Broker, *, user: str | None = None, password: str | None = None
) -> Iterator[Subscriber]:
    """Subscribe to all topics of a broker."""
    ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
    receiver = Subscriber()
    client = Client(CallbackAPIVersion.VERSION2)
    client.username_pw_set(user, password)
    client.on_message = receiver.on_message
    client.on_subscribe = lambda *_: ready.put(True)
    client.connect("127.0.0.1", broker.port)
    client.subscribe("#", qos=1)
    client.loop_start()
    try:
        ready.get(timeout=TIMEOUT_S)
        yield receiver
    finally:
        client.disconnect()
        client.loop_stop()
