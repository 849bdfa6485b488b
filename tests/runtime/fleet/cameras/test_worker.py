"""Tests of a worker of a fleet without Ray: orders, epochs and the lease."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path

import pytest

from runtime.config.sources import WatchedSource
from runtime.fleet.cameras.exchange import LEASE_S, Assignment, Batch, Order, Question, sendable
from runtime.fleet.cameras.worker import CameraWorker, FleetSetup
from runtime.fleet.loaded_model import WorkerRefused
from runtime.messages import BroadcastMessage, StreamMessage, Thresholds, VerdictMessage
from runtime.model.bundle import load_bundle
from runtime.version import version
from streams.input.source import parse_source


def setup_of(bundle: Path, *, digest: str | None = None) -> FleetSetup:
    return FleetSetup(
        folder=Path.cwd(),
        model=bundle,
        digest=load_bundle(bundle).digest if digest is None else digest,
        version=version(),
        engine="onnxruntime",
        threads=1,
        cores_per_camera=0.5,
        thresholds=Thresholds(real=0.2, fake=0.8),
    )


def order(number: int, generation: int, camera: WatchedSource | None, *, epoch: int = 1) -> Question:
    cameras = (
        {} if camera is None else {camera.source.name: Assignment(epoch=epoch, camera=camera, past_faces=100)}
    )
    return Question(order=Order(version=number, generation=generation, cameras=cameras))


def ask_until_verdict(worker: CameraWorker) -> tuple[list[tuple[int, BroadcastMessage]], Batch]:
    messages: list[tuple[int, BroadcastMessage]] = []
    while not any(isinstance(message, VerdictMessage) for _, message in messages):
        batch = worker.exchange(Question())
        messages += batch.messages
    return messages, batch


def test_orders_and_lease(small_bundle: Path, face_video: Path) -> None:
    """A camera is watched until an order without it, or until the head is silent; old orders do nothing."""
    now = 0.0
    worker = CameraWorker(setup_of(small_bundle), clock=lambda: now)
    camera = sendable(WatchedSource(source=parse_source(str(face_video), name="cam")))
    try:
        assert worker.exchange(Question(), wait_s=0.0).version == 0
        batch = worker.exchange(order(1, 0, camera), wait_s=0.0)
        assert (batch.version, dict(batch.running)) == (1, {"cam": 1})
        messages, _ = ask_until_verdict(worker)
        assert {epoch for epoch, _ in messages} == {1}
        assert isinstance(messages[0][1], StreamMessage)
        faces = {message.face for _, message in messages if isinstance(message, VerdictMessage)}
        assert min(faces) > 100

        # The head is silent: the camera stops, and an order from before that is ignored.
        now += LEASE_S + 0.1
        for thread in threading.enumerate():
            if thread.name == "analysis cam":
                thread.join(10)
                assert not thread.is_alive()
        batch = worker.exchange(order(2, 0, camera, epoch=2), wait_s=0.0)
        assert (batch.generation, batch.version, dict(batch.running)) == (1, 0, {})
        assert batch.messages == ()
        batch = worker.exchange(order(2, 1, camera, epoch=3), wait_s=0.0)
        assert dict(batch.running) == {"cam": 3}
        worker.exchange(order(3, 1, None), wait_s=0.0)
        while worker.exchange(Question()).running:
            pass
        assert "analysis cam" not in {thread.name for thread in threading.enumerate()}
    finally:
        worker.close()


def test_other_model(small_bundle: Path) -> None:
    """A worker with another model is refused with advice."""
    with pytest.raises(WorkerRefused, match="copy the same directory"):
        CameraWorker(setup_of(small_bundle, digest="0" * 64))


def test_password_is_not_shown() -> None:
    """The settings sent to a worker show no secret in a log."""
    camera = sendable(WatchedSource(source=parse_source("rtsp://ada:secret@10.0.0.7/cam", name="cam")))
    sent = pickle.loads(pickle.dumps(order(1, 0, camera)))
    assert "secret" not in repr(sent)
    assert sent.order.cameras["cam"].camera.source.address.reveal() == "rtsp://ada:secret@10.0.0.7/cam"
