"""Analysis of one stream, from a frame to the verdicts on its faces; used by `monitor`, `scan` and the
benchmarks.

    analysis = StreamAnalysis(bundle, head=engine, features=batcher, finder=FaceFinder(detector))
    while frame := reader.next(timeout_s=1.0):
        for verdict in analysis.analyse(frame):
            print(verdict.face, verdict.state, verdict.p_fake)

Several frames can share one backbone call: call `observe` for each of them, compute the features of all their
crops at once, then call `score` for each in the same order. The verdicts equal those of `analyse`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.messages import (
    SCORED_STATES,
    FaceState,
    Latency,
    UncertainReason,
    VerdictMessage,
    relative_box,
)
from runtime.model.bundle import Bundle
from runtime.model.calibration import Calibration
from runtime.pipeline.analysed_faces import AnalysedFace, AnalysedFaces, FeatureSchedule
from runtime.pipeline.decision import RateLimit
from streams.faces.context import cut_context
from streams.faces.crop import Box, crop_face, square
from streams.faces.finder import Face, Finder
from streams.features.repeats import Repeats
from streams.features.temporal_residuals import FaceContext
from streams.input.frame import Frame


class Head(Protocol):
    """Classifier of windows of features; every engine is one."""

    def logits(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits `(N,)` of windows `(N, T, D)`."""
        ...


class FeatureExtractor(Protocol):
    """Backbone for crops; every engine and the batcher are one."""

    def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features `(N, D)` of crops `(N, H, W, 3)`."""
        ...


@runtime_checkable
class SharedFeatureExtractor(Protocol):
    """Backbone that batches the crops of several streams; the batcher is one."""

    def announce(self) -> AbstractContextManager[None]:
        """Announce a request of this thread, so that others can wait for it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceVerdict:
    """Verdict on one face after one frame.

    Args:
        face: Track id, never reused within the stream.
        state: See `runtime.pipeline.decision`; `stale` if the face is gone or its score has expired.
        p_fake: Calibrated probability of a fake, 0..1; None if the state is `warming` or `stale`.
        logit: Output of the head and the temporal classifier for the newest window; None if there is no
            score. `p_fake` is that of the mean logit of the last seconds; see `AnalysedFace.mean_logit`.
        box: `(x, y, w, h)` in pixels of the frame.
        size: `(width, height)` of the frame in pixels.
        window_fill: Filled share of the window, 0..1.
        pts_s: Media time of the frame in seconds.
        captured: Unix seconds at which a live frame was captured; None for a file.
        latency: Time spent on the frame, per stage; None for a face that is gone.
        reason: Why the image does not allow a decision; see `VerdictMessage`.
    """

    face: int
    state: FaceState
    p_fake: float | None
    logit: float | None
    box: Box
    size: tuple[int, int]
    window_fill: float
    pts_s: float
    captured: float | None
    latency: Latency | None
    reason: UncertainReason | None = None

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
            reason=self.reason,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedFrame:
    """Frame with its faces and their crops, ready for the backbone.

    Args:
        frame: The frame.
        faces: Faces to analyse.
        crops: uint8 RGB `(len(faces), size, size, 3)`.
        contexts: The chosen faces with their surroundings, None for others; all None if the model has no
            temporal classifier.
        chosen: For each face, whether its crop goes through the backbone and its temporal residuals are
            measured; see `runtime.pipeline.analysed_faces.FeatureSchedule`. None if all do.
        started: Time in seconds at which the analysis of the frame began.
        detect_ms: Time spent on detecting and tracking, in milliseconds.
        crop_ms: Time spent on cropping, in milliseconds.
        repeated: Whether the frame repeats the previous one; `faces` is empty then.
    """

    frame: Frame
    faces: tuple[Face, ...]
    crops: NDArray[np.uint8]
    contexts: tuple[FaceContext | None, ...]
    started: float
    detect_ms: float
    crop_ms: float
    repeated: bool = False
    chosen: tuple[bool, ...] | None = None

    @property
    def backbone_crops(self) -> NDArray[np.uint8]:
        """Crops that go through the backbone, uint8 RGB `(N, size, size, 3)`."""
        return self.crops if self.chosen is None or all(self.chosen) else self.crops[list(self.chosen)]

    def features_by_face(self, features: NDArray[np.float32] | None) -> Iterator[NDArray[np.float32] | None]:
        """Yield the feature of each face, in the order of `faces`; None if its crop was not chosen.

        Args:
            features: float32 `(len(backbone_crops), D)`; None if there are none.
        """
        rows = iter(() if features is None else features)
        for chosen in self.chosen or (True,) * len(self.faces):
            yield next(rows) if chosen else None


