"""Figures are checked on scores whose figures are known."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from runtime.model.calibration import Calibration
from train.evaluation.measure import Chance, cross_fitted, measure, measure_line, plain, video_weights
from train.fitting.platt_scaling import CalibrationError, fit_calibration
from train.scoring.metrics import Estimate, expected_calibration_error
from train.scoring.clip_scores import ClipScores

CHANCE = Chance(replicates=100, seed=1)


def scores(
    video: str,
    *windows: float,
    fake: bool,
    method: str = "swap",
    group: str | None = None,
    frames: tuple[float, ...] = (0.0,),
) -> ClipScores:
    """Make the scores of a video of one clip."""
    return ClipScores(
        clip=f"{video}_0",
        video=video,
        fake=fake,
        method=method if fake else "original",
        group=group or video,
        height=100,
        samples=16,
        windows=windows,
        network=windows,
        short=windows,
        frames=frames,
    )


def drawn(videos: int, *, scale: float = 1.0, seed: int = 0) -> list[ClipScores]:
    """Draw videos of three windows whose log-odds are known; every original has one forgery."""
    rng = np.random.default_rng(seed)
    table = []
    for i in range(videos):
        fake = i % 2 == 1
        odds = 2 * (rng.normal(0, 1, 3) + (1 if fake else -1)) * scale
        table.append(scores(f"v{i}", *odds, fake=fake, group=f"g{i // 2}", frames=tuple(rng.normal(0, 1, 4))))
    return table


def test_every_level_is_measured() -> None:
    """Videos, windows and frames each have their count and figures; the frames' kind is told."""
    table = [
        scores("r", -2.0, -1.0, fake=False, group="a", frames=(0.5, 0.5)),
        scores("f", 1.0, -1.5, fake=True, group="a", frames=(0.0, 1.0)),
        scores("s", -5.0, 9.0, fake=True, method="lips", group="b", frames=(2.0, 2.0)),
    ]
    stored = Calibration(threshold_fake=0.9, threshold_real=0.1, threshold_fpr1=0.95)
    found = measure(table, stored, min_frames=4, window=8, chance=CHANCE)
    assert found["counts"] == {
        "videos": 3,
        "real_videos": 1,
        "fake_videos": 2,
        "videos_scored": 3,
        "groups": 2,
        "clips": 3,
        "clips_too_short": 0,
        "windows": 6,
        "frames": 48,
    }
    assert found["video"]["auc"].value == 1.0
    assert found["video"]["accuracy_at_half"].value == pytest.approx(2 / 3)
    assert found["video"]["false_alarms_at_half"] == 0.0
    assert found["video"]["detected_at_half"] == 0.5
    assert found["video"]["accuracy_at_threshold"].value == pytest.approx(1 / 3)
    assert found["window"]["scores"] == 6
    # Against -2 and -1: 1.0 and 9.0 are above both, -1.5 above one, -5 above none.
    assert found["window"]["auc"].value == pytest.approx(5 / 8)
    assert found["window"]["detected_at_far1"] == 0.25
    assert "repeated 8 times" in found["frame"]["kind"]
    assert found["frame"]["auc"].value == pytest.approx(6 / 8)
    assert measure(table, stored, min_frames=1, window=8, chance=CHANCE)["frame"]["kind"] == "one frame"


def test_each_method_is_measured_against_all_reals() -> None:
    """A method's AUC leaves the other methods out, and says of how many videos and groups it is."""
    table = [
        scores("r1", 0.0, fake=False, group="a"),
        scores("r2", 1.0, fake=False, group="b"),
        scores("f1", 2.0, fake=True, group="a"),
        scores("f2", 3.0, fake=True, group="b"),
        scores("f3", 0.5, fake=True, method="lips", group="b"),
    ]
    methods = measure(table, None, min_frames=4, window=8, chance=CHANCE)["methods"]
    assert list(methods) == ["lips", "swap"]
    assert (methods["swap"]["auc"].value, methods["lips"]["auc"].value) == (1.0, 0.5)
    assert (methods["swap"]["videos"], methods["swap"]["groups"]) == (2, 2)
    assert methods["lips"]["detected_at_half"] == 1.0


def test_the_sequence_is_compared_with_the_mean_of_its_frames() -> None:
    """Where windows tell classes apart and frames do not, the difference is above zero with its interval."""
    found = measure(drawn(80), None, min_frames=4, window=8, chance=CHANCE)["sequence"]
    assert found["auc_of_network"] == found["auc_of_windows"] > 0.9
    assert found["auc_of_frame_means"] < 0.7
    assert found["difference"].low > 0.1
    assert found["temporal"] is None


