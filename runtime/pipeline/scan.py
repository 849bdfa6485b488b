"""Whole videos, nothing dropped: the same analysis as live, and one score per video.

    with open_engine(bundle) as engine, Batcher(engine.features) as batcher:
        scanner = Scanner(bundle, head=engine, batcher=batcher, infer=detector_infer())
        result = scanner.scan(Path("interview.mp4"))
        print(result.state, result.p_fake)

Three things run at once: the reader decodes, this thread looks for faces, the batcher runs the backbone on
the faces of the frames before, several frames in one call.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from runtime.errors import UnmaskError
from runtime.model.bundle import Bundle
from runtime.model.video_score import FaceRecord, face_p_fake, video_p_fake
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.stream_analysis import FaceVerdict, Head, Sighting, StreamAnalysis
from streams.errors import EndOfStream, SourceError, redact
from streams.faces.detector import Detector, Infer
from streams.faces.finder import FaceFinder, Finder
from streams.input.files import video_files
from streams.input.frame import Frame
from streams.input.reader import Event, TooSlow, open_reader
from streams.input.source import parse_source

ScanState: TypeAlias = Literal["scored", "no_face", "too_short", "too_slow", "unreadable"]

# A GPU takes eight crops in hardly more time than one; a CPU does not care, and more would only use memory.
BATCH_CROPS = 8
# So many calls may be on their way: one runs while the next is being filled.
MOST_BATCHES = 2
# A file gives its next frame as fast as it can be decoded; this only bounds how long a broken disk can hang.
PATIENCE_S = 1.0


class NoVideos(UnmaskError, ValueError):
    """Says that a directory holds no video file.

    Args:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{redact(str(self.path))}: no video files in this directory; give one that has some"


@dataclass(frozen=True, kw_only=True)
class FaceScore:
    """Says what was found about one face of a video.

    Args:
        face: Its id within the video.
        p_fake: Over all of its windows, calibrated, 0..1; None if it was never long enough in view for one.
        windows: How many windows were judged.
        seconds: How long it was in view.
    """

    face: int
    p_fake: float | None
    windows: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Give the form for JSON."""
        return {
            "face": self.face,
            "p_fake": None if self.p_fake is None else round(self.p_fake, 6),
            "windows": self.windows,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """Says what was found about one video.

    Args:
        file: Its path as it was given.
        state: `scored`; `no_face`; `too_short` (no face for `min_frames` samples in a row); `too_slow` (fewer
            frames a second than the model needs); `unreadable`. Only `scored` has a score.
        p_fake: Of the video, calibrated, 0..1; see `runtime.model.video_score`.
        faces: All that were seen, in the order of their ids.
        seconds: How much of it was analysed, in its own time.
        frames: How many of its frames were analysed: `sample_hz` of them a second.
        error: Why it is unreadable.
    """

    file: str
    state: ScanState
    p_fake: float | None = None
    faces: tuple[FaceScore, ...] = ()
    seconds: float = 0.0
    frames: int = 0
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give the form for JSON; `error` is there only if there was one."""
        line: dict[str, Any] = {
            "file": self.file,
            "state": self.state,
            "p_fake": None if self.p_fake is None else round(self.p_fake, 6),
            "faces": [face.to_dict() for face in self.faces],
            "seconds": round(self.seconds, 3),
            "frames": self.frames,
        }
        if self.error is not None:
            line["error"] = self.error
        return line


def find_videos(paths: Iterable[Path]) -> Iterator[Path]:
    """List the videos to scan.

    Args:
        paths: Files, taken whatever they are called, and directories, of which video files are taken by their
            suffix at any depth, in the order of their names. What begins with a dot is left out.

    Yields:
        Each file once.

    Raises:
        NoVideos: A directory has none.
    """
    known: set[Path] = set()
    for path in paths:
        if path.is_dir():
            files = list(video_files(path))
            if not files:
                raise NoVideos(path)
        else:
            files = [path]
        for file in files:
            if file not in known:
                known.add(file)
                yield file


