"""Tests of the manifests of a benchmark and of the pairs of real and fake."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.footage.support import labelled
from train.data.videos import LayoutError
from train.footage.labelled import find_pairs, read_manifests


def write_manifest(path: Path, *rows: str, header: str = "path,label,group,split,method,set") -> Path:
    """Write a manifest and an empty file for each of its videos."""
    path.write_text("\n".join([header, *rows]) + "\n")
    for row in rows:
        (path.parent / row.split(",")[0]).touch()
    return path


def test_split_and_data_set(tmp_path: Path) -> None:
    """Held-out videos are taken by default; a set is named by its column or by the file."""
    first = write_manifest(
        tmp_path / "one.csv", "a.mp4,real,a,train,,", "b.mp4,fake,b,val,swap,", "c.mp4,real,b,val,,cams"
    )
    second = write_manifest(tmp_path / "two.csv", "d.mp4,real,d", header="path,label,group")
    videos = read_manifests([first, second, first])
    assert [(video.path.name, video.data_set, video.fake) for video in videos] == [
        ("b.mp4", "one", True),
        ("c.mp4", "cams", False),
        ("d.mp4", "two", False),
    ]
    assert len(read_manifests([first], "all")) == 3


def test_a_file_with_two_labels_is_refused(tmp_path: Path) -> None:
    """The first manifest would decide without a word."""
    first = write_manifest(tmp_path / "one.csv", "a.mp4,real,a,,,")
    second = write_manifest(tmp_path / "two.csv", "a.mp4,fake,a,,,")
    with pytest.raises(LayoutError, match=r"two\.csv: .*a\.mp4 is real in one line and fake in another"):
        read_manifests([first, second])


def test_missing_videos_are_reported_before_the_scan(tmp_path: Path) -> None:
    """The message names the manifest and one of the files."""
    manifest = write_manifest(tmp_path / "one.csv", "a.mp4,real,a,val,,")
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(LayoutError, match=r"one\.csv: 1 of its videos are missing, such as .*a\.mp4"):
        read_manifests([manifest])
    with pytest.raises(LayoutError, match="no video of the split test"):
        read_manifests([write_manifest(tmp_path / "two.csv", "b.mp4,real,b,val,,")], "test")


def test_pairs_by_target_name_and_group() -> None:
    """The target decides, else the name before the label, else a part of the name, else the group."""
    videos = [
        labelled("x1", fake=True, target="r1"),
        labelled("r1", fake=False),
        labelled("r2", fake=False),
        labelled("ann_0_fake_9c", fake=True, group="b"),
        labelled("ann_0_real_1f", fake=False, group="b"),
        labelled("ann_1_real_2f", fake=False, group="b"),
        labelled("Deepfakes_033_097", fake=True, group="c"),
        labelled("youtube_097", fake=False, group="c"),
        labelled("youtube_033", fake=False, group="c"),
        labelled("fake_77", fake=True, group="d"),
        labelled("real_88", fake=False, group="d"),
        labelled("alone", fake=True, group="e"),
        labelled("real_88", fake=False, group="e", data_set="other"),
    ]
    assert find_pairs(videos) == [(0, 1), (3, 4), (6, 8), (9, 10)]