class StreamAnalysis:
    """Analysis of the frames of one stream, in order; for one thread at a time.

    Args:
        bundle: The model.
        head: Engine that computes logits from windows.
        features: Batcher, or the engine itself if there is only one stream.
        finder: Face finder of this stream alone.
        verdict_hz: Verdicts per second of media time and face; None for one per frame.
        max_faces: Largest number of faces analysed in one frame; None for all. Further faces take turns.
        turns: Entered while this thread computes; see `runtime.engines.cpu.Turns`.
        phase: Number of samples by which the choice of those that are measured is brought forward.
        expiry_s: Age in seconds, from the start of a frame's analysis, above which its score is `stale`.
        clock: Monotonic clock in seconds.
        wall: Unix time in seconds, comparable with `Frame.captured`.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        head: Head,
        features: FeatureExtractor,
        finder: Finder,
        verdict_hz: float | None = None,
        max_faces: int | None = 8,
        turns: AbstractContextManager[object] | None = None,
        phase: int = 0,
        expiry_s: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        # For the whole process: on crops this small, OpenCV's threads double the CPU time and save no wall
        # time.
        cv2.setNumThreads(1)
        self._bundle = bundle
        self._head = head
        self._features = features
        self._announce = features.announce if isinstance(features, SharedFeatureExtractor) else nullcontext
        self._turns = turns or nullcontext()
        self._finder = finder
        self._repeats = Repeats()
        self._repeated = False
        self._crops: dict[int, NDArray[np.uint8]] = {}
        self._clock = clock
        self._wall = wall
        self._faces = AnalysedFaces(bundle, max_faces=max_faces, expiry_s=expiry_s)
        self._schedule = FeatureSchedule(bundle.feature_every, sample_hz=bundle.sample_hz, phase=phase)
        self._verdict_rate = (
            RateLimit(verdict_hz) if verdict_hz is not None and verdict_hz < bundle.sample_hz else None
        )

    @property
    def faces(self) -> Collection[int]:
        """Track ids of the faces being analysed."""
        return self._faces.ids

    @property
    def waiting(self) -> int:
        """Number of faces of the last frame that wait for their turn to be analysed."""
        return self._faces.waiting

    @property
    def calibration(self) -> Calibration:
        """Calibration and thresholds with which the verdicts are made."""
        return self._bundle.calibration

    @property
    def crops(self) -> Mapping[int, NDArray[np.uint8]]:
        """Crops of the last frame passed to `analyse`, uint8 RGB `(size, size, 3)`, by track id."""
        return self._crops

    @property
    def repeated(self) -> bool:
        """Whether the last frame repeated the one before it, and was not analysed."""
        return self._repeated

    def analyse(self, frame: Frame) -> list[FaceVerdict]:
        """Return the verdicts on the faces of the next frame.

        Args:
            frame: Next sample of the stream.

        Returns:
            A verdict on each face in the frame if one is due, and a `stale` one on each face that is gone.

        Raises:
            EngineFailed: The engine failed; there is no verdict then.
        """
        with ExitStack() as request:
            with self._turns:
                # Not before: the batches of others would wait for a request that waits for its turn.
                request.enter_context(self._announce())
                observed = self.observe(frame)
            self._crops = {face.id: crop for face, crop in zip(observed.faces, observed.crops, strict=True)}
            started = self._clock()
            crops = observed.backbone_crops
            features = self._features.features(crops) if len(crops) else None
        backbone_ms = 1e3 * (self._clock() - started)
        with self._turns:
            return self.score(observed, features, backbone_ms=backbone_ms)

    def observe(self, frame: Frame) -> ObservedFrame:
        """Find and crop the faces of the next frame.

        Args:
            frame: Next sample of the stream.

        Returns:
            Crops for the backbone, to be passed on to `score` with their features.
        """
        started = self._clock()
        self._repeated = self._repeats.is_repeat(frame.image)
        if self._repeated:
            return ObservedFrame(
                frame=frame,
                faces=(),
                crops=np.empty((0, self._bundle.input_size, self._bundle.input_size, 3), np.uint8),
                contexts=(),
                started=started,
                detect_ms=0.0,
                crop_ms=0.0,
                repeated=True,
            )
        faces = self._faces.select(self._finder.find(frame))
        detected = self._clock()
        size = self._bundle.input_size
        # A new array for every frame, since several frames may wait for the backbone.
        crops = np.empty((len(faces), size, size, 3), np.uint8)
        for crop, face in zip(crops, faces, strict=True):
            crop_face(frame.image, face.box, size=size, margin=self._bundle.crop_margin, out=crop)
        chosen = self._schedule.choose([face.id for face in faces], time_s=frame.pts_s, segment=frame.segment)
        temporal = self._bundle.temporal is not None
        contexts = tuple(
            cut_context(frame, face.box) if temporal and wanted else None
            for face, wanted in zip(faces, chosen, strict=True)
        )
        return ObservedFrame(
            frame=frame,
            faces=faces,
            crops=crops,
            contexts=contexts,
            started=started,
            detect_ms=1e3 * (detected - started),
            crop_ms=1e3 * (self._clock() - detected),
            chosen=chosen,
        )

    def score(
        self, observed: ObservedFrame, features: NDArray[np.float32] | None, *, backbone_ms: float = 0.0
    ) -> list[FaceVerdict]:
        """Return the verdicts on the faces of an observed frame; call it in the order of `observe`.

        Args:
            observed: Result of `observe`.
            features: float32 `(N, D)`, those of `observed.backbone_crops`; None if there are none.
            backbone_ms: Time spent on the features, in milliseconds.

        Returns:
            A verdict on each face in the frame if one is due, and a `stale` one on each face that is gone.
            None on a repeated frame, which contains nothing new.

        Raises:
            EngineFailed: The engine failed; there is no verdict then.
        """
        if observed.repeated:
            return []
        started = self._clock()
        frame = observed.frame
        present, gone = self._faces.update(observed.faces, time_s=frame.pts_s, segment=frame.segment)
        by_face = observed.features_by_face(features)
        for row, (face, feature) in enumerate(zip(present, by_face, strict=True)):
            face.window.push(
                frame.pts_s,
                observed.crops[row],
                feature,
                context=observed.contexts[row],
                square=square(face.box, self._bundle.crop_margin),
            )
            if feature is not None:
                face.logits = None
                face.measure_quality(observed.crops[row])
        verdicts: list[FaceVerdict] = []
        if self._verdict_rate is None or self._verdict_rate.due(frame.pts_s):
            verdicts += self._verdicts(observed, present, backbone_ms, started)
        else:
            for face in present:
                face.decision.keep_alive(observed.started)
        return verdicts + [_verdict(face, frame, "stale") for face in gone]

    def check_engine(self) -> None:
        """Run backbone and head once on an empty crop and an empty window.

        Raises:
            Exception: The engine does not work, for any stream; the cause is not a frame of this one.
        """
        size = self._bundle.input_size
        self._features.features(np.zeros((1, size, size, 3), np.uint8))
        self._head.logits(np.zeros((1, self._bundle.min_frames, self._bundle.feature_dim), np.float32))

    def _verdicts(
        self, observed: ObservedFrame, faces: Sequence[AnalysedFace], backbone_ms: float, started: float
    ) -> list[FaceVerdict]:
        logits = self._logits(faces)
        now = self._clock()
        frame = observed.frame
        spent_ms = frame.decode_ms + 1e3 * (now - observed.started)
        captured = frame.captured
        latency = Latency(
            decode=frame.decode_ms,
            detect=observed.detect_ms,
            crop=observed.crop_ms,
            backbone=backbone_ms,
            head=1e3 * (now - started),
            total=spent_ms if captured is None else max(0.0, 1e3 * (self._wall() - captured)),
        )
        verdicts = []
        for face in faces:
            logit = logits.get(face.id)
            p_fake = None
            if logit is not None:
                p_fake = self._bundle.calibration.p_fake(face.mean_logit(frame.pts_s, logit))
            reason = face.reason
            state = face.decision.update(p_fake, face.window.fill, observed.started, reason=reason)
            if state in SCORED_STATES:
                # A score on a frame that took too long to analyse has expired before it is sent.
                state = face.decision.current(now)
            verdicts.append(
                _verdict(face, frame, state, logit=logit, p_fake=p_fake, latency=latency, reason=reason)
            )
        return verdicts

    def _logits(self, faces: Sequence[AnalysedFace]) -> dict[int, float]:
        """Return the logits of the faces with enough samples; windows of equal length share a call.

        A short window without motion has no logit yet. In a longer one without motion, the temporal
        classifier adds nothing.
        """
        by_length: dict[int, list[AnalysedFace]] = {}
        for face in faces:
            if len(face.window) >= self._bundle.min_frames and face.window.still is not None:
                by_length.setdefault(len(face.window), []).append(face)
        logits: dict[int, float] = {}
        for group in by_length.values():
            changed = [face for face in group if face.logits is None]
            for face, pair in zip(changed, self._window_logits(changed), strict=True):
                face.logits = pair
            for face in group:
                network, temporal = face.logits or (0.0, 0.0)
                logits[face.id] = network if face.window.still else network + temporal
        return logits

    def _window_logits(self, faces: Sequence[AnalysedFace]) -> list[tuple[float, float]]:
        """Return the logits of network and temporal classifier, of windows of equal length."""
        if not faces:
            return []
        network = self._head.logits(np.stack([face.window.window_features() for face in faces]))
        temporal = np.zeros_like(network)
        if self._bundle.temporal is not None:
            residuals = np.stack([face.window.window_residuals() for face in faces])
            temporal = self._bundle.temporal.logits(residuals)
        return list(zip(network.tolist(), temporal.tolist(), strict=True))


def _verdict(
    face: AnalysedFace,
    frame: Frame,
    state: FaceState,
    *,
    logit: float | None = None,
    p_fake: float | None = None,
    latency: Latency | None = None,
    reason: UncertainReason | None = None,
) -> FaceVerdict:
    return FaceVerdict(
        face=face.id,
        state=state,
        p_fake=p_fake if state in SCORED_STATES else None,
        logit=logit,
        box=face.box,
        size=(frame.width, frame.height),
        window_fill=face.window.fill,
        pts_s=frame.pts_s,
        captured=frame.captured,
        latency=latency,
        reason=reason if state == "uncertain" else None,
    )
