"""Short measurement of the cores that a camera needs on this machine."""

from __future__ import annotations

import tempfile
import time
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av

from runtime.model.bundle import Bundle
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.scan import Scanner
from runtime.pipeline.stream_analysis import Head
from streams.faces.detector import Infer

FPS = 25
SECONDS = 4
# Threads that wait, connections and messages, which a scan does not have.
MARGIN = 1.25


def measure_cores_per_camera(bundle: Bundle, head: Head, batcher: Batcher, infer: Infer) -> float:
    """Return the CPU time per second of video of one 720p camera with one face, with a margin.

    Args:
        bundle: The model.
        head: Engine for the head.
        batcher: Batcher of the crops.
        infer: Inference of the face detector.
    """
    scanner = Scanner(bundle, head=head, batcher=batcher, infer=infer)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "camera.mp4"
        _write_clip(clip)
        scanner.scan(clip)  # the first calls of an engine take longer
        started = time.process_time()
        result = scanner.scan(clip)
        spent_s = time.process_time() - started
    return max(0.01, MARGIN * spent_s / max(result.seconds, 1.0))


def _write_clip(path: Path) -> None:
    from streams.synthesis.demo import demo_frames  # imported late: scikit-image is slow to load

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for pts, rgb in islice(demo_frames(fps=FPS), FPS * SECONDS):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = pts, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
