"""Videos of a data set with label, method, group and split, and their frames; the error of a layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av

from runtime.errors import PathError
from streams.input.capture.display_transform import DisplayTransform, PixelAspect
from train.data.splits import Split
from train.errors import TrainError


class LayoutError(PathError, TrainError):
    """A data set that is not laid out as expected."""


@dataclass(frozen=True, kw_only=True)
class Video:
    """Video of a data set.

    Args:
        path: The file, which has not been opened yet.
        name: Name, unique within the data set, of letters, digits, `_` and `-`; clip names start with it.
        fake: Whether it is fake.
        method: Method that made the fake; of a real video, the part of the data set that it comes from.
        target: Original video that a fake was made from; of a real video, the video itself.
        source: Person or video whose face was put in; empty if there is none or it is unknown.
        group: Name of the group; all videos of a group must be in the same split.
        split: `train`, `val` or `test`; `unused` if every split would leak; None if not decided yet.
        data_set: Name of the data set in a manifest of several; empty if it is not stated.
    """

    path: Path
    name: str
    fake: bool
    method: str
    target: str
    source: str = ""
    group: str
    split: Split | None = None
    data_set: str = ""


def whole_rate(video: av.VideoStream, max_rate: int) -> int:
    """Return the average rate of a stream in whole frames per second, 1 to `max_rate`; 25 if unknown."""
    return min(max_rate, max(1, round(float(video.average_rate or 25))))


def constant_rate_frames(
    source: av.container.InputContainer, video: av.VideoStream, rate: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield upright frames with square pixels, and their number at a constant rate; none is repeated.

    Args:
        source: The opened file.
        video: Its video stream.
        rate: Frames per second; frames in excess of it are left out.
    """
    transform, aspect = DisplayTransform(), PixelAspect(video)
    first_s, last = None, -1
    for packet in source.demux(video):
        try:
            images = packet.decode()
        except av.FFmpegError:
            continue  # damaged: as in a scan, the next one is read
        for image in images:
            assert isinstance(image, av.VideoFrame)
            if image.time is None:
                continue
            first_s = image.time if first_s is None else first_s
            number = round((image.time - first_s) * rate)
            if number > last:
                last = number
                yield number, transform.apply(image, aspect.current())[0]
