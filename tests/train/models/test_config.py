"""A run is read back from what its checkpoint keeps."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from train.models.config import FitConfig, RunUnreadable, read_run
from train.models.detector import ModelConfig


def test_a_run_is_read_back(tmp_path: Path) -> None:
    """What a checkpoint states is the run that made it."""
    config = FitConfig(sizes=(32, 64), crops=(80, 80), val_groups=("a", "b"), seed=5)
    model = ModelConfig(input_size=64, hidden=16)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model": asdict(model), "training": {"fit": asdict(config)}}))
    assert read_run(path) == (model, config)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting"),
        ('{"fit": {"learning": 1}}', "learning is no setting of FitConfig"),
        ('{"fit": {"batch": 3}}', "batch must be"),
        ("[]", "attribute"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    """The error names the file and what is wrong in it."""
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(RunUnreadable, match=f"(?s)run.json.*{reason}"):
        read_run(path)
    with pytest.raises(RunUnreadable, match="no such file"):
        read_run(tmp_path / "missing.json")
