"""Tests of risk and coverage on records made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.model.calibration import Calibration
from tests.train.footage.support import labelled, recorded
from train.footage.figures import ScannedFootage
from train.footage.risk_coverage import ORDERS, risk_coverage
from train.footage.video_record import WindowRecord


def window(p_fake: float, **measures: float) -> WindowRecord:
    """Return a window of good quality, with some measures changed."""
    values = {"face_height": 120.0, "sharpness": 0.5, "noise": 1.0, "brightness": 120.0, "contrast": 40.0}
    return WindowRecord(
        p_fake=p_fake, reason=None, **{**values, "blockiness": 1.0, "yaw": 5.0, "roll": 0.0, **measures}
    )


def footage(*videos: tuple[bool, list[WindowRecord]]) -> ScannedFootage:
    """Return videos of the given labels and windows."""
    return ScannedFootage(
        videos=[labelled(f"v{number}", fake=fake) for number, (fake, _) in enumerate(videos)],
        records=[recorded(0.5, windows=tuple(windows)) for _, windows in videos],
        calibration=Calibration(),
    )


def test_small_faces_are_given_up_first() -> None:
    """The only errors are on small faces, so the risk falls without them; each video weighs the same."""
    found = risk_coverage(
        footage(
            (False, [window(0.2), window(0.7, face_height=20.0)]),
            (True, [window(0.9), window(0.9), window(0.9), window(0.1, face_height=30.0)]),
        ),
        "face height",
    )
    assert found.coverage == pytest.approx([1, 0.75, 0.625])
    assert found.risk == pytest.approx([0.375, 0.125, 0])


def test_windows_of_equal_value_are_given_up_together() -> None:
    """A measure that is the same everywhere has one point: everything is kept."""
    found = risk_coverage(footage((False, [window(0.7), window(0.1)]), (True, [window(0.9)])), "brightness")
    assert (found.coverage.tolist(), found.risk.tolist()) == ([1], [0.25])


@pytest.mark.parametrize("order", sorted(ORDERS))
def test_worse_pictures_are_given_up_first(order: str) -> None:
    """Every order ends at the window of better quality or the clearer score."""
    poor = {"face_height": 10.0, "sharpness": 0.1, "brightness": 9.0, "blockiness": 2.0, "yaw": 70.0}
    found = risk_coverage(
        footage((False, [window(0.6, **poor), window(0.1)]), (True, [window(0.45, **poor), window(0.95)])),
        order,
    )
    assert (found.coverage[0], found.risk[0]) == (1, 0.5)
    assert (found.coverage[-1], found.risk[-1]) == (0.5, 0)


@pytest.mark.parametrize("videos", [[], [(False, [window(0.2)])], [(True, []), (False, [])]])
def test_without_windows_of_both_classes(videos: list[tuple[bool, list[WindowRecord]]]) -> None:
    """There is no risk to state."""
    assert np.size(risk_coverage(footage(*videos), "confidence").risk) == 0
