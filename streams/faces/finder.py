"""Follow the faces of a stream: detect in every few pictures, measure the motion in all of them.

    finder = FaceFinder(Detector(infer))
    for face in finder.find(frame):
        crop = crop_face(frame.image, face.box, size=112, margin=1.3)

Motion is measured by optical flow that has to agree forwards and backwards. From one sample of a real face
to the next, at 8 to 10 Hz, never less than 47 % of the points agreed; across a cut from one face to another,
never more than 14 %. So flow says where a face went and vouches that it is the same: a track it loses ends.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from streams.faces.crop import Box, known_colorspace
from streams.faces.detector import Detector
from streams.faces.tracker import Tracker
from streams.input.frame import Frame

FLOW_SIDE = 320  # long side, in pixels, of the gray picture in which motion is measured
FLOW_GRID = 7  # points across and down a face
FLOW_BORDER = 0.15  # share of the box left out on each side: there the background shows
MIN_AGREEING = 0.3  # share of the points that must come back to within a pixel, see the module's docstring


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One face in one frame."""

    id: int
    """Stays with the face while it can be followed; never given to another one."""
    box: Box
    """The part of the face's box inside the picture."""
    score: float
    """The detector's confidence when it last saw the face, 0..1."""
    detected: bool
    """Whether the detector saw the face in this very frame, or it was followed from an earlier one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionSchedule:
    """How often the detector looks, and how closely.

    Args:
        every: Run the detector in every n-th frame; in between faces are followed.
        narrow_side: Long side in pixels of the picture that the network sees while it finds the faces.
        wide_side: The same while there is no face, when one was missed, and now and then for new ones.
        wide_every: Look closely in every n-th detection.
        min_height: Height in pixels that the smallest known face should have for the network.
    """

    every: int = 3
    narrow_side: int = 320
    wide_side: int = 640
    wide_every: int = 8
    min_height: int = 32

    def __post_init__(self) -> None:
        if min(self.every, self.narrow_side, self.wide_every, self.min_height) < 1:
            raise ValueError(f"every value of a cadence must be positive: {self}")
        if self.wide_side < self.narrow_side:
            raise ValueError(f"the wide side of a cadence is not under its narrow side: {self}")


class Finder(Protocol):
    """Face finder of one stream or video: keeps the ids of faces from frame to frame."""

    def find(self, frame: Frame) -> list[Face]:
        """Return the faces of the next frame."""
        ...


class FaceFinder:
    """Finds and follows the faces of one stream; one thread, frames in order.

    A face is reported where the detector found it and, followed, until the detector looks again. One that it
    then misses is not reported; its id survives if the next look, a closer one one frame later, finds it.

    Args:
        detector: Finds faces in single pictures.
        cadence: When and how closely to look.
        tracker: Keeps the ids.
        clock: Monotonic seconds, for `detect_ms`.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        schedule: DetectionSchedule | None = None,
        tracker: Tracker | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.detect_ms = 0.0
        """Milliseconds that the last call of `find` took."""
        self._detector = detector
        self._cadence = schedule or DetectionSchedule()
        self._tracker = tracker or Tracker()
        self._clock = clock
        self._reformatter = VideoReformatter()
        self._gray: NDArray[np.uint8] | None = None
        self._until_detection = 0
        self._detections = 0

    def find(self, frame: Frame) -> list[Face]:
        """Find the faces of the next frame.

        Args:
            frame: The frame after the one of the previous call, or a later one with `gap` set.

        Returns:
            The faces in the picture, those followed longest first.
        """
        started = self._clock()
        picture = frame.image
        known = len(self._tracker.tracks)
        self._follow(picture)
        tracks = self._tracker.tracks
        self._until_detection -= 1
        unsure = len(tracks) < known or any(track.missed for track in tracks) or self._tracker.crowded
        detected = self._until_detection <= 0 or frame.gap or unsure
        if detected:
            self._tracker.confirm(self._detector.detect(picture, self._long_side(picture)))
            self._until_detection = self._cadence.every
            self._detections += 1
        faces = [
            Face(id=track.id, box=box, score=track.score, detected=detected)
            for track in self._tracker.tracks
            if not track.missed and (box := _inside(track.box, picture)) is not None
        ]
        self.detect_ms = (self._clock() - started) * 1e3
        return faces

    def _long_side(self, picture: av.VideoFrame) -> int:
        schedule, tracks = self._cadence, self._tracker.tracks
        if not tracks or any(track.missed for track in tracks) or self._detections % schedule.wide_every == 0:
            return schedule.wide_side
        smallest = min(track.box[3] for track in tracks)
        needed = round(schedule.min_height * max(picture.width, picture.height) / smallest)
        return min(max(needed, schedule.narrow_side), schedule.wide_side)

    def _follow(self, picture: av.VideoFrame) -> None:
        """Move the tracks to where their faces went since the previous picture; those lost from sight end."""
        scale = min(1.0, FLOW_SIDE / max(picture.width, picture.height))
        small = self._reformatter.reformat(
            picture,
            max(1, round(picture.width * scale)),
            max(1, round(picture.height * scale)),
            "gray",
            src_colorspace=known_colorspace(picture),
            interpolation=Interpolation.AREA,
            threads=1,
        )
        before, self._gray = self._gray, small.to_ndarray().astype(np.uint8, copy=False)
        shifts: dict[int, tuple[float, float]] = {}
        # Another size is another camera mode, or another video: nothing to measure against.
        if before is not None and before.shape == self._gray.shape:
            for track in self._tracker.tracks:
                box = _inside(track.box, picture)
                shift = box and _flow(before, self._gray, np.array(box) * scale)
                if shift:
                    shifts[track.id] = (shift[0] / scale, shift[1] / scale)
        self._tracker.move(shifts)


def _flow(
    before: NDArray[np.uint8], after: NDArray[np.uint8], box: NDArray[np.float64]
) -> tuple[float, float] | None:
    """Return how far, right and down in pixels, what the box holds has moved; None when that cannot be told.

    Source: Kalal et al., "Forward-Backward Error: Automatic Detection of Tracking Failures", 2010.
    """
    x, y, width, height = box
    steps = np.linspace(FLOW_BORDER, 1 - FLOW_BORDER, FLOW_GRID)
    across, down = np.meshgrid(x + steps * width, y + steps * height)
    points = np.stack([across, down], axis=-1).reshape(-1, 1, 2).astype(np.float32)
    there, found = _flow_points(before, after, points)
    back, returned = _flow_points(after, before, there)
    agreeing = found & returned & (np.linalg.norm(back - points, axis=2)[:, 0] < 1)
    if agreeing.mean() < MIN_AGREEING:
        return None
    right, lower = np.median((there - points)[agreeing, 0], axis=0).tolist()
    return right, lower


def _flow_points(
    before: NDArray[np.uint8], after: NDArray[np.uint8], points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool]]:
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        before, after, points, np.empty_like(points), winSize=(15, 15), maxLevel=3
    )
    return np.asarray(there, np.float32), np.asarray(found, np.bool)[:, 0]


def _inside(box: Box, picture: av.VideoFrame) -> Box | None:
    """Return the part of a box inside the picture; None when its centre has left."""
    x, y, width, height = box
    if not (0 <= x + width / 2 < picture.width and 0 <= y + height / 2 < picture.height):
        return None
    left, top = max(x, 0.0), max(y, 0.0)
    return left, top, min(x + width, picture.width) - left, min(y + height, picture.height) - top
