"""MQTT output with a real broker, mosquitto, and an independent client."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from runtime.errors import ExtraMissing
from runtime.messages import StreamMessage
from runtime.outputs.home_assistant import Topics, discovery, stream_state
from runtime.outputs.mqtt import Mqtt, MqttOptions
from tests.support.broker import PASSWORD, USER, Broker, find_mosquitto, subscriber
from tests.support.wire import make_broadcaster, verdict

TIMEOUT_S = 30.0
LIVE = StreamMessage(stream="cam", state="live")


@pytest.fixture(scope="module")
def brokers(
    tmp_path_factory: pytest.TempPathFactory, skip_or_fail: Callable[[str], NoReturn]
) -> Iterator[tuple[Broker, Broker]]:
    """Running brokers: one that accepts every client, and one that needs a password."""
    program = find_mosquitto()
    if program is None:
        skip_or_fail("mosquitto is not installed (Debian: apt install mosquitto)")
    folder = tmp_path_factory.mktemp("mosquitto")
    running = Broker(program, folder), Broker(program, folder, password=True)
    for broker in running:
        broker.start()
    yield running
    for broker in running:
        broker.stop()


@pytest.fixture
def connect() -> Iterator[Callable[..., tuple[Mqtt, Any]]]:
    """Function that returns the output for a broker, and a broadcaster with it as a sink."""
    outputs: list[Mqtt] = []

    def connected(url: str, **options: Any) -> tuple[Mqtt, Any]:
        outputs.append(Mqtt(MqttOptions(url=url, **options)))
        return outputs[-1], make_broadcaster(sinks=[outputs[-1]])

    yield connected
    for output in outputs:
        output.close(timeout_s=1.0)


def logged(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    """Wait for a line of the log; return all lines."""
    deadline = time.monotonic() + TIMEOUT_S
    while text not in caplog.text:
        assert time.monotonic() < deadline, caplog.text
        time.sleep(0.01)
    return [record.getMessage() for record in caplog.records]


def test_states_changes_and_availability(
    brokers: tuple[Broker, Broker], connect: Callable[..., tuple[Mqtt, Any]]
) -> None:
    """An outside client sees online, the state of the stream, each change once, and offline at the end."""
    with subscriber(brokers[0]) as outside:
        output, broadcaster = connect(f"mqtt://127.0.0.1:{brokers[0].port}/first")
        broadcaster.publish(LIVE)
        received = outside.until("first/status", b"online")
        for p_fake in (0.91, 0.92, 0.93):
            broadcaster.publish(verdict(p_fake=p_fake))
        received += outside.until("first/cam/state")
        while json.loads(received[-1][1])["verdict"] is None:
            received += outside.until("first/cam/state")
        assert json.loads(received[-1][1]) == {
            "stream": "cam",
            "state": "live",
            "reason": None,
            "verdict": "fake",
            "p_fake": pytest.approx(0.92, abs=0.011),
            "faces": 1,
        }
        output.close(timeout_s=TIMEOUT_S)
        received += outside.until("first/status", b"offline")
    events = [json.loads(payload) for topic, payload, _ in received if topic == "first/cam/event"]
    assert [(event["type"], event["state"]) for event in events] == [("stream", "live"), ("verdict", "fake")]
    with subscriber(brokers[0]) as late:
        kept = late.until("first/status", b"offline")
    assert all(retained for _, _, retained in kept)
    assert not any(topic.endswith("/event") for topic, _, _ in kept)


def test_home_assistant_finds_every_stream(
    brokers: tuple[Broker, Broker], connect: Callable[..., tuple[Mqtt, Any]]
) -> None:
    """Retained configurations with topics that exist; also of a stream that appears later."""
    with subscriber(brokers[0]) as outside:
        _, broadcaster = connect(f"mqtt://127.0.0.1:{brokers[0].port}/second", discovery="ha")
        broadcaster.publish(LIVE)
        first = outside.until("second/status", b"online")
        broadcaster.publish(StreamMessage(stream="Tür/+#", state="connecting"))
        name = "T_r-" + Topics("second").state("Tür/+#").split("-")[1].split("/")[0]
        second = outside.until(f"second/{name}/state")
    configured = {
        topic: json.loads(payload) for topic, payload, _ in first + second if topic.startswith("ha/")
    }
    assert len(configured) == 8
    fake = configured["ha/binary_sensor/second/cam_fake/config"]
    assert fake["state_topic"] == "second/cam/state"
    assert fake["device"]["name"] == "unmask cam"
    assert [entry["topic"] for entry in fake["availability"]] == ["second/status", "second/cam/state"]
    assert len({entity["unique_id"] for entity in configured.values()}) == 8


def test_a_stream_that_is_removed(
    brokers: tuple[Broker, Broker], connect: Callable[..., tuple[Mqtt, Any]]
) -> None:
    """Nothing is kept of it; Home Assistant deletes entities whose configuration is empty."""
    with subscriber(brokers[0]) as outside:
        output, broadcaster = connect(f"mqtt://127.0.0.1:{brokers[0].port}/removal")
        broadcaster.publish(LIVE)
        outside.until("removal/cam/state")
        broadcaster.publish(StreamMessage(stream="cam", state="removed", reason="no longer watched"))
        received = outside.until("removal/cam/state", b"")
        output.close(timeout_s=TIMEOUT_S)
    emptied = {topic for topic, payload, _ in received if topic.startswith("homeassistant/") and not payload}
    assert len(emptied) == 4
    with subscriber(brokers[0]) as late:
        kept = late.until("removal/status")
    assert not any("/removal/cam" in topic or topic.startswith("removal/cam") for topic, _, _ in kept)


def test_a_broker_that_goes_away_and_returns(
    brokers: tuple[Broker, Broker],
    connect: Callable[..., tuple[Mqtt, Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Changes wait up to a limit, and publishing never does; states are those after the return."""
    broker = brokers[0]
    output, broadcaster = connect(f"mqtt://127.0.0.1:{broker.port}/third")
    broadcaster.publish(LIVE)
    with subscriber(broker) as outside:
        outside.until("third/status", b"online")
    broker.stop()
    logged(caplog, "the connection was lost")
    for face in range(3000):
        broadcaster.publish(verdict(face=face))
    assert output.lost > 0
    broker.start()
    with subscriber(broker) as outside:
        outside.until("third/status", b"online")
    assert "works again" in caplog.text