class Scanner:
    """Scans videos one after the other with one engine.

    Args:
        bundle: The model.
        head: Judges windows: the engine.
        batcher: Turns crops into features.
        infer: Runs the face detector's network.
    """

    def __init__(self, bundle: Bundle, *, head: Head, batcher: Batcher, infer: Infer) -> None:
        self._bundle = bundle
        self._head = head
        self._batcher = batcher
        self._infer = infer

    def scan(self, path: Path, *, on_progress: Callable[[float], None] = lambda _: None) -> ScanResult:
        """Score one video.

        Args:
            path: The file.
            on_progress: Called with the seconds of the video that have been analysed.

        Returns:
            What was found; a file that cannot be read is a result too.

        Raises:
            EngineFailed: The engine broke.
        """
        try:
            # Absolute, as a file may be called `demo` or `webcam`.
            source = replace(parse_source(str(path.absolute())), spec=redact(str(path)))
        except SourceError as error:
            return ScanResult(file=str(path), state="unreadable", error=str(error))
        tally = _Tally(self._bundle)
        analysis = StreamAnalysis(
            self._bundle,
            head=self._head,
            features=self._batcher,
            finder=self._finder(),
        )
        with open_reader(source, sample_hz=self._bundle.sample_hz, on_event=tally.on_event) as reader:
            pipeline = _Pipeline(analysis, self._batcher, tally)
            while True:
                try:
                    frame = reader.next(timeout_s=PATIENCE_S)
                except EndOfStream as end:
                    if isinstance(end.__cause__, SourceError):
                        return ScanResult(file=str(path), state="unreadable", error=str(end.__cause__))
                    if end.__cause__ is not None:
                        raise end.__cause__ from None
                    break
                if frame is not None:
                    pipeline.feed(frame)
                    on_progress(tally.seconds)
            pipeline.finish()
        return tally.result(str(path))

    def _finder(self) -> Finder:
        return FaceFinder(Detector(self._infer))


class _Pipeline:
    """Looks at frames while the backbone is busy with those before."""

    def __init__(self, analysis: StreamAnalysis, batcher: Batcher, tally: _Tally) -> None:
        self._analysis = analysis
        self._batcher = batcher
        self._tally = tally
        self._filling: list[Sighting] = []
        self._crops = 0
        self._running: deque[tuple[list[Sighting], Future[NDArray[np.float32]] | None]] = deque()

    def feed(self, frame: Frame) -> None:
        sighting = self._analysis.observe(frame)
        self._filling.append(sighting)
        self._crops += len(sighting.faces)
        # Frames without faces are counted too, or a long stretch of them would be held in memory.
        if max(self._crops, len(self._filling)) >= BATCH_CROPS:
            self._submit()

    def finish(self) -> None:
        self._submit()
        while self._running:
            self._conclude()

    def _submit(self) -> None:
        if not self._filling:
            return
        answer = None
        if self._crops:
            answer = self._batcher.submit(np.concatenate([sighting.crops for sighting in self._filling]))
        self._running.append((self._filling, answer))
        self._filling, self._crops = [], 0
        if len(self._running) > MOST_BATCHES:
            self._conclude()

    def _conclude(self) -> None:
        sightings, answer = self._running.popleft()
        features = None if answer is None else answer.result()
        end = 0
        for sighting in sightings:
            start, end = end, end + len(sighting.faces)
            own = None if features is None else features[start:end]
            self._tally.add(sighting, self._analysis.conclude(sighting, own))


@dataclass
class _Seen:
    logits: list[float] = field(default_factory=list)
    heights: list[float] = field(default_factory=list)


class _Tally:
    """What has been found about a video so far."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._faces: dict[int, _Seen] = {}
        self._frames = 0
        self._first_s = self._last_s = 0.0
        self._too_slow = False

    @property
    def seconds(self) -> float:
        # Each sample stands for the time until the next one is due.
        return self._last_s - self._first_s + 1 / self._bundle.sample_hz if self._frames else 0.0

    def on_event(self, event: Event) -> None:
        if isinstance(event, TooSlow):
            self._too_slow = True

    def add(self, sighting: Sighting, verdicts: Iterable[FaceVerdict]) -> None:
        if not self._frames:
            self._first_s = sighting.frame.pts_s
        self._last_s = sighting.frame.pts_s
        self._frames += 1
        for face in sighting.faces:
            self._faces.setdefault(face.id, _Seen()).heights.append(face.box[3])
        for verdict in verdicts:
            if verdict.logit is not None:
                self._faces[verdict.face].logits.append(verdict.logit)

    def result(self, file: str) -> ScanResult:
        records = [
            FaceRecord(
                face=face,
                logits=seen.logits,
                samples=len(seen.heights),
                height=statistics.median(seen.heights),
            )
            for face, seen in sorted(self._faces.items())
        ]
        scale = self._bundle.calibration
        p_fake = video_p_fake(records, scale, samples=self._frames)
        return ScanResult(
            file=file,
            state=self._state(p_fake),
            p_fake=p_fake,
            faces=tuple(
                FaceScore(
                    face=record.face,
                    p_fake=face_p_fake(record, scale),
                    windows=len(record.logits),
                    seconds=record.samples / self._bundle.sample_hz,
                )
                for record in records
            ),
            seconds=self.seconds,
            frames=self._frames,
        )

    def _state(self, p_fake: float | None) -> ScanState:
        if p_fake is not None:
            return "scored"
        if self._too_slow:
            return "too_slow"
        if self._frames < self._bundle.min_frames:
            return "too_short"
        return "too_short" if self._faces else "no_face"
