"""Faces of one stream that are being analysed: selection, windows and removal. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence

from runtime.model.bundle import Bundle
from runtime.pipeline.decision import FaceDecision
from runtime.pipeline.window import FaceWindow
from streams.faces.crop import Box
from streams.faces.finder import Face
from streams.features.temporal_residuals import ResidualMeter
from streams.input.continuity import Spacing

# A face that is missing from this many consecutive samples is gone, and its window is discarded.
MAX_MISSES = 2


class AnalysedFace:
    """Window, decision and latest position of one face.

    Args:
        face_id: Track id.
        bundle: The model.
        expiry_s: Age in seconds above which a verdict is `stale`.
    """

    def __init__(self, face_id: int, bundle: Bundle, expiry_s: float) -> None:
        meter = None if bundle.temporal is None else ResidualMeter(bundle.crop_margin)
        self.id = face_id
        self.window = FaceWindow(bundle.window, bundle.feature_dim, meter)
        self.decision = FaceDecision(bundle.calibration, min_fill=bundle.min_fill, expiry_s=expiry_s)
        self.misses = 0
        self.seen_s = 0.0
        self.box: Box = (0.0, 0.0, 0.0, 0.0)

    def restart(self) -> None:
        """Drop all samples, because the next one does not follow them."""
        self.window.clear()
        self.decision.reset()


class AnalysedFaces:
    """All faces of one stream that are being analysed.

    Args:
        bundle: The model.
        max_faces: Largest number of faces analysed in one frame.
        expiry_s: Age in seconds above which a verdict is `stale`.
    """

    def __init__(self, bundle: Bundle, *, max_faces: int, expiry_s: float) -> None:
        self._bundle = bundle
        self._max_faces = max_faces
        self._expiry_s = expiry_s
        self._spacing = Spacing(bundle.sample_hz)
        self._segment: int | None = None
        self._faces: dict[int, AnalysedFace] = {}
        self._selected: deque[set[int]] = deque(maxlen=MAX_MISSES)

    @property
    def ids(self) -> Collection[int]:
        """Track ids of the faces."""
        return self._faces.keys()

    def select(self, faces: Sequence[Face]) -> tuple[Face, ...]:
        """Select the faces of the next frame to analyse: those selected recently, then the largest.

        Args:
            faces: All faces of the frame.
        """
        if len(faces) > self._max_faces:
            # Replacing a face by a larger one would leave a gap in the windows of both.
            recent: set[int] = set().union(*self._selected)
            faces = sorted(faces, key=lambda face: (face.id not in recent, -face.box[3]))[: self._max_faces]
        self._selected.append({face.id for face in faces})
        return tuple(faces)

    def update(
        self, faces: Iterable[Face], *, time_s: float, segment: int
    ) -> tuple[list[AnalysedFace], list[AnalysedFace]]:
        """Update with the selected faces of a frame, and remove those that are gone.

        In a new segment every face starts again, and a face that is not in its first frame is gone.

        Args:
            faces: Selected faces of the frame.
            time_s: Media time of the frame in seconds.
            segment: Segment of the frame.

        Returns:
            The faces in the frame, in their order, and the faces that are gone.
        """
        begins = segment != self._segment
        self._segment = segment
        present = [self._update(face, time_s, begins=begins) for face in faces]
        visible = {face.id for face in present}
        gone = []
        for face in list(self._faces.values()):
            if face.id not in visible:
                face.misses += 1
                # A lost sample counts like a frame without the face.
                lost = not self._spacing.is_regular(time_s - face.seen_s)
                if begins or lost or face.misses >= MAX_MISSES:
                    gone.append(self._faces.pop(face.id))
        return present, gone

    def _update(self, face: Face, time_s: float, *, begins: bool) -> AnalysedFace:
        analysed = self._faces.get(face.id)
        if analysed is None:
            analysed = self._faces[face.id] = AnalysedFace(face.id, self._bundle, self._expiry_s)
        elif begins or not self._spacing.is_bridgeable(time_s - analysed.seen_s):
            analysed.restart()
        analysed.misses = 0
        analysed.seen_s = time_s
        analysed.box = face.box
        return analysed
