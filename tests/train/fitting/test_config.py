"""Reading the settings of a run from the config.json of a checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from train.fitting.config import FitConfig, RunConfigUnreadable, read_run
from train.models.config import ModelConfig
from train.sampling.config import SamplingConfig


def test_a_run_is_read_back(tmp_path: Path) -> None:
    """The settings in a checkpoint equal those of its run."""
    config = FitConfig(sampling=SamplingConfig(sizes=(32, 64), crops=(80, 80)), val_groups=("a", "b"), seed=5)
    model = ModelConfig(input_size=64, hidden=16)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model": asdict(model), "training": {"fit": asdict(config)}}))
    assert read_run(path) == (model, config)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting"),
        ('{"fit": {"learning": 1}}', "learning is not a setting of FitConfig"),
        ('{"fit": {"sampling": {"batch_size": 3}}}', "batch_size must be"),
        ('{"fit": {"warmup_steps": 0}}', "warmup_steps must be at least 1"),
        ('{"fit": {"sampling": {"crops": [16, 16]}}}', "would train nothing"),
        ('{"fit": {"sampling": {"zoom": 2}}}', "zoom is not a setting of SamplingConfig"),
        ("[]", "attribute"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    """The error names the file and the fault in it."""
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(RunConfigUnreadable, match=f"(?s)run.json.*{reason}"):
        read_run(path)
    with pytest.raises(RunConfigUnreadable, match="no such file"):
        read_run(tmp_path / "missing.json")
