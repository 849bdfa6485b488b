"""Metrics in a bundle's manifest are those that an evaluation of it gives."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
import pytest

from runtime.engines.onnx_cpu.int8 import int8_is_exact
from runtime.model.bundle import load_bundle
from train.evaluation.evaluate import EvaluationConfig, evaluate
from train.evaluation.record import record
from train.scoring.bootstrap import BootstrapConfig

CLOSE = 0.005 if int8_is_exact() else 0.015
"""Tolerance of stated metrics, which were measured in int8 arithmetic on one CPU. Another CPU rounds
differently; float32 moves the equal error rate of 2,000 crops by 0.010, the AUC of 24 videos by 0.009."""
FEW = BootstrapConfig(replicates=20)
GROUPS = {"0", "2", "3", "4"}


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six grey clips: the bright ones are real, and one dark one is too."""
    folder = tmp_path_factory.mktemp("data") / "shades"
    folder.mkdir()
    lines = ["shard,clip,fake,method,group,frames"]
    with tarfile.open(folder / "000.tar", "w") as tar:
        for number, (level, fake) in enumerate([(220, 0), (200, 0), (40, 0), (60, 1), (30, 1), (20, 1)]):
            lines.append(f"000.tar,c{number},{fake},{'dark' if fake else 'real'},{number},8")
            data = cv2.imencode(".jpg", np.full((48, 48, 3), level, np.uint8))[1].tobytes()
            for index in range(8):
                member = tarfile.TarInfo(f"c{number}/{index:02}.jpg")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_metrics_are_written_into_the_manifest(dark_bundle: Path, shades: Path, tmp_path: Path) -> None:
    """They are stored by data set; the bundle still loads and gives the same metrics."""
    bundle = tmp_path / "bundle"
    shutil.copytree(dark_bundle, bundle)
    found = evaluate(bundle, shades, tmp_path / "report", EvaluationConfig(groups=GROUPS, bootstrap=FEW))
    record(bundle, found)
    stated = json.loads(json.dumps(load_bundle(bundle).metrics))["shades"]
    assert stated["groups"] == ["0", "2", "3", "4"]
    assert (stated["videos"], stated["real"], stated["fake"]) == (4, 2, 2)
    # The dark real one scores between the fakes: one of four pairs is in the wrong order.
    assert stated["auc"]["value"] == 0.75
    again = evaluate(bundle, shades, tmp_path / "again", EvaluationConfig(groups=GROUPS, bootstrap=FEW))
    assert again["video"] == found["video"]


def test_clips_of_the_training_are_noted(dark_bundle: Path, shades: Path, tmp_path: Path) -> None:
    """Metrics on clips that the model states it was trained on come with a note."""
    bundle = tmp_path / "bundle"
    shutil.copytree(dark_bundle, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["training"] = {"sets": ["shades"], "fit": {"val_groups": ["0", "3"]}}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    warned = evaluate(bundle, shades, tmp_path / "a", EvaluationConfig(bootstrap=FEW))
    clean = evaluate(bundle, shades, tmp_path / "b", EvaluationConfig(groups={"0", "3"}, bootstrap=FEW))
    assert any("was trained on" in note for note in warned["notes"])
    assert not any("was trained on" in note for note in clean["notes"])


def test_bundled_model_reaches_its_stated_metrics(
    tmp_path: Path, skip_or_fail: Callable[[str], NoReturn]
) -> None:
    """An evaluation on the recorded clips gives the metrics in the manifest."""
    root = os.environ.get("UNMASK_DATA")
    if not root:
        skip_or_fail("UNMASK_DATA does not name the data set")
    metrics = load_bundle(None).metrics
    assert metrics, "the bundled model states no metrics"
    for name, stated in metrics.items():
        found = evaluate(
            None,
            Path(root) / name,
            tmp_path / name,
            EvaluationConfig(
                split=stated["split"],
                groups=stated["groups"],
                bootstrap=BootstrapConfig(replicates=10),
                engine="onnxruntime",
            ),
        )
        level = found[stated["level"]]
        assert found["counts"]["videos"] == stated["videos"]
        for figure in ("auc", "accuracy_at_half", "equal_error_rate"):
            value = stated[figure]["value"] if isinstance(stated[figure], dict) else stated[figure]
            measured = level[figure]["value"] if isinstance(level[figure], dict) else level[figure]
            allowed = CLOSE
            if figure == "accuracy_at_half" and not int8_is_exact():
                # Of 24 videos, one scores above one half in only one of the two.
                allowed = max(allowed, 1.01 / stated["videos"])
            assert measured == pytest.approx(value, abs=allowed), (name, figure)
