"""Tests of the figures of a benchmark on records made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from runtime.model.calibration import Calibration
from tests.train.footage.support import labelled, recorded
from train.footage.figures import ScannedFootage, auc_difference, measure_footage, tpr_at_fpr
from train.scoring.bootstrap import BootstrapConfig

CONFIG = BootstrapConfig(replicates=20)


def footage() -> ScannedFootage:
    """Two data sets: pairs with one false alarm, and real webcams with a dark one that is scored as fake."""
    videos = [
        labelled("one_fake", fake=True, data_set="pairs", group="a"),
        labelled("one_real", fake=False, data_set="pairs", group="a"),
        labelled("two_fake", fake=True, data_set="pairs", group="b", method="reenactment"),
        labelled("two_real", fake=False, data_set="pairs", group="b"),
        labelled("w1", fake=False, data_set="webcams", group="c"),
        labelled("w2", fake=False, data_set="webcams", group="d"),
        labelled("w3", fake=False, data_set="webcams", group="e"),
    ]
    records = [
        recorded(0.9, alarms=1, first_alarm_s=2.0, fake=80),
        recorded(0.3),
        recorded(0.5),
        recorded(0.55, alarms=1, fake=20, uncertain=10),
        recorded(0.8, alarms=2, fake=50, luma=40.0, tone_angle=-40.0),
        recorded(0.2),
        recorded(None, state="unreadable", seconds=0.0, verdicts=0, luma=None, tone_angle=None),
    ]
    return ScannedFootage(videos=videos, records=records, calibration=Calibration(threshold_fake=0.6))


def test_uncertain_video_is_not_called_fake() -> None:
    """A video whose image allows no decision counts with its score, but not as called fake."""
    whole = footage()
    records = [
        msgspec.structs.replace(record, state="uncertain") if record.p_fake == 0.8 else record
        for record in whole.records
    ]
    figures = measure_footage(replace(whole, records=records), CONFIG)["pooled"]
    assert (figures["scored"], figures["fpr"].value, figures["tpr"].value) == (6, 0.0, 0.5)
    assert figures["auc"].value == pytest.approx(6 / 8)


def test_a_video_without_a_score_is_not_called_fake() -> None:
    """Rates are of all videos that can be read, the AUC of those with a score."""
    whole = footage()
    without = ["one_fake", "w1"]
    records = [
        recorded(None, luma=40.0) if video.path.stem in without else record
        for video, record in zip(whole.videos, whole.records, strict=True)
    ]
    figures = measure_footage(replace(whole, records=records), CONFIG)
    pooled = figures["pooled"]
    assert (pooled["scored"], pooled["unreadable"]) == (4, 1)
    assert (pooled["fpr"].value, pooled["tpr"].value) == (0.0, 0.0)
    assert pooled["tpr_at_fpr_0.01"].value == 0.0
    assert pooled["auc"].value == pytest.approx(2 / 3)
    assert figures["data_sets"]["webcams"]["fpr"].value == 0.0
    assert (figures["methods"]["swap"]["fake"], figures["methods"]["swap"]["tpr"].value) == (1, 0.0)
    assert math.isnan(figures["methods"]["swap"]["auc"].value)
    assert figures["brightness"]["dark"]["real"] == 1


def test_pooled_and_by_set() -> None:
    """Rates per video, alarms per hour of real footage, and the set with the highest false positive rate."""
    figures = measure_footage(footage(), CONFIG)
    pooled = figures["pooled"]
    pairs, webcams = figures["data_sets"]["pairs"], figures["data_sets"]["webcams"]
    assert (pooled["videos"], pooled["scored"], pooled["unreadable"], pooled["groups"]) == (7, 6, 1, 5)
    # Of the 2 x 4 pairs of fake and real, 0.9 is above all four and 0.5 above two.
    assert pooled["auc"].value == pytest.approx(6 / 8)
    assert (pooled["fpr"].value, pooled["tpr"].value) == (0.25, 0.5)
    assert (pairs["fpr"].value, webcams["fpr"].value) == (0.0, 0.5)
    assert math.isnan(webcams["auc"].value)
    # Three alarms in four minutes of real footage.
    assert pooled["false_alarms_per_hour"].value == pytest.approx(45.0)
    assert pooled["real_time_fake"] == pytest.approx(70 / 400)
    assert pooled["uncertain_share"] == pytest.approx(10 / 600)
    assert pooled["seconds_to_alarm"] == 2.0
    assert pairs["pair_order"].value == 0.5
    assert figures["worst_set"] == "webcams"


def test_methods_and_groups_of_appearance() -> None:
    """A method is measured against the real videos of its own data sets; the worst group is named."""
    figures = measure_footage(footage(), CONFIG)
    assert {name: method["fake"] for name, method in figures["methods"].items()} == {
        "swap": 1,
        "reenactment": 1,
    }
    assert figures["methods"]["swap"]["auc"].value == 1.0
    assert {name: group["real"] for name, group in figures["brightness"].items()} == {"dark": 1, "medium": 3}
    assert (figures["worst_brightness"], figures["worst_skin_tone"]) == ("dark", "dark")


def test_detection_rate_at_a_bounded_false_positive_rate() -> None:
    """The threshold is the lowest one that few enough real videos reach; weights count."""
    fake = np.array([True] * 4 + [False] * 100)
    score = np.concatenate([[0.2, 0.6, 0.8, 0.99], np.linspace(0, 0.7, 99), [0.9]])
    assert tpr_at_fpr(0.01)(fake, score) == 0.5
    assert tpr_at_fpr(0.001)(fake, score) == 0.25
    weight = np.ones(104)
    weight[-1] = 0
    assert tpr_at_fpr(0.001)(fake, score, weight) == 0.5
    assert math.isnan(tpr_at_fpr(0.01)(fake[:4], score[:4]))


def test_models_are_compared_on_the_same_videos() -> None:
    """Videos that only one of the models has scored do not count."""
    first = footage()
    records = [recorded(0.9), recorded(0.1), *first.records[2:4], recorded(None), *first.records[5:]]
    other = ScannedFootage(videos=first.videos, records=records, calibration=first.calibration)
    assert auc_difference(first, other, CONFIG).value == pytest.approx(0.0)
