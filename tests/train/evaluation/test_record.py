"""What a model states of itself is what it measures."""

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
from train.evaluation.evaluate import evaluate
from train.evaluation.record import record

CLOSE = 0.005 if int8_is_exact() else 0.01
"""The stated figures are of int8 arithmetic on one CPU. Another CPU rounds differently; float32 moves the equal
error rate of single crops by 0.005 and the other figures by less."""


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of grey: bright ones are real, and one dark one too."""
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


def test_figures_go_into_the_manifest(dark_bundle: Path, shades: Path, tmp_path: Path) -> None:
    """They stand under the data's name; the bundle still loads and answers as before."""
    bundle = tmp_path / "bundle"
    shutil.copytree(dark_bundle, bundle)
    found = evaluate(bundle, shades, tmp_path / "report", groups={"0", "2", "3", "4"}, replicates=20)
    record(bundle, found)
    stated = json.loads(json.dumps(load_bundle(bundle).metrics))["shades"]
    assert stated["groups"] == ["0", "2", "3", "4"]
    assert (stated["videos"], stated["real"], stated["fake"]) == (4, 2, 2)
    # The dark real one scores between the forgeries: one of four pairs is the wrong way round.
    assert stated["auc"]["value"] == 0.75
    again = evaluate(bundle, shades, tmp_path / "again", groups={"0", "2", "3", "4"}, replicates=20)
    assert again["video"] == found["video"]


def test_data_of_training_is_told(dark_bundle: Path, shades: Path, tmp_path: Path) -> None:
    """Figures on clips that the model says it was trained on come with a warning."""
    bundle = tmp_path / "bundle"
    shutil.copytree(dark_bundle, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["training"] = {"sets": ["shades"], "fit": {"val_groups": ["0", "3"]}}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    warned = evaluate(bundle, shades, tmp_path / "a", replicates=20)
    clean = evaluate(bundle, shades, tmp_path / "b", groups={"0", "3"}, replicates=20)
    assert any("was trained on" in note for note in warned["notes"])
    assert not any("was trained on" in note for note in clean["notes"])


def test_the_bundled_model_measures_as_it_states(
    tmp_path: Path, skip_or_fail: Callable[[str], NoReturn]
) -> None:
    """The figures in the shipped manifest come out again on the recorded validation clips."""
    root = os.environ.get("UNMASK_DATA")
    if not root:
        skip_or_fail("UNMASK_DATA does not name the data set")
    metrics = load_bundle(None).metrics
    assert metrics, "the bundled model states no figures"
    for name, stated in metrics.items():
        found = evaluate(
            None,
            Path(root) / name,
            tmp_path / name,
            split=stated["split"],
            groups=stated["groups"],
            replicates=10,
        )
        level = found[stated["level"]]
        assert found["counts"]["videos"] == stated["videos"]
        for figure in ("auc", "accuracy_at_half", "equal_error_rate"):
            value = stated[figure]["value"] if isinstance(stated[figure], dict) else stated[figure]
            measured = level[figure]["value"] if isinstance(level[figure], dict) else level[figure]
            assert measured == pytest.approx(value, abs=CLOSE), (name, figure)
