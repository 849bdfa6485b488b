"""Videos of the manifests from which forged sets are made."""

from __future__ import annotations

from pathlib import Path

from train.face_swap.forged_set import real_videos


def test_a_video_of_two_manifests_is_taken_once(tmp_path: Path) -> None:
    """It would otherwise be forged twice, into one file."""
    (tmp_path / "one.csv").write_text("path,label\na.mp4,real\nb.mp4,real\n")
    (tmp_path / "two.csv").write_text("path,label\nc.mp4,real\n./a.mp4,real\nd.mp4,fake\n")
    videos = real_videos([tmp_path / "one.csv", tmp_path / "two.csv"], "all")
    assert [video.path.name for video in videos] == ["a.mp4", "b.mp4", "c.mp4"]
