"""Metrics of evaluations, on scores with known metrics."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from runtime.model.calibration import Calibration
from tests.train.scoring.support import difference_scorer
from train.evaluation.measure import cross_validated_calibration, measure, measure_summary, to_json
from train.fitting.platt_scaling import CalibrationError, fit_platt
from train.scoring.bootstrap import BootstrapConfig, Estimate
from train.scoring.clip_scores import ClipScores
from train.scoring.metrics import expected_calibration_error
from train.scoring.scorer import Scorer

CONFIG = BootstrapConfig(replicates=100, seed=1)


def model(calibration: Calibration | None = None, *, min_frames: int = 4) -> Scorer:
    """Return a model with windows of 4 to 8 crops."""
    return replace(difference_scorer(window=8, min_frames=min_frames), calibration=calibration)


def scores(
    video: str,
    *windows: float,
    fake: bool,
    method: str = "swap",
    group: str | None = None,
    frames: tuple[float, ...] = (0.0,),
) -> ClipScores:
    """Return the scores of a video of one clip."""
    return ClipScores(
        clip=f"{video}_0",
        video=video,
        fake=fake,
        method=method if fake else "original",
        group=group or video,
        height=100,
        samples=16,
        scan_logits=windows,
        scan_network_logits=windows,
        window_logits=windows,
        network_logits=windows,
        short_window_logits=windows,
        frame_logits=frames,
    )


def drawn(videos: int, *, scale: float = 1.0, seed: int = 0) -> list[ClipScores]:
    """Draw videos of three windows with known log-odds; every original has one fake."""
    rng = np.random.default_rng(seed)
    table = []
    for i in range(videos):
        fake = i % 2 == 1
        odds = 2 * (rng.normal(0, 1, 3) + (1 if fake else -1)) * scale
        table.append(scores(f"v{i}", *odds, fake=fake, group=f"g{i // 2}", frames=tuple(rng.normal(0, 1, 4))))
    return table


def test_every_level_is_measured() -> None:
    """Videos, windows and frames each have counts and metrics."""
    table = [
        scores("r", -2.0, -1.0, fake=False, group="a", frames=(0.5, 0.5)),
        scores("f", 1.0, -1.5, fake=True, group="a", frames=(0.0, 1.0)),
        scores("s", -5.0, 9.0, fake=True, method="lips", group="b", frames=(2.0, 2.0)),
    ]
    stored = Calibration(threshold_fake=0.9, threshold_real=0.1, threshold_fpr1=0.95)
    found = measure(table, model(stored), CONFIG)
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
    assert found["video"]["fpr_at_half"] == 0.0
    assert found["video"]["tpr_at_half"] == 0.5
    assert found["video"]["accuracy_at_threshold"].value == pytest.approx(1 / 3)
    assert found["window"]["scores"] == 6
    # Against -2 and -1: 1.0 and 9.0 are above both, -1.5 above one, -5 above none.
    assert found["window"]["auc"].value == pytest.approx(5 / 8)
    assert found["window"]["tpr_at_threshold_fpr1"] == 0.25
    assert "repeated 8 times" in found["frame"]["kind"]
    assert found["frame"]["auc"].value == pytest.approx(6 / 8)
    assert measure(table, model(stored, min_frames=1), CONFIG)["frame"]["kind"] == "one frame"


def test_each_method_is_measured_against_all_real_videos() -> None:
    """A method's AUC leaves out the other methods; its videos and groups are counted."""
    table = [
        scores("r1", 0.0, fake=False, group="a"),
        scores("r2", 1.0, fake=False, group="b"),
        scores("f1", 2.0, fake=True, group="a"),
        scores("f2", 3.0, fake=True, group="b"),
        scores("f3", 0.5, fake=True, method="lips", group="b"),
    ]
    methods = measure(table, model(), CONFIG)["methods"]
    assert list(methods) == ["lips", "swap"]
    assert (methods["swap"]["auc"].value, methods["lips"]["auc"].value) == (1.0, 0.5)
    assert (methods["swap"]["videos"], methods["swap"]["groups"]) == (2, 2)
    assert methods["lips"]["tpr_at_half"] == 1.0


def test_network_is_compared_with_the_mean_of_its_frames() -> None:
    """Where windows separate the classes and frames do not, the interval of the LSTM's gain is above 0."""
    found = measure(drawn(80), model(), CONFIG)["ablation"]
    assert found["auc_network"] == found["auc"] > 0.9
    assert found["auc_frame_mean"] < 0.7
    assert found["lstm_gain"].low > 0.1
    assert found["temporal_gain"] is None


