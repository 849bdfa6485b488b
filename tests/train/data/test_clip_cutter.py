"""What becomes a clip is decided on sightings; cutting is done on real videos."""

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
from train.data.clip_cutter import ClipSpec, NoClip, Sighting, choose, cut_clips, encode, runs

Film = Callable[..., Path]

SPEC = ClipSpec(size=64, sample_hz=10, frames=8, min_frames=4, per_video=None)


def seen(first: int, count: int, *, height: float = 50, skip: tuple[int, ...] = ()) -> list[Sighting]:
    """Make sightings of one face in consecutive samples, but for those left out."""
    return [
        Sighting(sample=i, pts_s=i / 10, height=height, jpeg=b"")
        for i in range(first, first + count)
        if i not in skip
    ]


def spans(windows: list[list[Sighting]]) -> list[tuple[int, int]]:
    """Tell the first and last sample of each window."""
    return [(window[0].sample, window[-1].sample) for window in windows]


def test_a_missing_sample_ends_a_run() -> None:
    """Nothing is bridged: the samples on both sides of a gap are never neighbours in a clip."""
    assert [len(run) for run in runs(seen(0, 10, skip=(4, 5)))] == [4, 4]
    assert runs([]) == []


def test_windows_lie_side_by_side_in_the_middle_of_a_run() -> None:
    """Of 21 samples two windows of 8 fit, with what is left over at both ends."""
    assert spans(choose({1: seen(0, 21)}, SPEC)) == [(2, 9), (10, 17)]


def test_a_short_run_is_taken_only_where_there_is_no_longer_one() -> None:
    """A video with no full clip gives its longest run, if that has `min_frames`."""
    assert spans(choose({1: seen(0, 5), 2: seen(10, 6)}, SPEC)) == [(10, 15)]
    assert spans(choose({1: seen(0, 6), 2: seen(10, 8)}, SPEC)) == [(10, 17)]
    assert choose({1: seen(0, 3)}, SPEC) == []


@pytest.mark.parametrize("per_video", [1, 2, 3, 4, 5])
def test_clips_are_spread_over_the_video(per_video: int) -> None:
    """Exactly as many as asked for, each from its part of the video, none twice."""
    spec = ClipSpec(size=64, frames=8, min_frames=4, per_video=per_video)
    starts = [first for first, _ in spans(choose({1: seen(0, 40)}, spec))]
    assert len(set(starts)) == per_video
    assert np.mean(starts) == pytest.approx(16, abs=4)


def test_the_most_prominent_face_wins_and_others_may_follow_it() -> None:
    """A smaller face at the same time is left out; one under a new id later is not; a speck always."""
    faces = {
        1: seen(0, 8, height=50),
        2: seen(0, 24, height=80),
        3: seen(30, 8, height=70),
        4: seen(50, 8, height=20),
    }
    assert spans(choose(faces, SPEC)) == [(0, 7), (8, 15), (16, 23), (30, 37)]
    both = choose(faces, ClipSpec(size=64, frames=8, min_frames=4, per_video=None, faces=2))
    assert spans(both).count((0, 7)) == 2


def test_cut_clips_from_a_video(tmp_path: Path, film: Film) -> None:
    """The crops are centred on the face, in RGB, at the rate that was asked for."""
    path = film(tmp_path / "face.mp4")
    finder = FaceFinder(Detector(detector_infer(threads=1)))
    clips = cut_clips(path, SPEC, finder)
    assert [len(clip.jpegs) for clip in clips] == [8, 8, 8]
    assert all(clip.sample_hz == pytest.approx(10) for clip in clips)
    assert 40 < clips[0].height < 192
    crop = cv2.imdecode(np.frombuffer(clips[0].jpegs[0], np.uint8), cv2.IMREAD_COLOR)
    assert crop is not None
    assert crop.shape == (64, 64, 3)
    # Skin in the middle: more red than blue. OpenCV reads BGR.
    blue, _, red = crop[24:40, 24:40].reshape(-1, 3).mean(axis=0)
    assert red > blue + 15


def test_reading_stops_after_the_seconds_asked_for(tmp_path: Path, film: Film) -> None:
    """Of a long video only the start is read."""
    path = film(tmp_path / "face.mp4", frames=40)
    finder = FaceFinder(Detector(detector_infer(threads=1)))
    spec = ClipSpec(size=64, sample_hz=10, frames=5, min_frames=5, per_video=None, seconds=1.0)
    assert len(cut_clips(path, spec, finder)) == 2


@pytest.mark.parametrize(
    ("made_of", "reason"),
    [
        ({"face": False}, "no face found"),
        ({"frames": 3}, "no face for 4 samples in a row"),
        ({"fps": 4}, "no face for 4 samples in a row"),
    ],
)
def test_a_video_without_a_clip_says_why(
    tmp_path: Path, film: Film, made_of: dict[str, int], reason: str
) -> None:
    """No face, too short and too slow for the rate are different from not readable."""
    path = film(tmp_path / "video.mp4", **made_of)
    with pytest.raises(NoClip, match=reason):
        cut_clips(path, SPEC, FaceFinder(Detector(detector_infer(threads=1))))


def test_a_file_that_is_no_video_is_a_source_error(tmp_path: Path) -> None:
    """Text under the name of a video, and a name without a file."""
    (tmp_path / "text.mp4").write_text("this is not a video")
    for name in ("text.mp4", "missing.mp4"):
        with pytest.raises(SourceError):
            cut_clips(tmp_path / name, SPEC, FaceFinder(Detector(detector_infer(threads=1))))


def test_encoding_keeps_colours_at_full_resolution() -> None:
    """Columns of red and blue one pixel wide survive: colour is not halved."""
    crop = np.zeros((32, 32, 3), dtype=np.uint8)
    crop[:, ::2, 0] = crop[:, 1::2, 2] = 255
    back = cv2.imdecode(np.frombuffer(encode(crop, 95), np.uint8), cv2.IMREAD_COLOR)
    assert back is not None
    assert np.abs(cv2.cvtColor(back, cv2.COLOR_BGR2RGB).astype(int) - crop).mean() < 8


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 8},
        {"margin": 0.1},
        {"sample_hz": 0},
        {"frames": 4, "min_frames": 5},
        {"frames": 101},
        {"per_video": 0},
        {"faces": 0},
        {"seconds": 0},
        {"quality": 101},
    ],
)
def test_a_spec_checks_its_numbers(wrong: dict[str, float]) -> None:
    """Each number out of range is named."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ClipSpec(**wrong)  # type: ignore[arg-type]
