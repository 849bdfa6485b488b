"""Annotated video: a file that plays, with every frame at its time and the annotations visible."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from runtime.errors import VideoNotWritten
from runtime.messages import Thresholds
from runtime.outputs.annotated_video.overlay import Overlay
from runtime.outputs.annotated_video.video import AnnotatedStream, AnnotatedVideo
from tests.support.evidence import make_frame, scored_frame
from tests.support.wire import verdict

THRESHOLDS = Thresholds(real=0.4, fake=0.6)


def decode(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def test_frames_keep_their_times(tmp_path: Path) -> None:
    """Jumps back and outages do not stop the video."""
    path = tmp_path / "out.mp4"
    with AnnotatedVideo(path, THRESHOLDS, sample_hz=8.0) as video:
        for pts_s in (5.0, 5.125, 5.25, 1.0, 1.125, 100.0):
            video.add(make_frame(pts_s), [verdict()])
    times = [frame.time for frame in decode(path)]
    assert times == pytest.approx([0.0, 0.125, 0.25, 0.375, 0.5, 1.5], abs=0.002)


def test_a_frame_of_another_size_is_scaled(tmp_path: Path, face_video: Path) -> None:
    """The size is that of the first frame, made even."""
    path = tmp_path / "out.mp4"
    other = make_frame(0.2)
    other.image.pts = 0
    with AnnotatedVideo(path, THRESHOLDS, sample_hz=8.0) as video:
        video.add(make_frame(0.0), [])
        frame = decode(face_video)[0]
        object.__setattr__(other, "image", frame)
        video.add(other, [verdict()])
    assert [(frame.width, frame.height) for frame in decode(path)] == [(160, 90)] * 2


def test_the_video_of_a_killed_program_can_be_played(tmp_path: Path) -> None:
    """Without its end, all but the last frames are there."""
    path = tmp_path / "out.mp4"
    video = AnnotatedVideo(path, THRESHOLDS, sample_hz=8.0)
    for number in range(200):
        video.add(make_frame(number / 8), [])
    (tmp_path / "copy.mp4").write_bytes(path.read_bytes())
    video.close()
    assert len(decode(tmp_path / "copy.mp4")) >= 64
    assert len(decode(path)) == 200


def test_states_scores_and_curves_are_drawn() -> None:
    """Box, label and curve have the colour of the state; a still face has its reason instead of a score."""
    overlay = Overlay(THRESHOLDS)
    for number in range(4):
        rgb = np.full((360, 640, 3), 90, np.uint8)
        overlay.draw(rgb, number / 8, [verdict(p_fake=0.8)])
    box, panel = rgb[60:300, 200:400], rgb[-60:]
    for part in (box, panel):
        assert ((part[..., 0] > 180) & (part[..., 1] < 120)).sum() > 50
    still = np.full((360, 640, 3), 90, np.uint8)
    overlay.draw(still, 0.5, [verdict(state="uncertain", reason="no_motion"), verdict(state="warming")])
    assert not np.array_equal(still, rgb)


def test_an_older_video_stays_until_the_first_frame(tmp_path: Path) -> None:
    """A camera that cannot be reached costs no video of an earlier run; no empty file is left either."""
    path, new = tmp_path / "out.mp4", tmp_path / "new.mp4"
    with AnnotatedVideo(path, THRESHOLDS, sample_hz=8.0) as video:
        video.add(make_frame(0.0), [])
    older = path.read_bytes()
    for target in (path, new):
        with AnnotatedVideo(target, THRESHOLDS, sample_hz=8.0):
            pass
    assert path.read_bytes() == older
    assert not new.exists()
    with AnnotatedVideo(path, THRESHOLDS, sample_hz=8.0) as video:
        for number in range(3):
            video.add(make_frame(number / 8), [])
    assert len(decode(path)) == 3


@pytest.mark.parametrize("name", ["out.avi", "missing/out.mp4"])
def test_a_path_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    """One line that names the option."""
    with pytest.raises(VideoNotWritten, match="--annotate"):
        AnnotatedVideo(tmp_path / name, THRESHOLDS, sample_hz=8.0)


def test_a_full_disk_ends_the_video_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is reported once, and frames are taken as before."""
    (tmp_path / "full.mp4").symlink_to("/dev/full")
    try:
        output = AnnotatedStream(AnnotatedVideo(tmp_path / "full.mp4", THRESHOLDS, sample_hz=8.0))
    except VideoNotWritten:
        return
    for number in range(200):
        output.on_frame(scored_frame(number / 8))
    output.close(timeout_s=30)
    assert output.lost > 0
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_live_stream(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    """Frames are written by another thread, in order."""
    output = AnnotatedStream(AnnotatedVideo(tmp_path / "out.mp4", THRESHOLDS, sample_hz=8.0))
    for number in range(8):
        output.on_frame(scored_frame(number / 8, verdict()))
    output.close()
    assert len(decode(tmp_path / "out.mp4")) == 8 - output.lost