def test_the_network_is_compared_with_what_it_is_with_flicker() -> None:
    """Flicker tells the classes apart, the network does not: that is seen, and the LSTM gets no credit."""
    rng = np.random.default_rng(0)
    table = [replace(score, network=tuple(rng.normal(0, 1, 3).tolist())) for score in drawn(80)]
    found = measure(table, None, min_frames=4, window=8, chance=CHANCE)["sequence"]
    assert found["auc_of_network"] < 0.7 < 0.9 < found["auc_of_windows"]
    assert found["temporal"].low > 0.1
    assert found["difference"].low < 0.1


def test_calibration_is_measured_raw_as_stored_and_fitted_on_other_groups() -> None:
    """An over-confident model is off raw; the right scale corrects it, stored or cross-fitted."""
    table = drawn(400, scale=4.0)
    stored = Calibration(scale=4.0)
    found = measure(table, stored, min_frames=4, window=8, chance=CHANCE)["calibration"]
    assert found["window"]["ece_before"] > 0.05
    assert found["window"]["ece_stored"] < 0.04
    assert found["cross_fitted"]["ece_window"] < 0.04
    assert found["cross_fitted"]["scale"] == pytest.approx(4.0, rel=0.15)
    assert found["stored"]["scale"] == 4.0
    without = measure(table, None, min_frames=4, window=8, chance=CHANCE)["calibration"]
    assert without["stored"] is None
    assert "ece_stored" not in without["window"]


def test_cross_fitting_never_sees_the_group_it_is_applied_to() -> None:
    """Of two groups, each is calibrated by what was fitted on the other."""
    halves = []
    for group, scale in (("a", 1.0), ("b", 3.0)):
        rng = np.random.default_rng(5)
        halves.append(
            [
                scores(f"{group}{i}", float(rng.normal(i % 2, 1)) * scale, fake=i % 2 == 1, group=group)
                for i in range(60)
            ]
        )
    fitted = [
        fit_calibration([one.windows[0] for one in half], [one.fake for one in half]) for half in halves
    ]
    p_fake = [
        calibration.p_fake(one.windows[0])
        for calibration, half in zip(reversed(fitted), halves, strict=True)
        for one in half
    ]
    fake = [one.fake for half in halves for one in half]
    found = cross_fitted([one for half in halves for one in half])
    assert found["scale"] == pytest.approx(np.mean([one.scale for one in fitted]))
    assert found["ece_window"] == pytest.approx(expected_calibration_error(fake, p_fake))
    with pytest.raises(CalibrationError, match="fewer than two groups"):
        cross_fitted(halves[0])


def test_one_class_or_nothing_is_reported_as_undefined() -> None:
    """Only fakes, no window at all, and an empty table give nulls in strict JSON, never a perfect figure."""
    fakes = [scores("a", 1.0, fake=True), scores("b", 2.0, fake=True)]
    stills = [scores("a", fake=True, frames=(1.0,)), scores("b", fake=False, frames=(0.0,))]
    for table in (fakes, stills, []):
        found = plain(measure(table, None, min_frames=4, window=8, chance=CHANCE))
        assert found["video"]["auc"]["value"] is None
        json.dumps(found, allow_nan=False)
    assert plain(measure(stills, None, min_frames=4, window=8, chance=CHANCE))["frame"]["auc"]["value"] == 1.0


def test_a_line_of_a_comparison_falls_back_on_frames() -> None:
    """Stills, which have no window, are compared by their frames, and the line says so."""
    stills = [scores("a", fake=True, frames=(1.0,)), scores("b", fake=False, frames=(0.0,))]
    assert measure_line(stills, Calibration(), CHANCE)["level"] == "frame"
    line = measure_line(drawn(20), Calibration(), CHANCE)
    assert (line["level"], line["scores"]) == ("video", 20)


def test_windows_of_a_video_share_its_weight() -> None:
    """A video of three windows weighs as much as one of one."""
    assert video_weights(["a", "b", "b", "b"]) == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])


def test_plain_leaves_nothing_that_json_does_not_know() -> None:
    """numpy numbers, estimates and nans come out as plain values."""
    value = {
        "a": np.float64(0.5),
        "b": [Estimate(value=1.0, low=math.nan, high=math.inf, groups=2)],
        "c": np.int64(3),
    }
    assert plain(value) == {"a": 0.5, "b": [{"value": 1.0, "low": None, "high": None, "groups": 2}], "c": 3}


def test_the_number_of_draws_is_checked() -> None:
    """No draws, no interval: that is a mistake of the caller."""
    with pytest.raises(ValueError, match="replicates"):
        Chance(replicates=0)