def test_the_will_of_a_lost_program(
    brokers: tuple[Broker, Broker], connect: Callable[..., tuple[Mqtt, Any]]
) -> None:
    """When the connection breaks, the broker publishes offline."""
    with subscriber(brokers[0]) as outside:
        output, _ = connect(f"mqtt://127.0.0.1:{brokers[0].port}/fourth")
        outside.until("fourth/status", b"online")
        raw = output._client.socket()
        assert isinstance(raw, socket.socket)
        raw.shutdown(socket.SHUT_RDWR)
        outside.until("fourth/status", b"offline")
        outside.until("fourth/status", b"online")


def test_user_and_password(brokers: tuple[Broker, Broker], connect: Callable[..., tuple[Mqtt, Any]]) -> None:
    """The password comes from outside the address."""
    with subscriber(brokers[1], user=USER, password=PASSWORD) as outside:
        connect(f"mqtt://{USER}@127.0.0.1:{brokers[1].port}", password=PASSWORD)
        outside.until("unmask/status", b"online")


def test_a_broker_that_refuses(
    brokers: tuple[Broker, Broker],
    connect: Callable[..., tuple[Mqtt, Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One line without the password; the program goes on, and closing does not wait."""
    output, broadcaster = connect(f"mqtt://{USER}:wrong@127.0.0.1:{brokers[1].port}")
    broadcaster.publish(LIVE)
    lines = logged(caplog, "refuses")
    assert len(lines) == 1
    assert "wrong" not in lines[0]
    started = time.monotonic()
    output.close(timeout_s=0.2)
    assert time.monotonic() - started < 2.0


def test_no_broker(connect: Callable[..., tuple[Mqtt, Any]], caplog: pytest.LogCaptureFixture) -> None:
    """It is reported once; changes wait up to a limit."""
    output, broadcaster = connect("mqtt://127.0.0.1:9")
    for face in range(2000):
        broadcaster.publish(verdict(face=face))
    (line,) = logged(caplog, "cannot be reached")
    assert line.startswith("MQTT broker mqtt://127.0.0.1:9: it cannot be reached: connection refused; trying")
    assert output.lost >= 998


def test_scores_do_not_push_out_changes() -> None:
    """While there is no broker, only changes wait: there is room for 1000."""
    now = 0.0
    output = Mqtt(MqttOptions(url="mqtt://127.0.0.1:9"), clock=lambda: now)
    try:
        broadcaster = make_broadcaster(sinks=[output])
        broadcaster.publish(LIVE)
        for second in range(1100):
            now = 2.0 * second
            broadcaster.publish(verdict(p_fake=0.9 + 0.01 * (second % 2)))
        for face in range(2, 900):
            broadcaster.publish(verdict(face=face))
        assert output.lost == 0
    finally:
        output.close(timeout_s=0.1)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host",
        "http://host",
        "mqtt://",
        "mqtt://h:x",
        "mqtt://u:p@/",
        "mqtt://h/a+b",
        "mqtt://h/#",
        "mqtt://h?x=1",
    ],
)
def test_an_unusable_address_is_refused(url: str) -> None:
    """The error says what to write, and does not repeat the address."""
    with pytest.raises(ValueError, match=r"MQTT|mqtt|topic"):
        MqttOptions(url=url)


# After a failed handshake the library leaves its socket to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_tls(
    tmp_path: Path,
    brokers: tuple[Broker, Broker],
    connect: Callable[..., tuple[Mqtt, Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An unknown certificate is refused with the cause; `SSL_CERT_FILE` names one to trust."""
    program = find_mosquitto()
    assert program is not None
    broker = Broker(program, tmp_path, tls=True)
    broker.start()
    try:
        url = f"mqtts://127.0.0.1:{broker.port}"
        refused, _ = connect(url)
        assert len(logged(caplog, "its certificate is not accepted: self-signed certificate")) == 1
        refused.close(timeout_s=1.0)
        monkeypatch.setenv("SSL_CERT_FILE", str(broker.certificate))
        output, _ = connect(url)
        assert output._connected.wait(TIMEOUT_S)
    finally:
        broker.stop()


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(ExtraMissing, match=r"unmask\[mqtt\]"):
        Mqtt(MqttOptions(url="mqtt://host"))


def test_the_state_is_that_of_the_most_suspicious_face() -> None:
    """Fake before uncertain before real; without a face there is no verdict, which does not mean real."""
    faces = [verdict(face=1, state="real", p_fake=0.1), verdict(face=2, state="uncertain", p_fake=0.5)]
    assert stream_state(LIVE, faces)["verdict"] == "uncertain"
    assert stream_state(LIVE, [*faces, verdict(face=3)])["verdict"] == "fake"
    turned = verdict(face=2, state="uncertain", p_fake=0.95, reason="turned")
    state = stream_state(LIVE, [verdict(face=1, p_fake=0.72), turned, verdict(face=3, p_fake=0.71)])
    assert (state["verdict"], state["p_fake"], state["faces"]) == ("fake", 0.72, 3)
    assert stream_state(LIVE, [verdict(state="warming")]) | {"reason": 1} == {
        "stream": "cam",
        "state": "live",
        "reason": 1,
        "verdict": "warming",
        "p_fake": None,
        "faces": 1,
    }
    assert stream_state(LIVE, [])["verdict"] is None


def test_two_instances_have_different_entities() -> None:
    """The topic of an instance is a part of every id."""
    ids = [
        json.loads(payload)["unique_id"]
        for root in ("unmask", "unmask/attic")
        for _, payload in discovery(Topics(root), "homeassistant", "cam")
    ]
    assert len(set(ids)) == 8
