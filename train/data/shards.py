"""Writer of prepared data sets: tar shards in the WebDataset layout, resumable after a kill at any moment.

A prepared data set is a folder with these files:

    train-000.tar …   `<clip>.<NN>.jpg`, the crops of a clip next to each other, and their temporal
                      residuals `<clip>.residuals.npy`
    clips.csv         one line per clip
    skipped.csv       videos without a clip, with the reason
    prepared.json     settings and counts
    progress.jsonl    journal: one line per finished video, written after its clips are on disk

Each line of the journal states how long every shard was at that time. When a run is resumed, anything behind
that point is truncated.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from runtime.errors import os_reason
from runtime.files import write_atomically
from train.data.clip_cutter import FaceClip
from train.data.videos import Video
from train.errors import TrainError

JOURNAL = "progress.jsonl"
END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)
RESIDUALS_SUFFIX = "residuals.npy"
COLUMNS = (
    "shard",
    "clip",
    "fake",
    "method",
    "target",
    "source",
    "group",
    "frames",
    "sample_hz",
    "native_face_height_px",
    "split",
)


class PrepareError(TrainError):
    """A data set that cannot be prepared or resumed; the message is one line with advice."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Line of the journal with the result of one video.

    Args:
        video: Path of the video, relative to the data set if inside it.
        label: `fake`, `group` and `split`; they must not change while a data set is being prepared.
        rows: Lines of `clips.csv`.
        reason: Reason why there is no clip; empty if there are clips.
        retry: Whether the next run should try the video again, because it could not be read.
        shards: Split -> number of its last shard, and bytes in it.
    """

    video: str
    label: list[Any]
    rows: list[dict[str, Any]]
    reason: str = ""
    retry: bool = False
    shards: dict[str, list[int]] = field(default_factory=dict)


class ShardWriter:
    """Writer of the numbered tar shards of one split.

    Args:
        folder: Folder of the shards.
        split: Name of the split.
        max_bytes: Size at which a shard is closed and the next one begun.
        number: Number of the shard to continue.
        length: Bytes of that shard to keep.
    """

    def __init__(self, folder: Path, split: str, *, max_bytes: int, number: int = 0, length: int = 0) -> None:
        self._folder = folder
        self._split = split
        self._max_bytes = max_bytes
        self.number = number
        self._file = self._open(length)
        self._complete = length  # bytes up to the end of the last clip

    @property
    def position(self) -> list[int]:
        """Number of the current shard and bytes in it."""
        return [self.number, self._file.tell()]

    def add(self, name: str, clip: FaceClip) -> str:
        """Append a clip.

        Args:
            name: Name of the clip, without dots.
            clip: The clip.

        Returns:
            Name of the shard that the clip is in.
        """
        if self._file.tell() >= self._max_bytes:
            self._end()
            self.number += 1
            self._file = self._open(0)
            self._complete = 0
        for index, jpeg in enumerate(clip.jpegs):
            self._write(f"{name}.{index:02}.jpg", jpeg)
        residuals = io.BytesIO()
        np.save(residuals, clip.residuals)
        self._write(f"{name}.{RESIDUALS_SUFFIX}", residuals.getvalue())
        self._complete = self._file.tell()
        return self._path.name

    def _write(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        # Without owner and time, the same videos give the same bytes.
        self._file.write(member.tobuf(tarfile.GNU_FORMAT))
        self._file.write(content)
        self._file.write(b"\0" * (-len(content) % tarfile.BLOCKSIZE))

    def sync(self) -> None:
        """Flush everything written so far to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """End the shard as a valid tar file; it can still be continued later.

        A clip that was interrupted while it was added is removed.
        """
        if not self._file.closed:  # by an interruption before the next shard was begun
            try:
                self._file.seek(self._complete)
                self._file.truncate()
                self._end()
            except OSError:
                with suppress(OSError):  # of what is still in the buffer
                    self._file.close()
                raise

    @property
    def _path(self) -> Path:
        return shard_path(self._folder, self._split, self.number)

    def _open(self, length: int) -> BinaryIO:
        file = self._path.open("r+b" if length else "wb")
        file.truncate(length)
        file.seek(length)
        return file

    def _end(self) -> None:
        self._file.write(END_OF_TAR)
        self.sync()
        self._file.close()


