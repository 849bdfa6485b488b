"""From one frame to what is thought of every face in it; `monitor`, `scan` and the benchmarks all use this.

    analysis = StreamAnalysis(bundle, head=engine, features=batcher, finder=FaceFinder(detector))
    while frame := reader.next(timeout_s=1.0):
        for verdict in analysis.analyse(frame):
            print(verdict.face, verdict.state, verdict.p_fake)

Several frames can share one backbone call: `observe` them first, run the backbone on all their crops, then
`conclude` each in its order. The results are those of `analyse`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.messages import SCORED_STATES, Latency, State, VerdictMessage, relative_box
from runtime.model.bundle import Bundle
from runtime.pipeline.decision import FaceDecision
from runtime.pipeline.verdict_rate import VerdictRate
from runtime.pipeline.window import FaceWindow
from streams.faces.crop import Box, crop_face
from streams.faces.finder import Face, Finder
from streams.features.temporal_residuals import ResidualMeter
from streams.input.frame import Frame

# A face that this many samples in a row do not show is gone, and what was buffered of it with it.
MISSES_TO_FORGET = 2


class Head(Protocol):
    """Judges windows of features; every engine is one."""

    def logits(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give the logits `(N,)` of windows `(N, T, D)`."""
        ...


class Features(Protocol):
    """Turns crops into features; the batcher is one, and so is every engine."""

    def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Give the features `(N, D)` of crops `(N, H, W, 3)`."""
        ...


@runtime_checkable
class SharedFeatures(Protocol):
    """Turns crops into features, those of several streams together; the batcher is one."""

    def due(self) -> AbstractContextManager[None]:
        """Announce that this thread is about to ask."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceVerdict:
    """Verdict on one face after one frame.

    Args:
        face: Track id, never reused within the stream.
        state: See `runtime.pipeline.decision`; `stale` once, when the face is gone.
        p_fake: Calibrated probability of a fake, 0..1; None if the state is `warming` or `stale`.
        logit: Output of the head and the temporal classifier from which `p_fake` was computed; None if there
            is no score.
        box: `(x, y, w, h)` in pixels of the frame.
        size: `(width, height)` of the frame in pixels.
        window_fill: Share of the window that holds samples, 0..1.
        pts_s: Media time of the frame in seconds.
        captured: Unix seconds at which a live frame was captured; None for a file.
        latency: Time spent on the frame, per stage; None for a face that is gone.
    """

    face: int
    state: State
    p_fake: float | None
    logit: float | None
    box: Box
    size: tuple[int, int]
    window_fill: float
    pts_s: float
    captured: float | None
    latency: Latency | None

    def message(self, stream: str) -> VerdictMessage:
        """Return the message to publish, with the box in shares of the frame.

        Args:
            stream: Name of the stream that the frame came from.
        """
        return VerdictMessage(
            stream=stream,
            face=self.face,
            state=self.state,
            p_fake=self.p_fake,
            box=relative_box(self.box, *self.size),
            window_fill=self.window_fill,
            pts_s=self.pts_s,
            captured=self.captured,
            latency_ms=self.latency,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """Holds what one frame showed, ready for the backbone.

    Args:
        frame: The frame.
        faces: The faces to judge in it.
        crops: uint8 RGB `(len(faces), size, size, 3)`.
        taken: When the analysis took the frame up, on its clock.
        detect_ms: Spent on finding the faces.
        crop_ms: Spent on cutting them out.
    """

    frame: Frame
    faces: tuple[Face, ...]
    crops: NDArray[np.uint8]
    taken: float
    detect_ms: float
    crop_ms: float


class _Track:
    """What is remembered of one face from frame to frame."""

    def __init__(self, bundle: Bundle, expiry_s: float) -> None:
        meter = None if bundle.temporal is None else ResidualMeter(bundle.crop_margin)
        self.buffer = FaceWindow(bundle.window, bundle.feature_dim, meter)
        self.decision = FaceDecision(bundle.calibration, min_fill=bundle.min_fill, expiry_s=expiry_s)
        self.misses = 0
        self.box: Box = (0.0, 0.0, 0.0, 0.0)

    def forget(self) -> None:
        """Forget the samples: what comes does not follow them."""
        self.buffer.clear()
        self.decision.reset()


class StreamAnalysis:
    """Analyses the frames of one stream in their order; not for use by two threads at once.

    Args:
        bundle: The model.
        head: Judges windows: the engine.
        features: Turns crops into features: the batcher, or the engine where there is only one stream.
        finder: Finds and follows the faces of this stream, and of no other.
        verdict_hz: How often a face gets a verdict, in media time; None for every frame.
        max_faces: How many faces of a frame are judged: those already followed first, then the highest.
        expiry_s: A verdict that comes longer than this after its frame was taken up is `stale`.
        clock: Gives seconds that never jump.
        wall: Gives Unix seconds, to be compared with `Frame.captured`.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        head: Head,
        features: Features,
        finder: Finder,
        verdict_hz: float | None = None,
        max_faces: int = 8,
        expiry_s: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        # For the whole process: threads of OpenCV take twice the CPU time for crops this small, and no less
        # time by the clock.
        cv2.setNumThreads(1)
        self._bundle = bundle
        self._head = head
        self._features = features
        self._due_to_ask = features.due if isinstance(features, SharedFeatures) else nullcontext
        self._finder = finder
        self._max_faces = max_faces
        self._expiry_s = expiry_s
        self._clock = clock
        self._wall = wall
        self._verdict_rate = (
            VerdictRate(verdict_hz) if verdict_hz is not None and verdict_hz < bundle.sample_hz else None
        )
        self._tracks: dict[int, _Track] = {}
        self._chosen_lately: deque[set[int]] = deque(maxlen=MISSES_TO_FORGET)

    @property
    def faces(self) -> Collection[int]:
        """Give the ids of the faces that are followed now."""
        return self._tracks.keys()

    def analyse(self, frame: Frame) -> list[FaceVerdict]:
        """Find the faces of the next frame and judge each.

        Args:
            frame: The next sample of the stream.

        Returns:
            A verdict for each face in the frame if one is due, and a `stale` one for each face that is gone.

        Raises:
            EngineFailed: The engine broke; there is no verdict then.
        """
        with self._due_to_ask():
            sighting = self.observe(frame)
            started = self._clock()
            features = self._features.features(sighting.crops) if sighting.faces else None
        return self.conclude(sighting, features, backbone_ms=1e3 * (self._clock() - started))

    def observe(self, frame: Frame) -> Sighting:
        """Find the faces of the next frame and cut them out.

        Args:
            frame: The next sample of the stream.

        Returns:
            What goes into the backbone, and later with its features into `conclude`.
        """
        taken = self._clock()
        faces = self._chosen(self._finder.find(frame))
        found = self._clock()
        size = self._bundle.input_size
        # New memory for every frame: the buffers keep the crops.
        crops = np.empty((len(faces), size, size, 3), np.uint8)
        for crop, face in zip(crops, faces, strict=True):
            crop_face(frame.image, face.box, size=size, margin=self._bundle.crop_margin, out=crop)
        return Sighting(
            frame=frame,
            faces=faces,
            crops=crops,
            taken=taken,
            detect_ms=1e3 * (found - taken),
            crop_ms=1e3 * (self._clock() - found),
        )

    def conclude(
        self, sighting: Sighting, features: NDArray[np.float32] | None, *, backbone_ms: float = 0.0
    ) -> list[FaceVerdict]:
        """Judge the faces of an observed frame; frames are concluded in the order they were observed.

        Args:
            sighting: What `observe` gave.
            features: float32 `(len(sighting.faces), D)`, in the order of the faces; None if there are none.
            backbone_ms: What the features cost, in milliseconds.

        Returns:
            A verdict for each face in the frame if one is due, and a `stale` one for each face that is gone.

        Raises:
            EngineFailed: The engine broke; there is no verdict then.
        """
        frame = sighting.frame
        started = self._clock()
        if frame.gap:
            self._forget_samples()
        for row, face in enumerate(sighting.faces):
            assert features is not None
            track = self._track(face, frame.missed)
            track.buffer.push(frame.pts_s, sighting.crops[row], features[row])
        gone = self._miss({face.id for face in sighting.faces}, frame.missed)
        verdicts: list[FaceVerdict] = []
        if self._verdict_rate is None or self._verdict_rate.due(frame.pts_s):
            verdicts += self._judge(sighting, backbone_ms, started)
        else:
            for face in sighting.faces:
                self._tracks[face.id].decision.keep_alive(sighting.taken)
        return verdicts + [self._farewell(face, track, frame) for face, track in gone.items()]

    def clear(self) -> None:
        """Forget everything: the next frame does not continue the last one."""
        self._tracks.clear()
        self._chosen_lately.clear()

    def _chosen(self, faces: Sequence[Face]) -> tuple[Face, ...]:
        if len(faces) > self._max_faces:
            # Whoever is followed stays in: changing places would leave a gap in both buffers.
            followed: set[int] = set().union(*self._chosen_lately)
            faces = sorted(faces, key=lambda face: (face.id not in followed, -face.box[3]))[: self._max_faces]
        self._chosen_lately.append({face.id for face in faces})
        return tuple(faces)

    def _track(self, face: Face, lost: int) -> _Track:
        track = self._tracks.get(face.id)
        if track is None:
            track = self._tracks[face.id] = _Track(self._bundle, self._expiry_s)
        elif track.misses + lost >= MISSES_TO_FORGET:
            # A sample in which it was not found, and then one that nobody saw.
            track.forget()
        track.misses = 0
        track.box = face.box
        return track

    def _forget_samples(self) -> None:
        for track in self._tracks.values():
            track.forget()

    def _miss(self, seen: set[int], lost: int) -> dict[int, _Track]:
        """Count misses for every face that was not seen, and take out those that are gone."""
        for face, track in self._tracks.items():
            if face not in seen:
                track.misses += 1 + lost
        gone = {face: track for face, track in self._tracks.items() if track.misses >= MISSES_TO_FORGET}
        for face in gone:
            del self._tracks[face]
        return gone

    def _judge(self, sighting: Sighting, backbone_ms: float, started: float) -> list[FaceVerdict]:
        logits = self._logits([face.id for face in sighting.faces])
        now = self._clock()
        frame = sighting.frame
        spent_ms = frame.decode_ms + 1e3 * (now - sighting.taken)
        captured = frame.captured
        latency = Latency(
            decode=frame.decode_ms,
            detect=sighting.detect_ms,
            crop=sighting.crop_ms,
            backbone=backbone_ms,
            head=1e3 * (now - started),
            total=spent_ms if captured is None else max(0.0, 1e3 * (self._wall() - captured)),
        )
        verdicts = []
        for face in sighting.faces:
            track, logit = self._tracks[face.id], logits.get(face.id)
            p_fake = None if logit is None else self._bundle.calibration.p_fake(logit)
            state = track.decision.update(p_fake, track.buffer.fill, sighting.taken)
            if state in SCORED_STATES:
                # A score on a frame that took too long to analyse has expired before it is sent.
                state = track.decision.current(now)
            verdicts.append(_face_verdict(face.id, track, state, logit, p_fake, frame, latency))
        return verdicts

    def _logits(self, faces: Sequence[int]) -> dict[int, float]:
        """Ask the head about every face that has enough samples: one call for each length there is."""
        by_length: dict[int, list[int]] = {}
        for face in faces:
            length = len(self._tracks[face].buffer)
            if length >= self._bundle.min_frames:
                by_length.setdefault(length, []).append(face)
        logits: dict[int, float] = {}
        for group in by_length.values():
            buffers = [self._tracks[face].buffer for face in group]
            found = self._head.logits(np.stack([buffer.window_features() for buffer in buffers]))
            if self._bundle.temporal is not None:
                found = found + self._bundle.temporal.logits(
                    np.stack([buffer.window_residuals() for buffer in buffers])
                )
            logits.update(zip(group, found.tolist(), strict=True))
        return logits

    def _farewell(self, face: int, track: _Track, frame: Frame) -> FaceVerdict:
        return _face_verdict(face, track, "stale", None, None, frame, None)


def _face_verdict(
    face: int,
    track: _Track,
    state: State,
    logit: float | None,
    p_fake: float | None,
    frame: Frame,
    latency: Latency | None,
) -> FaceVerdict:
    return FaceVerdict(
        face=face,
        state=state,
        p_fake=p_fake if state in SCORED_STATES else None,
        logit=logit,
        box=track.box,
        size=(frame.width, frame.height),
        window_fill=track.buffer.fill,
        pts_s=frame.pts_s,
        captured=frame.captured,
        latency=latency,
    )
