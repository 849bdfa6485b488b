"""Writes clips into tar shards in the WebDataset layout, so that a run killed at any moment can be resumed.

A prepared data set is a folder:

    train-000.tar …   `<clip>.<NN>.jpg`, the frames of a clip next to each other
    clips.csv         one line per clip
    skipped.csv       what gave no clip, and why
    prepared.json     how it was made
    progress.jsonl    the journal: one line per finished video, written after its clips are on disk

The journal is the truth. Each line states how long every shard was when it was written; what a killed run
left behind that point is cut off.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from runtime.files import write_atomically
from train.data.clip_cutter import FaceClip
from train.data.videos import Video

JOURNAL = "progress.jsonl"
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


class PrepareError(ValueError):
    """Says that a data set cannot be prepared or continued; `str()` is one line that says what to do."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Holds one line of the journal: what became of a video.

    Args:
        video: Its path, relative to the data set where it is inside.
        label: `fake`, `group` and `split` as they were; they must not change under a half-prepared set.
        rows: Its lines of `clips.csv`.
        reason: Why it gave no clip; empty if it gave some.
        again: Whether another run should try it again: it could not be read, which may be mended.
        shards: Name of the split -> (number of its last shard, bytes in it).
    """

    video: str
    label: list[Any]
    rows: list[dict[str, Any]]
    reason: str = ""
    again: bool = False
    shards: dict[str, list[int]] = field(default_factory=dict)


class ShardWriter:
    """Appends clips to the numbered tar shards of one split.

    Args:
        folder: Where the shards are.
        split: Their name.
        most_bytes: A shard that has reached this is closed and the next begun.
        number: The shard to go on with.
        length: How much of it to keep.

    Raises:
        PrepareError: The shard has less than that.
    """

    def __init__(self, folder: Path, split: str, *, max_bytes: int, number: int = 0, length: int = 0) -> None:
        self._folder = folder
        self._split = split
        self._most_bytes = max_bytes
        self.number = number
        self._file = self._open(length)

    @property
    def position(self) -> list[int]:
        """Return the number of the shard and how many bytes it has."""
        return [self.number, self._file.tell()]

    def add(self, clip: str, jpegs: Sequence[bytes]) -> str:
        """Append a clip.

        Args:
            clip: Its name, without dots.
            jpegs: Its frames.

        Returns:
            The name of the shard it is in.
        """
        if self._file.tell() >= self._most_bytes:
            self._end()
            self.number += 1
            self._file = self._open(0)
        for index, jpeg in enumerate(jpegs):
            member = tarfile.TarInfo(f"{clip}.{index:02}.jpg")
            member.size = len(jpeg)
            # Neither owner nor time: the same videos give the same bytes.
            self._file.write(member.tobuf(tarfile.GNU_FORMAT))
            self._file.write(jpeg)
            self._file.write(b"\0" * (-len(jpeg) % tarfile.BLOCKSIZE))
        return self._path.name

    def sync(self) -> None:
        """Put everything written so far on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """End the shard so that any reader of tar files takes it; it can be continued nevertheless."""
        self._end()

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._split}-{self.number:03}.tar"

    def _open(self, length: int) -> BinaryIO:
        file = self._path.open("r+b" if length else "wb")
        if length and file.seek(0, io.SEEK_END) < length:
            file.close()
            raise PrepareError(f"{self._path} is shorter than it was; delete the folder and prepare it anew")
        file.truncate(length)
        file.seek(length)
        return file

    def _end(self) -> None:
        self._file.write(b"\0" * (2 * tarfile.BLOCKSIZE))
        self.sync()
        self._file.close()