class PreparedWriter:
    """Writer of a prepared data set; a context manager that locks the folder.

    Args:
        folder: Folder to write, created if missing.
        settings: Settings that must be the same when a run is resumed.
        max_bytes: Maximum size of a shard.

    Raises:
        PrepareError: The folder has other content or other settings, lacks a shard or a part of one, or
            another process writes to it.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, max_bytes: int) -> None:
        self.folder = folder
        self.records: dict[str, Record] = {}
        self._settings = json.loads(json.dumps(settings))
        self._max_bytes = max_bytes
        self._writers: dict[str, ShardWriter] = {}

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PrepareError(
                f"{self.folder} cannot be created ({os_reason(error)}); give another --out"
            ) from error
        path = self.folder / JOURNAL
        if not path.exists() and any(self.folder.iterdir()):
            raise PrepareError(
                f"{self.folder} is not empty and was not made by `prepare`; give another --out"
            )
        with self._writing():
            self._journal = path.open("a+b")
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._journal.close()
            raise PrepareError(f"another `prepare` is writing to {self.folder}; wait for it to end") from None
        try:
            with self._writing():
                self._resume()
        except PrepareError:
            self._journal.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._writing(), ExitStack() as closing:
            closing.callback(self._journal.close)
            for writer in self._writers.values():
                closing.callback(writer.close)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn errors of the system into one with advice."""
        try:
            yield
        except OSError as error:
            raise PrepareError(
                f"{self.folder} cannot be written ({os_reason(error)}); make it writable or free some space, "
                "then run `prepare` again to resume"
            ) from error

    def add(self, video: Video, name: str, clips: Sequence[FaceClip]) -> None:
        """Write the clips of a video and record it as done.

        Args:
            video: The video, with its split.
            name: Path of the video in the journal.
            clips: Its clips, at least one.
        """
        split = str(video.split)
        with self._writing():
            rows = self._write(video, split, clips)
        self._record(Record(video=name, label=label(video), rows=rows, shards=self._positions()))

    def _write(self, video: Video, split: str, clips: Sequence[FaceClip]) -> list[dict[str, Any]]:
        """Write clips to the disk; return their lines of `clips.csv`."""
        if split not in self._writers:
            self._writers[split] = ShardWriter(self.folder, split, max_bytes=self._max_bytes)
        rows: list[dict[str, Any]] = []
        for number, clip in enumerate(clips):
            key = f"{video.name}_{number}"
            shard = self._writers[split].add(key, clip)
            rows.append(
                {
                    "shard": shard,
                    "clip": key,
                    "fake": int(video.fake),
                    "method": video.method,
                    "target": video.target,
                    "source": video.source,
                    "group": video.group,
                    "frames": len(clip.jpegs),
                    "sample_hz": round(clip.sample_hz, 3),
                    "native_face_height_px": round(clip.height, 1),
                    "split": split,
                }
            )
        self._writers[split].sync()
        return rows

    def skip(self, video: Video, name: str, reason: str, *, retry: bool) -> None:
        """Record that a video has no clip.

        Args:
            video: The video.
            name: Path of the video in the journal.
            reason: Reason, in one line.
            retry: Whether the next run should try the video again.
        """
        reason = " ".join(reason.split())
        self._record(
            Record(
                video=name, label=label(video), rows=[], reason=reason, retry=retry, shards=self._positions()
            )
        )

    def finish(self, videos: Iterable[str], about: Mapping[str, Any]) -> None:
        """Write `clips.csv`, `skipped.csv` and `prepared.json` from the journal.

        Args:
            videos: Videos of the data set as it is now; others in the journal are left out.
            about: Content of `prepared.json` besides the settings.
        """
        records = [self.records[name] for name in videos if name in self.records]
        clips = io.StringIO()
        table = csv.DictWriter(clips, fieldnames=COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(sorted((row for r in records for row in r.rows), key=lambda row: str(row["clip"])))
        skipped = io.StringIO()
        lines = csv.writer(skipped, lineterminator="\n")
        lines.writerow(["path", "reason"])
        lines.writerows(sorted([record.video, record.reason] for record in records if record.reason))
        facts = json.dumps({**self._settings, **about}, indent=2, allow_nan=False) + "\n"
        with self._writing():
            write_atomically(self.folder / "clips.csv", clips.getvalue())
            write_atomically(self.folder / "skipped.csv", skipped.getvalue())
            write_atomically(self.folder / "prepared.json", facts)

    def _record(self, record: Record) -> None:
        with self._writing():
            self._journal.write(json.dumps(asdict(record), allow_nan=False).encode() + b"\n")
            self._journal.flush()
        self.records[record.video] = record

    def _positions(self) -> dict[str, list[int]]:
        return {split: writer.position for split, writer in self._writers.items()}

    def _parsed(self, number: int, line: bytes) -> dict[str, Any]:
        """Return a line of the journal: the settings, and a `Record` in each of the others."""
        try:
            values: dict[str, Any] = json.loads(line)
            if number == 1:
                dict(values["settings"])
            else:
                Record(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise PrepareError(
                f"{self.folder / JOURNAL}: line {number} is damaged; delete the folder and prepare it again"
            ) from error
        return values

    def _resume(self) -> None:
        self._journal.seek(0)
        text = self._journal.read()
        # A killed run may have left an incomplete line.
        whole = text[: text.rfind(b"\n") + 1]
        self._journal.truncate(len(whole))
        lines = [self._parsed(number, line) for number, line in enumerate(whole.splitlines(), start=1)]
        if not lines:
            self._journal.write(json.dumps({"settings": self._settings}, allow_nan=False).encode() + b"\n")
            self._journal.flush()
        elif (before := lines[0]["settings"]) != self._settings:
            changed = sorted(key for key in self._settings if self._settings[key] != before.get(key))
            raise PrepareError(
                f"{self.folder} was started with another {', '.join(changed) or 'version'}; "
                "use the same settings or give another --out"
            )
        for line in lines[1:]:
            record = Record(**line)
            self.records[record.video] = record
        known: dict[str, list[int]] = lines[-1].get("shards", {}) if lines else {}
        lengths = {
            (split, number): length
            for line in lines
            for split, (number, length) in line.get("shards", {}).items()
        }
        for split, (last, _) in known.items():
            for number in range(last + 1):
                path = shard_path(self.folder, split, number)
                _check_shard(path, lengths.get((split, number), 0), ended=number < last)
        for split, (number, length) in known.items():
            self._writers[split] = ShardWriter(
                self.folder, split, max_bytes=self._max_bytes, number=number, length=length
            )
        for split in ("train", "val", "test"):
            for path in self.folder.glob(f"{split}-[0-9]*.tar"):
                if split not in known or int(path.stem.rpartition("-")[2]) > known[split][0]:
                    path.unlink()


def shard_path(folder: Path, split: str, number: int) -> Path:
    """Return the path of a shard."""
    return folder / f"{split}-{number:03}.tar"


def _check_shard(path: Path, length: int, *, ended: bool) -> None:
    """Raise an error unless a shard has all that was written to it, and its end if it was ended."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(-min(size, len(END_OF_TAR)), io.SEEK_END)
            complete = size >= length and (not ended or file.read() == END_OF_TAR)
    except FileNotFoundError:
        complete = False
    if not complete:
        raise PrepareError(
            f"{path} is missing or shorter than the journal states; delete the folder and prepare it again"
        )


def label(video: Video) -> list[Any]:
    """Return label, group and split of a video, which must not change while a data set is being prepared."""
    return [video.fake, video.group, video.split]
