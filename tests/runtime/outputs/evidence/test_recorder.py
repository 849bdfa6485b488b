"""Evidence of real streams: a folder for each event, complete and hashed, with a clip."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engines.factory import open_engine
from runtime.messages import StreamMessage
from runtime.model.bundle import load_bundle
from runtime.outputs.evidence import recorder as recorder_module
from runtime.outputs.evidence import writer as writer_module
from runtime.outputs.evidence.events import EventCollector, EventLimits
from runtime.outputs.evidence.manifest import check_folder, read_manifest
from runtime.outputs.evidence.recorder import EvidenceRecorder
from runtime.outputs.evidence.store import EvidenceStore
from runtime.pipeline.monitor import Monitor
from runtime.pipeline.stream_analysis import StreamAnalysis
from runtime.serving.client_queue import EncodedMessage
from streams.input.source import Source, file_source, parse_source
from tests.support.centred_face import CentredFaceFinder
from tests.support.evidence import MODEL, START, scored_frame
from tests.support.wire import make_broadcaster, verdict

TIMEOUT_S = 30.0


class SuspiciousHead:
    """Head for which every face is real at first, then fake."""

    def __init__(self, real_windows: int) -> None:
        self._left = real_windows

    def logits(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits."""
        self._left -= 1
        return np.full(len(windows), -9.0 if self._left >= 0 else 9.0, np.float32)


def watch(
    source: Source,
    small_bundle: Path,
    recorder: EvidenceRecorder,
    *,
    until: Callable[[], bool] | None = None,
    real_windows: int = 4,
) -> None:
    """Watch a source with a recorder, as the command does, to its end or until a condition is met."""
    bundle = load_bundle(small_bundle)
    calibration = dataclasses.replace(bundle.calibration, threshold_fake=0.75)
    bundle = msgspec.structs.replace(bundle, calibration=calibration)
    broadcaster = make_broadcaster(sinks=[recorder])
    with open_engine(bundle, "onnxruntime", threads=1) as engine:
        head = SuspiciousHead(real_windows)

        def new_analysis() -> StreamAnalysis:
            return StreamAnalysis(bundle, head=head, features=engine, finder=CentredFaceFinder())

        monitor = Monitor(
            [source],
            sample_hz=bundle.sample_hz,
            new_analysis=new_analysis,
            publish=broadcaster.publish,
            on_frame=recorder.on_frame,
            keep=recorder.ring_limits,
        )
        with monitor:
            if until is None:
                assert monitor.wait(TIMEOUT_S)
            else:
                _wait(until)


def test_a_face_that_turns_fake(face_video: Path, small_bundle: Path, tmp_path: Path) -> None:
    """One folder, published at once, with everything that shows what was scored and how."""
    folder = tmp_path / "evidence"
    limits = EventLimits(before_s=0.5, after_s=1.0)
    recorder = EvidenceRecorder(EvidenceStore(folder), limits, MODEL)
    # Few, so that the mean of four seconds turns within the trail.
    watch(file_source(face_video), small_bundle, recorder, real_windows=2)
    recorder.close()
    (kept,) = folder.iterdir()
    assert list(check_folder(kept)) == []
    manifest = read_manifest(kept)
    assert (manifest.kind, manifest.stream, manifest.face) == ("fake", "face.mp4", 1)
    assert manifest.verdict["state"] == "fake"
    assert (manifest.model.name, manifest.model.session) == (MODEL.name, MODEL.session)
    # Those of the stream, not of the program.
    assert manifest.model.threshold_fake == 0.75
    crops = sorted((kept / "crops").iterdir())
    assert len(crops) == len(manifest.crop_times) >= 4
    assert manifest.crop_times[-1] == pytest.approx(manifest.verdict["pts_s"])
    images = [cv2.imread(str(path)) for path in (crops[-1], kept / "frame.jpg")]
    assert [image.shape for image in images if image is not None] == [(32, 32, 3), (360, 640, 3)]
    trail = json.loads((kept / "trail.json").read_text())
    states = [message["state"] for message in trail if message["type"] == "verdict"]
    assert "real" in states[: states.index("fake")]
    assert states[states.index("fake") :].count("fake") >= 4
    assert trail[states.index("fake")]["seq"] <= manifest.verdict["seq"]
    assert manifest.clip.file == "clip.mp4"
    with av.open(str(kept / "clip.mp4")) as clip:
        frames = sum(1 for _ in clip.decode(video=0))
    # The whole second from the key frame before the clip's start.
    assert 25 <= frames <= 100
    assert 0 <= manifest.clip.event_s <= manifest.clip.seconds
    assert (kept.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o700, 0o700)