class PreparedWriter:
    """Writes a prepared data set; as a context manager it holds the folder against a second writer.

    Args:
        folder: Where; made if it is not there.
        settings: What must be the same when a stopped run is continued.
        most_bytes: Of a shard.

    Raises:
        PrepareError: The folder holds something else, was made with other settings, or is being written to.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, max_bytes: int) -> None:
        self.folder = folder
        self.records: dict[str, Record] = {}
        self._settings = json.loads(json.dumps(settings))
        self._most_bytes = max_bytes
        self._writers: dict[str, ShardWriter] = {}

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PrepareError(
                f"{self.folder} cannot be made ({error.strerror}); give another --out"
            ) from error
        path = self.folder / JOURNAL
        if not path.exists() and any(self.folder.iterdir()):
            raise PrepareError(
                f"{self.folder} is not empty and was not made by `prepare`; give another --out"
            )
        self._journal = path.open("a+b")
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._journal.close()
            raise PrepareError(f"another `prepare` is writing to {self.folder}; wait for it to end") from None
        try:
            self._resume()
        except PrepareError:
            self._journal.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.close()
        self._journal.close()

    def add(self, video: Video, name: str, clips: Sequence[FaceClip]) -> None:
        """Write the clips of a video and note it as done.

        Args:
            video: The video, its split settled.
            name: Its path as the journal knows it.
            clips: At least one.
        """
        split = str(video.split)
        if split not in self._writers:
            self._writers[split] = ShardWriter(self.folder, split, max_bytes=self._most_bytes)
        rows = []
        for number, clip in enumerate(clips):
            key = f"{video.name}_{number}"
            shard = self._writers[split].add(key, clip.jpegs)
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
        self._note(Record(video=name, label=label(video), rows=rows, shards=self._positions()))

    def skip(self, video: Video, name: str, reason: str, *, again: bool) -> None:
        """Note that a video gives no clip.

        Args:
            video: The video.
            name: Its path as the journal knows it.
            reason: Why, in one line.
            again: Whether the next run should try it again.
        """
        reason = " ".join(reason.split())
        self._note(
            Record(
                video=name, label=label(video), rows=[], reason=reason, again=again, shards=self._positions()
            )
        )

    def finish(self, videos: Iterable[str], about: Mapping[str, Any]) -> None:
        """Write the lists from the journal.

        Args:
            videos: Those of the data set as it is now; what else the journal has is left out.
            about: Goes into `prepared.json`, with the settings.
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
        write_atomically(self.folder / "clips.csv", clips.getvalue())
        write_atomically(self.folder / "skipped.csv", skipped.getvalue())
        write_atomically(
            self.folder / "prepared.json",
            json.dumps({**self._settings, **about}, indent=2, allow_nan=False) + "\n",
        )

    def _note(self, record: Record) -> None:
        self._journal.write(json.dumps(asdict(record), allow_nan=False).encode() + b"\n")
        self._journal.flush()
        self.records[record.video] = record

    def _positions(self) -> dict[str, list[int]]:
        return {split: writer.position for split, writer in self._writers.items()}

    def _resume(self) -> None:
        self._journal.seek(0)
        text = self._journal.read()
        # A killed run may have left half a line.
        whole = text[: text.rfind(b"\n") + 1]
        self._journal.truncate(len(whole))
        lines = [json.loads(line) for line in whole.splitlines()]
        if not lines:
            self._journal.write(json.dumps({"settings": self._settings}, allow_nan=False).encode() + b"\n")
            self._journal.flush()
        elif (before := lines[0].get("settings")) != self._settings:
            changed = sorted(key for key in self._settings if self._settings[key] != before.get(key))
            raise PrepareError(
                f"{self.folder} was begun with another {', '.join(changed) or 'version'}; "
                "use the same settings or give another --out"
            )
        for line in lines[1:]:
            record = Record(**line)
            self.records[record.video] = record
        known: dict[str, list[int]] = lines[-1].get("shards", {}) if lines else {}
        for split, (number, length) in known.items():
            self._writers[split] = ShardWriter(
                self.folder, split, max_bytes=self._most_bytes, number=number, length=length
            )
        for split in ("train", "val", "test"):
            for path in self.folder.glob(f"{split}-[0-9]*.tar"):
                if split not in known or int(path.stem.rpartition("-")[2]) > known[split][0]:
                    path.unlink()


def label(video: Video) -> list[Any]:
    """Give what must not change about a video while its data set is being prepared.

    Args:
        video: The video.

    Returns:
        Whether it is fake, its group and its split.
    """
    return [video.fake, video.group, video.split]
