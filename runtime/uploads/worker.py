"""Scan of one uploaded video, as the program of a process of its own.

    python -P -m runtime.uploads.worker FOLDER NAME ENGINE [MODEL]

It writes lines of JSON to standard output, `{"seconds": ..., "length_s": ...}` while it works and at the end
`{"result": ...}` or `{"error": ...}`, and the reports into the folder. It ends when its standard input ends,
so it does not outlive the server.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import av

from runtime.engines.factory import detector_infer, open_engine
from runtime.errors import UnmaskError
from runtime.model.bundle import load_bundle
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.scan import Scanner
from runtime.scan_report.document import ScannedVideo
from runtime.scan_report.files import make_report, write_report
from runtime.scan_report.timeline import ScanTimeline
from runtime.scan_report.wording import verdict_text
from runtime.uploads.folder import REPORTS

# Containers that refer to no other file or address: a playlist would let a client scan files of the server.
FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,ivf,gif,nut,h264,hevc,mjpeg,yuv4mpegpipe"
)
PROGRESS_S = 0.25
# The least share of the CPU, where it competes with live streams.
NICENESS = 19


def main(folder: Path, name: str, engine: str, model: Path | None) -> None:
    """Scan the video of a job and write its reports.

    Args:
        folder: Folder of the job.
        name: Name of the video in it.
        engine: Engine of the server.
        model: Model of the server; None for the bundled one.
    """
    with suppress(OSError, AttributeError):
        os.nice(NICENESS)
    # Relative, so that no message contains the folder.
    os.chdir(folder)
    video = Path(name)
    try:
        length_s = check_container(video)
        send(_scan(video, engine, model, length_s))
    except (UnmaskError, NotAVideo) as error:
        send({"error": str(error)})


class NotAVideo(Exception):
    """An uploaded file that is not accepted as a video.

    Args:
        name: Name of the file.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return (
            f"{self.name}: not a video that can be read, or damaged or cut off; "
            "choose a video file, such as MP4, MOV, MKV, WebM or AVI"
        )


def check_container(video: Path) -> float | None:
    """Check by its content that a file is of an accepted container format.

    Args:
        video: The file.

    Returns:
        Its length in seconds; None if it is not stated.

    Raises:
        NotAVideo: It is not.
    """
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file", "max_pixels": "1"}
    try:
        with av.open(f"file:{video}", options=options, metadata_errors="replace") as container:
            if not container.streams.video:
                raise NotAVideo(video.name)
            return None if container.duration is None else container.duration / av.time_base
    except (av.FFmpegError, OSError) as error:
        raise NotAVideo(video.name) from error


def _scan(video: Path, engine: str, model: Path | None, length_s: float | None) -> dict[str, Any]:
    bundle = load_bundle(model)
    timeline = ScanTimeline()
    last_sent = 0.0

    def show_progress(seconds: float) -> None:
        nonlocal last_sent
        if time.monotonic() - last_sent >= PROGRESS_S:
            last_sent = time.monotonic()
            send({"seconds": round(seconds, 2), "length_s": length_s})

    infer = detector_infer(engine)
    with open_engine(bundle, engine) as running, Batcher(running.features) as batcher:
        scanner = Scanner(bundle, head=running, batcher=batcher, infer=infer)
        send({"seconds": 0.0, "length_s": length_s})
        result = scanner.scan(video, on_progress=show_progress, on_sample=timeline.add)
        described = running.describe()
    if result.error is not None:
        return {"error": result.error}
    scanned = ScannedVideo.of(video, result, timeline)
    report = make_report([scanned], bundle, described)
    for path in REPORTS.values():
        write_report(Path(path), report)
    verdict = verdict_text(result, bundle.calibration)
    return {
        "result": {
            "state": result.state,
            "verdict": verdict.state,
            "title": verdict.title,
            "text": verdict.text,
            "p_fake": result.p_fake,
        }
    }


def send(message: dict[str, Any]) -> None:
    """Write a line to the server."""
    sys.stdout.write(json.dumps(message, allow_nan=False) + "\n")
    sys.stdout.flush()


def _end_with_the_server() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    _folder, _name, _engine, *_model = sys.argv[1:]
    main(Path(_folder), _name, _engine, Path(_model[0]) if _model else None)