def test_the_clip_has_the_packets_of_the_source(face_video: Path, small_bundle: Path, tmp_path: Path) -> None:
    """Remuxed, not encoded: the decoded frames are the same bit by bit."""
    recorder = EvidenceRecorder(EvidenceStore(tmp_path / "e"), EventLimits(before_s=9, after_s=9), MODEL)
    watch(file_source(face_video), small_bundle, recorder)
    recorder.close()
    (kept,) = (tmp_path / "e").iterdir()
    assert _frame_hashes(kept / "clip.mp4") == _frame_hashes(face_video)


def _frame_hashes(path: Path) -> list[str]:
    with av.open(str(path)) as container:
        return [
            hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest() for frame in container.decode(video=0)
        ]


def test_the_clip_of_a_camera(
    rtsp_server: Callable[..., Any], face_video: Path, small_bundle: Path, tmp_path: Path
) -> None:
    """RTSP has no decoding times; its clip begins with a key frame and every frame of it can be decoded."""
    camera = rtsp_server(face_video)
    store = EvidenceStore(tmp_path / "e")
    recorder = EvidenceRecorder(store, EventLimits(before_s=1.0, after_s=1.0), MODEL)
    source = parse_source(camera.url())
    watch(source, small_bundle, recorder, until=lambda: bool(store.events()), real_windows=12)
    recorder.close()
    clip = store.events()[0].clip
    assert clip.missing is None
    with av.open(str(store.folder / store.events()[0].id / "clip.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == sorted(times)
    assert len(times) == pytest.approx(25 * clip.seconds, abs=3)
    assert 0.5 <= clip.event_s < clip.seconds


def test_the_clip_of_a_source_without_packets(tmp_path: Path) -> None:
    """It is encoded from the scored frames, at their times, and the manifest says so."""
    store = EvidenceStore(tmp_path)
    recorder = EvidenceRecorder(store, EventLimits(before_s=1.0, after_s=1.0), MODEL)
    broadcaster = make_broadcaster(sinks=[recorder])
    for number in range(33):
        message = verdict(state="real" if number < 16 else "fake", pts_s=number / 8)
        broadcaster.publish(message)
        recorder.on_frame(scored_frame(number / 8, message))
        _wait(lambda: recorder._frames._writer.idle)
    recorder.close()
    (manifest,) = store.events()
    clip = manifest.clip
    # The last frame may still be on its way when the clip is made.
    assert (clip.encoded, clip.event_s) == (True, 1.0)
    assert clip.seconds == pytest.approx(2.0, abs=0.126)
    assert list(check_folder(tmp_path / manifest.id)) == []
    with av.open(str(tmp_path / manifest.id / "clip.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([number / 8 for number in range(len(times))], abs=0.002)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_fails(
    code: int,
    face_video: Path,
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One line; nothing half written stays; the next event is kept."""
    store = EvidenceStore(tmp_path)
    real = writer_module.write_event

    def failing(draft: Path, *arguments: Any, **options: Any) -> Any:
        real(draft, *arguments, **options)
        raise OSError(code, os.strerror(code))

    recorder = EvidenceRecorder(store, EventLimits(before_s=0.1, after_s=0.0), MODEL)
    broadcaster = make_broadcaster(sinks=[recorder])

    def event(face: int) -> None:
        message = verdict(face=face)
        broadcaster.publish(message)
        recorder.on_frame(scored_frame(12.5, message))
        broadcaster.publish(verdict(face=face))

    monkeypatch.setattr(recorder_module, "write_event", failing)
    event(1)
    event(2)
    _wait(lambda: recorder.lost == 2)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(recorder_module, "write_event", real)
    event(3)
    recorder.close()
    assert [manifest.face for manifest in store.events()] == [3]
    levels = [record.levelname for record in caplog.records if "evidence in" in record.getMessage()]
    assert levels == ["ERROR", "WARNING"]


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Stream:
    """Messages and frames of a stream, passed to a collector."""

    def __init__(self, limits: EventLimits) -> None:
        self.collector = EventCollector(limits)
        self._seq = 0

    def verdicts(self, at_s: float, states: Sequence[str], *, chance: float = 1.0) -> None:
        """Publish a verdict for each face, and their frame."""
        messages = []
        for face, state in enumerate(states, 1):
            self._seq += 1
            message = verdict(face=face, state=state, pts_s=at_s).stamp(self._seq, START + at_s)
            self.collector.add_message(EncodedMessage(message, b"{}"))
            messages.append(message)
        self.collector.add_frame(scored_frame(at_s, *messages), chance)

    def finished(self, at_s: float) -> list[tuple[str, int]]:
        """Return kind and face of the events that are over."""
        return [(event.kind, event.verdict.face) for event in self.collector.finished(START + at_s)]


def test_each_face_that_turns_fake_is_an_event() -> None:
    """Once per turn and cooldown, whatever happens in between."""
    stream = Stream(EventLimits(after_s=2.0))
    stream.verdicts(0.0, ["real", "fake"])
    stream.verdicts(1.0, ["fake", "fake"])
    assert stream.finished(5.9) == []
    stream.verdicts(2.0, ["fake", "fake"])
    assert stream.finished(2.0) == [("fake", 2)]
    for at_s in range(3, 20):
        stream.verdicts(float(at_s), ["uncertain" if at_s % 2 else "fake", "fake"])
    assert stream.finished(19.0) == [("fake", 1)]
    stream.verdicts(40.0, ["uncertain"])
    stream.verdicts(41.0, ["fake"])
    assert stream.finished(50.0) == [("fake", 1)]


@pytest.mark.parametrize("start_s", [0.0, 1 / 3, 2 / 3, 1000 / 7])
def test_an_event_lasts_until_its_media_time_is_over(start_s: float) -> None:
    """Whatever the fraction of a second, which a message rounds; and for some time if frames stop."""
    stream = Stream(EventLimits(after_s=2.0))
    stream.verdicts(start_s, ["fake"])
    for number in range(1, 16):
        stream.verdicts(start_s + number / 8, ["fake"])
        assert stream.finished(start_s + number / 8) == []
    stream.verdicts(start_s + 2.001, ["fake"])
    assert stream.finished(start_s + 2.001) == [("fake", 1)]
    stream.verdicts(start_s + 100, ["real"])
    stream.verdicts(start_s + 101, ["fake"])
    assert stream.finished(start_s + 106) == []
    assert stream.finished(start_s + 107.1) == [("fake", 1)]


def test_the_number_of_events_is_bounded() -> None:
    """A frame full of faces that turn fake at once costs no more memory than four."""
    stream = Stream(EventLimits())
    stream.verdicts(0.0, ["fake"] * 20)
    assert len(stream.finished(10.0)) == 4
    assert stream.collector.refused == 16


def test_control_samples_take_their_share_of_the_time() -> None:
    """None unless asked for, none of a fake; at a share of all time they follow each other."""
    rng = np.random.default_rng(0)
    counts = {}
    for share in (0.0, 0.1):
        stream = Stream(EventLimits(before_s=5, after_s=5, control_share=share))
        events = []
        for number in range(2 * 3600):
            stream.verdicts(number / 2, ["real"], chance=rng.random())
            events += stream.finished(number / 2)
        assert all(kind == "control" for kind, _ in events)
        counts[share] = len(events)
    assert counts[0.0] == 0
    assert counts[0.1] * 10 / 3600 == pytest.approx(0.1, rel=0.5)


def test_a_stream_that_stops_completes_its_events() -> None:
    """Without waiting for the time after the event, which does not come."""
    stream = Stream(EventLimits(after_s=60))
    stream.verdicts(0.0, ["fake"])
    over = StreamMessage(stream="cam", state="offline").stamp(9, START + 0.5)
    stream.collector.add_message(EncodedMessage(over, b"{}"))
    assert stream.finished(0.5) == [("fake", 1)]
    stream.verdicts(1.0, ["fake"])
    removed = StreamMessage(stream="cam", state="removed").stamp(10, START + 1.5)
    stream.collector.add_message(EncodedMessage(removed, b"{}"))
    assert stream.finished(1.5) == []
    assert stream.collector._streams == {}


@pytest.mark.parametrize("wrong", [{"before_s": -1}, {"after_s": 61}, {"control_share": 2}])
def test_limits_are_checked(wrong: dict[str, Any]) -> None:
    """The message says what is allowed."""
    with pytest.raises(ValueError, match="within"):
        EventLimits(**wrong)
