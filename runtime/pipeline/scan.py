"""Analysis of whole video files without dropped samples, with one score per video.

    with open_engine(bundle) as engine, Batcher(engine.features) as batcher:
        scanner = Scanner(bundle, head=engine, batcher=batcher, infer=detector_infer())
        result = scanner.scan(Path("interview.mp4"))
        print(result.state, result.p_fake)

Three threads work at the same time: the reader decodes, the calling thread finds faces, and the batcher runs
the backbone on the faces of the previous frames, several frames per call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from runtime.errors import NoVideos
from runtime.model.bundle import Bundle
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.scan_result import ScanAccumulator, ScanResult
from runtime.pipeline.stream_analysis import FaceVerdict, Head, ObservedFrame, StreamAnalysis
from streams.errors import EndOfStream, SourceError
from streams.faces.detector import Detector, Infer
from streams.faces.finder import FaceFinder
from streams.input.address import shown_path
from streams.input.events import Event, TooSlow
from streams.input.files import video_files
from streams.input.frame import Frame
from streams.input.reader import open_reader
from streams.input.source import file_source

# A GPU computes eight crops in hardly more time than one. On a CPU the size makes no difference to the time,
# and a larger one would use more memory.
BATCH_CROPS = 8
# Calls in progress: one runs while the next is being filled.
MAX_PENDING_BATCHES = 2
# A file delivers frames as fast as they can be decoded, so this only limits how long a faulty disk blocks.
FRAME_TIMEOUT_S = 1.0

OnSample: TypeAlias = Callable[[float, ObservedFrame, Sequence[FaceVerdict]], object]
"""Receiver of each analysed frame: seconds analysed so far, the frame, the verdicts on its faces."""


def find_videos(paths: Iterable[Path]) -> Iterator[Path]:
    """Find the videos to scan.

    Args:
        paths: Files, taken whatever their suffix, and directories, searched as by `streams.input.files`.

    Yields:
        Each file once; also directories that cannot be listed, which are reported as unreadable.

    Raises:
        NoVideos: A directory contains no video file.
    """
    known: set[Path] = set()
    for path in paths:
        if path.is_dir():
            failures: list[OSError] = []
            files = list(video_files(path, on_error=failures.append))
            files += [Path(failure.filename) for failure in failures]
            if not files:
                raise NoVideos(path)
        else:
            files = [path]
        for file in files:
            if file not in known:
                known.add(file)
                yield file


class Scanner:
    """Analysis of videos one after the other with one engine.

    Args:
        bundle: The model.
        head: Engine that computes logits from windows of features.
        batcher: Batcher that computes features from crops.
        infer: Inference function of the face detector.
    """

    def __init__(self, bundle: Bundle, *, head: Head, batcher: Batcher, infer: Infer) -> None:
        self._bundle = bundle
        self._head = head
        self._batcher = batcher
        self._infer = infer

    def scan(
        self,
        path: Path,
        *,
        on_progress: Callable[[float], object] = lambda _: None,
        on_sample: OnSample = lambda *_: None,
    ) -> ScanResult:
        """Score one video.

        Args:
            path: The file.
            on_progress: Called with the seconds of the video analysed so far.
            on_sample: Called with each analysed frame, in order.

        Returns:
            The result, also for a file that cannot be read.

        Raises:
            EngineFailed: The engine failed.
        """
        try:
            source = file_source(path)
        except SourceError as error:
            return ScanResult(file=shown_path(path), state="unreadable", error=str(error))
        accumulator = ScanAccumulator(self._bundle)

        def on_event(event: Event) -> None:
            if isinstance(event, TooSlow):
                accumulator.too_slow = True

        with open_reader(source, sample_hz=self._bundle.sample_hz, on_event=on_event) as reader:
            frames = _BatchedFrames(self._new_analysis(), self._batcher, accumulator, on_sample)
            while True:
                try:
                    frame = reader.next(timeout_s=FRAME_TIMEOUT_S)
                except EndOfStream as end:
                    if isinstance(end.__cause__, SourceError):
                        return ScanResult(file=str(path), state="unreadable", error=str(end.__cause__))
                    if end.__cause__ is not None:
                        raise end.__cause__ from None
                    break
                if frame is not None:
                    frames.add(frame)
                    on_progress(accumulator.seconds)
            frames.finish()
        return accumulator.result(str(path))

    def _new_analysis(self) -> StreamAnalysis:
        finder = FaceFinder(Detector(self._infer))
        return StreamAnalysis(
            self._bundle, head=self._head, features=self._batcher, finder=finder, max_faces=None
        )


class _BatchedFrames:
    """Frames of a video whose crops go through the backbone together, while the next ones are searched."""

    def __init__(
        self,
        analysis: StreamAnalysis,
        batcher: Batcher,
        accumulator: ScanAccumulator,
        on_sample: OnSample,
    ) -> None:
        self._analysis = analysis
        self._on_sample = on_sample
        self._batcher = batcher
        self._accumulator = accumulator
        self._filling: list[ObservedFrame] = []
        self._crops = 0
        self._pending: deque[tuple[list[ObservedFrame], Future[NDArray[np.float32]] | None]] = deque()

    def add(self, frame: Frame) -> None:
        observed = self._analysis.observe(frame)
        self._filling.append(observed)
        self._crops += len(observed.backbone_crops)
        # Frames without faces count too, since a long run of them would be kept in memory.
        if max(self._crops, len(self._filling)) >= BATCH_CROPS:
            self._submit()

    def finish(self) -> None:
        self._submit()
        while self._pending:
            self._score_oldest()

    def _submit(self) -> None:
        if not self._filling:
            return
        future = None
        if self._crops:
            future = self._batcher.submit(
                np.concatenate([observed.backbone_crops for observed in self._filling])
            )
        self._pending.append((self._filling, future))
        self._filling, self._crops = [], 0
        if len(self._pending) > MAX_PENDING_BATCHES:
            self._score_oldest()

    def _score_oldest(self) -> None:
        frames, future = self._pending.popleft()
        features = None if future is None else future.result()
        end = 0
        for observed in frames:
            start, end = end, end + len(observed.backbone_crops)
            rows = None if features is None else features[start:end]
            verdicts = self._analysis.score(observed, rows)
            self._accumulator.add(observed, verdicts)
            self._on_sample(self._accumulator.seconds, observed, verdicts)
