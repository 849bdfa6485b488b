"""Set of forged videos, each beside its re-encoded original: what is read, skipped and written for it.

    videos = real_videos(manifests, "train")
    open_folder(out, settings, videos={"all": videos})
    for pair in pairs:
        if not pair.exists(out):
            with pair.writers(out, rate, crf) as (real, fake):
                ...
    finish(out, [row for pair in pairs for row in pair.rows()], skipped)

Videos are written under a temporary name and renamed when they are complete, so an interrupted run can be
resumed.
"""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av

from runtime.errors import PathError, os_reason
from runtime.files import atomic_path, write_atomically
from train.data.layouts import find_videos
from train.data.splits import Split, SplitLeak, check_no_leak
from train.data.videos import Video
from train.errors import TrainError
from train.face_swap.videos import VideoWriter

MANIFEST_FILE, SETTINGS_FILE, SKIPPED_FILE = "videos.csv", "settings.json", "skipped.csv"
VIDEO_FOLDER = "videos"
MAX_NAME = 100
"""Characters of a video's name in the names of files, which file systems limit."""
COLUMNS = ("path", "label", "group", "split", "method", "target", "source", "set")


class ForgeryError(PathError, TrainError):
    """Forged videos that cannot be made."""


class VideoSkipped(Exception):
    """A video that no forged one can be made of; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class ForgedSet:
    """Result of a run.

    Args:
        manifest: The manifest of the written videos.
        forged: Number of forged videos; there are as many originals.
        skipped: Number of videos that were left out.
    """

    manifest: Path
    forged: int
    skipped: int


@dataclass(frozen=True, kw_only=True)
class ForgedPair:
    """Forged video and its original.

    Args:
        name: Start of the names of the files.
        video: The video that both are made of.
        method: Method of the forgery.
        source: Group of the person whose face was put in; empty if there is none.
        data_set: Name of the set.
    """

    name: str
    video: Video
    method: str
    source: str = ""
    data_set: str

    def exists(self, out: Path) -> bool:
        """Return whether both files are complete."""
        return all((out / path).exists() for path in self._paths())

    @contextmanager
    def writers(self, out: Path, rate: int, crf: int) -> Iterator[tuple[VideoWriter, VideoWriter]]:
        """Yield the writers of the original and of the forged video, which are removed if the block raises.

        Args:
            out: Folder of the set.
            rate: Frames per second.
            crf: Quality by x264's scale.
        """
        original, forged = (out / path for path in self._paths())
        with (
            atomic_path(original) as first,
            atomic_path(forged) as second,
            VideoWriter(first, rate, crf) as real,
            VideoWriter(second, rate, crf) as fake,
        ):
            yield real, fake

    def rows(self) -> list[dict[str, str]]:
        """Return the rows of the manifest, the original first."""
        common = {
            "group": self.video.group,
            "split": self.video.split or "",
            "target": self.name,
            "set": self.data_set,
        }
        original, forged = self._paths()
        return [
            {**common, "path": original, "label": "real", "method": "", "source": ""},
            {**common, "path": forged, "label": "fake", "method": self.method, "source": self.source},
        ]

    def _paths(self) -> tuple[str, str]:
        return f"{VIDEO_FOLDER}/{self.name}_real.mp4", f"{VIDEO_FOLDER}/{self.name}_fake.mp4"


def real_videos(manifests: Sequence[Path], split: Literal[Split, "all"]) -> list[Video]:
    """Return the real videos of manifests, each file once.

    Args:
        manifests: CSV files of videos.
        split: Split of the videos, or `all`.

    Raises:
        LayoutError: A manifest cannot be read.
        ForgeryError: A group is in two splits.
    """
    videos = [video for path in manifests for video in find_videos(path, layout="manifest").videos]
    try:
        check_no_leak([v.group for v in videos], [v.split or "unused" for v in videos])
    except SplitLeak as leak:
        raise ForgeryError(
            manifests[0], "together with the other manifests, its split leaks", str(leak)
        ) from None
    found: dict[Path, Video] = {}
    for video in videos:
        if not video.fake and split in ("all", video.split):
            found.setdefault(video.path.resolve(), video)
    return list(found.values())


def file_name(video: Video) -> str:
    """Return a name for the files of a video, unique among those of several manifests."""
    return f"{video.name[:MAX_NAME]}_{zlib.crc32(str(video.path).encode()):08x}"


def open_folder(
    out: Path,
    settings: Mapping[str, Any],
    videos: Mapping[str, Sequence[Video]],
    folders: Sequence[str] = (),
) -> None:
    """Store the settings of a new folder; refuse one with others.

    Args:
        out: Folder to write or to resume.
        settings: Settings that decide on the content of the files.
        videos: Name of a part of the run -> its videos.
        folders: Names of folders to make beside that of the videos.

    Raises:
        ForgeryError: The folder cannot be written, or was begun with other settings or videos.
    """
    paths = {name: [str(video.path) for video in part] for name, part in videos.items()}
    content = json.dumps({"settings": settings, "videos": paths}, indent=1)
    path = out / SETTINGS_FILE
    try:
        for folder in (VIDEO_FOLDER, *folders):
            (out / folder).mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_atomically(path, content)
        elif path.read_text(encoding="utf-8") != content:
            raise ForgeryError(out, "was begun with other settings or videos", "delete it or name another")
    except OSError as error:
        raise not_writable(out, error) from error


def not_writable(out: Path, error: OSError) -> ForgeryError:
    """Return the error of a folder to which the system refuses to write."""
    reason = os_reason(error)
    return ForgeryError(out, reason, "name a folder that can be written and has space")


@contextmanager
def unreadable_is_skipped() -> Iterator[None]:
    """Raise errors of reading a video as `VideoSkipped`.

    Around a generator's `yield` it leaves the errors of the caller as they are.
    """
    try:
        yield
    except IndexError as error:
        raise VideoSkipped("it has no video") from error
    except (av.FFmpegError, OSError) as error:
        raise VideoSkipped(str(error)) from error


def check_faces(found: int, frames: int, *, min_faces: int, min_share: float) -> None:
    """Check that enough frames of a video have a face.

    Args:
        found: Number of frames with a face.
        frames: Number of frames.
        min_faces: Minimum number of frames with a face.
        min_share: Minimum share of frames with a face.

    Raises:
        VideoSkipped: There are too few.
    """
    if found < max(min_faces, min_share * frames):
        raise VideoSkipped(f"a face in {found} of {frames} frames only")


def finish(out: Path, rows: Sequence[dict[str, str]], skipped: Mapping[Path, str]) -> ForgedSet:
    """Write the manifest and the list of skipped videos.

    Args:
        out: Folder of the set.
        rows: Rows of the manifest, two for each pair.
        skipped: Path of a video -> why it was left out.

    Raises:
        ForgeryError: There is no pair, or the folder cannot be written.
    """
    reasons = [{"path": str(path), "reason": reason} for path, reason in skipped.items()]
    try:
        write_atomically(out / SKIPPED_FILE, _csv(("path", "reason"), reasons))
        if not rows:
            raise ForgeryError(out, "no video has a usable face", f"see {SKIPPED_FILE} or give other videos")
        write_atomically(out / MANIFEST_FILE, _csv(COLUMNS, rows))
    except OSError as error:
        raise not_writable(out, error) from error
    return ForgedSet(manifest=out / MANIFEST_FILE, forged=len(rows) // 2, skipped=len(reasons))


def _csv(columns: Sequence[str], rows: Sequence[dict[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
