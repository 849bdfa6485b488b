"""Tests of cutting face clips: the choice of samples, and cutting from real videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.engines.factory import detector_infer
from streams.errors import SourceError
from streams.faces.detector import Detector
from streams.faces.finder import FaceFinder
from streams.features.temporal_residuals import NUM_RESIDUALS
from train.data.clip_cutter import ClipSpec, FaceSample, NoClip, choose_windows, consecutive_runs, cut_clips

Film = Callable[..., Path]

SPEC = ClipSpec(size=64, sample_hz=10, frames=8, min_frames=4, per_video=None)


def samples(first: int, count: int, *, height: float = 50, skip: tuple[int, ...] = ()) -> list[FaceSample]:
    """Return consecutive samples of one face, except for some."""
    return [
        FaceSample(
            sample=i, pts_s=i / 10, height=height, jpeg=b"", residuals=np.zeros(NUM_RESIDUALS, np.float32)
        )
        for i in range(first, first + count)
        if i not in skip
    ]


def spans(windows: list[list[FaceSample]]) -> list[tuple[int, int]]:
    """Return the numbers of the first and last sample of each window."""
    return [(window[0].sample, window[-1].sample) for window in windows]


def test_a_missing_sample_ends_a_run() -> None:
    """A clip never spans a gap."""
    assert [len(run) for run in consecutive_runs(samples(0, 10, skip=(4, 5)))] == [4, 4]
    assert consecutive_runs([]) == []


def test_windows_are_adjacent_in_the_middle_of_a_run() -> None:
    """Two windows of 8 fit into 21 samples; the leftover samples are at both ends."""
    assert spans(choose_windows({1: samples(0, 21)}, SPEC)) == [(2, 9), (10, 17)]


def test_a_short_run_is_used_only_without_a_full_clip() -> None:
    """A video without a full clip gives its longest run, if it has `min_frames` samples."""
    assert spans(choose_windows({1: samples(0, 5), 2: samples(10, 6)}, SPEC)) == [(10, 15)]
    assert spans(choose_windows({1: samples(0, 6), 2: samples(10, 8)}, SPEC)) == [(10, 17)]
    assert choose_windows({1: samples(0, 3)}, SPEC) == []


@pytest.mark.parametrize("per_video", [1, 2, 3, 4, 5])
def test_clips_are_spread_over_the_video(per_video: int) -> None:
    """There are exactly `per_video` clips, each from another part of the video."""
    spec = ClipSpec(size=64, frames=8, min_frames=4, per_video=per_video)
    starts = [first for first, _ in spans(choose_windows({1: samples(0, 40)}, spec))]
    assert len(set(starts)) == per_video
    assert np.mean(starts) == pytest.approx(16, abs=4)


def test_the_most_prominent_face_is_used() -> None:
    """A smaller face at the same time is skipped, a later one is used, and a very small one is skipped."""
    faces = {
        1: samples(0, 8, height=50),
        2: samples(0, 24, height=80),
        3: samples(30, 8, height=70),
        4: samples(50, 8, height=20),
    }
    assert spans(choose_windows(faces, SPEC)) == [(0, 7), (8, 15), (16, 23), (30, 37)]
    both = choose_windows(faces, ClipSpec(size=64, frames=8, min_frames=4, per_video=None, max_faces=2))
    assert spans(both).count((0, 7)) == 2


def test_cut_clips_from_a_video(tmp_path: Path, film: Film) -> None:
    """Crops are centred on the face, in RGB, at the requested rate."""
    path = film(tmp_path / "face.mp4")
    finder = FaceFinder(Detector(detector_infer(threads=1)))
    clips = cut_clips(path, SPEC, finder)
    assert [len(clip.jpegs) for clip in clips] == [8, 8, 8]
    assert all(clip.sample_hz == pytest.approx(10) for clip in clips)
    assert 40 < clips[0].height < 192
    crop = cv2.imdecode(np.frombuffer(clips[0].jpegs[0], np.uint8), cv2.IMREAD_COLOR)
    assert crop is not None
    assert crop.shape == (64, 64, 3)
    # Skin is more red than blue; OpenCV reads BGR.
    blue, _, red = crop[24:40, 24:40].reshape(-1, 3).mean(axis=0)
    assert red > blue + 15


def test_reading_stops_after_max_seconds(tmp_path: Path, film: Film) -> None:
    """Only the start of a long video is read."""
    path = film(tmp_path / "face.mp4", frames=40)
    finder = FaceFinder(Detector(detector_infer(threads=1)))
    spec = ClipSpec(size=64, sample_hz=10, frames=5, min_frames=5, per_video=None, max_seconds=1.0)
    assert len(cut_clips(path, spec, finder)) == 2


@pytest.mark.parametrize(
    ("made_of", "reason"),
    [
        ({"face": False}, "no face found"),
        ({"frames": 3}, "no face for 4 samples in a row"),
        ({"fps": 4}, "no face for 4 samples in a row"),
    ],
)
def test_a_video_without_a_clip_raises_the_reason(
    tmp_path: Path, film: Film, made_of: dict[str, int], reason: str
) -> None:
    """No face, too few frames and too low a frame rate are not read errors."""
    path = film(tmp_path / "video.mp4", **made_of)
    with pytest.raises(NoClip, match=reason):
        cut_clips(path, SPEC, FaceFinder(Detector(detector_infer(threads=1))))


def test_a_text_file_is_a_source_error(tmp_path: Path) -> None:
    """A text file named like a video, and a missing file, are read errors."""
    (tmp_path / "text.mp4").write_text("this is not a video")
    for name in ("text.mp4", "missing.mp4"):
        with pytest.raises(SourceError):
            cut_clips(tmp_path / name, SPEC, FaceFinder(Detector(detector_infer(threads=1))))


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 8},
        {"margin": 0.1},
        {"sample_hz": 0},
        {"frames": 4, "min_frames": 5},
        {"frames": 101},
        {"per_video": 0},
        {"max_faces": 0},
        {"max_seconds": 0},
        {"jpeg_quality": 101},
    ],
)
def test_an_invalid_spec_is_refused(wrong: dict[str, float]) -> None:
    """The error names the value that is out of range."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ClipSpec(**wrong)  # type: ignore[arg-type]