def test_model_is_compared_with_its_network_alone() -> None:
    """Where only the temporal classifier separates the classes, only its gain is above 0."""
    rng = np.random.default_rng(0)
    table = [replace(score, scan_network_logits=tuple(rng.normal(0, 1, 3).tolist())) for score in drawn(80)]
    found = measure(table, model(), CONFIG)["ablation"]
    assert found["auc_network"] < 0.7 < 0.9 < found["auc"]
    assert found["temporal_gain"].low > 0.1
    assert found["lstm_gain"].low < 0.1


def test_a_video_without_motion_is_in_no_comparison() -> None:
    """`scan` gives it no score, so the mean of its frames has nothing to be compared with."""
    still = replace(scores("still", 1.0, fake=False), scan_logits=(), scan_network_logits=())
    expected, found = (measure(table, model(), CONFIG) for table in (drawn(80), [still, *drawn(80)]))
    assert found["ablation"] == expected["ablation"]
    assert found["counts"]["videos_scored"] == expected["counts"]["videos_scored"] == 80


def test_calibration_error_is_measured_raw_stored_and_cross_validated() -> None:
    """The right scale lowers the error of an over-confident model, stored or cross-validated."""
    table = drawn(400, scale=4.0)
    stored = Calibration(scale=4.0)
    found = measure(table, model(stored), CONFIG)["calibration"]
    assert found["window"]["ece_raw"] > 0.05
    assert found["window"]["ece_stored"] < 0.04
    assert found["cross_validated"]["ece_window"] < 0.04
    assert found["cross_validated"]["scale"] == pytest.approx(4.0, rel=0.15)
    assert found["stored"]["scale"] == 4.0
    without = measure(table, model(), CONFIG)["calibration"]
    assert without["stored"] is None
    assert "ece_stored" not in without["window"]


def test_cross_validation_fits_on_other_groups() -> None:
    """Of two groups, each is calibrated with the fit on the other one."""
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
        fit_platt([one.window_logits[0] for one in half], [one.fake for one in half]) for half in halves
    ]
    p_fake = [
        calibration.p_fake(one.window_logits[0])
        for calibration, half in zip(reversed(fitted), halves, strict=True)
        for one in half
    ]
    fake = [one.fake for half in halves for one in half]
    found = cross_validated_calibration([one for half in halves for one in half])
    assert found["scale"] == pytest.approx(np.mean([one.scale for one in fitted]))
    assert found["ece_window"] == pytest.approx(expected_calibration_error(fake, p_fake))
    with pytest.raises(CalibrationError, match="fewer than two groups"):
        cross_validated_calibration(halves[0])


def test_metrics_of_one_class_are_null() -> None:
    """Only fakes, no windows, and no clips give nulls in strict JSON, not perfect metrics."""
    fakes = [scores("a", 1.0, fake=True), scores("b", 2.0, fake=True)]
    stills = [scores("a", fake=True, frames=(1.0,)), scores("b", fake=False, frames=(0.0,))]
    for table in (fakes, stills, []):
        found = to_json(measure(table, model(), CONFIG))
        assert found["video"]["auc"]["value"] is None
        json.dumps(found, allow_nan=False)
    assert to_json(measure(stills, model(), CONFIG))["frame"]["auc"]["value"] == 1.0


def test_summary_falls_back_to_frames() -> None:
    """Single crops, which have no window, are compared by frame, and the row says so."""
    stills = [scores("a", fake=True, frames=(1.0,)), scores("b", fake=False, frames=(0.0,))]
    assert measure_summary(stills, Calibration(), CONFIG)["level"] == "frame"
    line = measure_summary(drawn(20), Calibration(), CONFIG)
    assert (line["level"], line["scores"]) == ("video", 20)


def test_metrics_are_converted_to_plain_json() -> None:
    """numpy numbers, estimates and nan become plain values."""
    value = {
        "a": np.float64(0.5),
        "b": [Estimate(value=1.0, low=math.nan, high=math.inf, groups=2)],
        "c": np.int64(3),
    }
    assert to_json(value) == {"a": 0.5, "b": [{"value": 1.0, "low": None, "high": None, "groups": 2}], "c": 3}
