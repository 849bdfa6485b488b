"""Face detection and tracking of one stream: the detector in every few frames, optical flow in all of them.

    finder = FaceFinder(Detector(infer))
    for face in finder.find(frame):
        crop = crop_face(frame.image, face.box, size=112, margin=1.3)

A track continues only while optical flow measures its motion reliably. Across a cut from one face to another
it does not, so an id never passes to another face. All tracks end where a new segment begins; see
`streams.input.continuity`.
"""

from dataclasses import dataclass
from typing import Protocol

from streams.faces.crop import Box
from streams.faces.detector import Detector
from streams.faces.optical_flow import FaceMotion
from streams.faces.reduced_frame import ReducedFrame
from streams.faces.tracker import Tracker
from streams.input.frame import Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One face in one frame."""

    id: int
    """Id of the track; constant while the face can be followed, never reused."""
    box: Box
    """The part of the face box inside the frame."""
    score: float
    """Confidence of the last detection of this face, 0..1."""
    detected: bool
    """Whether the detector ran on this frame; otherwise the box was moved by optical flow."""
    roll: float = 0.0
    """Rotation in the image in degrees at the last detection; see `streams.faces.detector.Detection`."""
    yaw: float = 0.0
    """Rotation about the vertical axis of the head in degrees at the last detection; see `Detection`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionSchedule:
    """Interval and input size of the face detector.

    Args:
        every: Run the detector on every n-th frame; faces are followed by optical flow in between.
        every_late: The same while frames are late, so that the analysis can catch up.
        small_side: Longer side in pixels of the detector's input while all faces are found.
        large_side: Longer side of the input while there is no face or one was missed, and in every
            `large_every`-th detection.
        large_every: Use `large_side` in every n-th detection, to find new, smaller faces.
        min_face_height: Height in pixels that the smallest known face should have in the input.
        max_reduction: Largest reduction of a frame in the detections that look for new, smaller faces. Of
            frames with more than `large_side * max_reduction` pixels on a side the input is larger than
            `large_side`.
        max_side: Longer side that the input never exceeds.

    Raises:
        ValueError: A value is not positive, or a side is less than the one before it.
    """

    every: int = 3
    every_late: int = 8
    small_side: int = 320
    large_side: int = 640
    large_every: int = 8
    min_face_height: int = 32
    max_reduction: float = 3.0
    max_side: int = 1280

    def __post_init__(self) -> None:
        if min(self.every, self.small_side, self.large_every, self.min_face_height) < 1:
            raise ValueError(f"every value of a detection schedule must be positive: {self}")
        if self.every_late < self.every:
            raise ValueError(f"every_late of a detection schedule must be at least `every`: {self}")
        if not self.small_side <= self.large_side <= self.max_side:
            raise ValueError(f"the sides of a detection schedule must increase: {self}")
        if not self.max_reduction > 0:
            raise ValueError(f"max_reduction of a detection schedule must be positive: {self}")

    def search_side(self, frame_side: int) -> int:
        """Return the longer side of the input that shows small faces too, for a frame's longer side."""
        return min(max(round(frame_side / self.max_reduction), self.large_side), self.max_side)


class Finder(Protocol):
    """Face finder of one stream or video; keeps the ids of faces from frame to frame."""

    def find(self, frame: Frame) -> list[Face]:
        """Return the faces of the next frame."""
        ...


class FaceFinder:
    """Detection and tracking of the faces of one stream; for one thread, frames in order.

    A face is reported where the detector found it, and then where optical flow moved it, until the detector
    runs again. A face that this detection misses is not reported. It keeps its id if the next detection, one
    frame later and at `large_side`, finds it.

    Args:
        detector: Face detector.
        schedule: When to run the detector and at which input size.
        tracker: Assigns ids to detections.
        phase: Number by which the detections, and the searches for smaller faces, are brought forward. With
            a different one for each stream they do not fall on the same moment for all.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        schedule: DetectionSchedule | None = None,
        tracker: Tracker | None = None,
        phase: int = 0,
    ) -> None:
        self._detector = detector
        self._phase = phase
        self._schedule = schedule or DetectionSchedule()
        self._tracker = tracker or Tracker()
        self._motion = FaceMotion()
        self._segment: int | None = None
        self._since_detection: int | None = None
        self._detections = 0

    def find(self, frame: Frame) -> list[Face]:
        """Find the faces of the next frame.

        Args:
            frame: The frame after the one of the previous call, or a later one with another `segment`.

        Returns:
            The faces in the frame, oldest track first.
        """
        image = ReducedFrame(frame.image)
        if frame.segment != self._segment:
            self._segment = frame.segment
            self._motion.clear()
            self._tracker.clear()
            self._since_detection = None
        known = len(self._tracker.tracks)
        self._follow(image)
        tracks = self._tracker.tracks
        lost = len(tracks) < known or any(track.missed for track in tracks)
        detected = self._is_due(late=frame.late) or lost or self._tracker.has_overlap
        if detected:
            self._tracker.confirm(self._detector.detect(image, self._long_side(image)))
            first = self._since_detection is None
            self._since_detection = self._phase % self._schedule.every if first else 0
            self._detections += 1
        return [
            Face(id=track.id, box=box, score=track.score, detected=detected, roll=track.roll, yaw=track.yaw)
            for track in self._tracker.tracks
            if not track.missed and (box := _visible_part(track.box, image)) is not None
        ]

    def _is_due(self, *, late: bool) -> bool:
        """Count a frame, and return whether its turn to be searched for faces has come."""
        if self._since_detection is None:
            return True
        self._since_detection += 1
        return self._since_detection >= (self._schedule.every_late if late else self._schedule.every)

    def _long_side(self, image: ReducedFrame) -> int:
        """Return the longer side of the detector's input for the next detection."""
        schedule, tracks = self._schedule, self._tracker.tracks
        frame_side = max(image.width, image.height)
        search_side = schedule.search_side(frame_side)
        is_search = self._detections == 0 or (self._detections + self._phase) % schedule.large_every == 0
        if is_search or any(track.missed for track in tracks):
            return search_side
        if not tracks:
            return schedule.large_side
        smallest = min(track.box[3] for track in tracks)
        needed = round(schedule.min_face_height * frame_side / smallest)
        return min(max(needed, schedule.small_side), search_side)

    def _follow(self, image: ReducedFrame) -> None:
        """Move the tracks by the motion of their faces; tracks without a reliable motion end."""
        visible = {
            track.id: box
            for track in self._tracker.tracks
            if (box := _visible_part(track.box, image)) is not None
        }
        self._tracker.move(self._motion.update(image, visible))


def _visible_part(box: Box, image: ReducedFrame) -> Box | None:
    """Return the part of a box inside the frame; None if the centre of the box is outside."""
    x, y, width, height = box
    if not (0 <= x + width / 2 < image.width and 0 <= y + height / 2 < image.height):
        return None
    left, top = max(x, 0.0), max(y, 0.0)
    return left, top, min(x + width, image.width) - left, min(y + height, image.height) - top
