"""Reading the settings of a run from the config.json of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from train.fitting.config import FitConfig, RunConfigUnreadable, read_run
from train.models.config import ModelConfig
from train.sampling.config import SamplingConfig


def test_a_run_is_read_back(tmp_path: Path) -> None:
    """The settings in a checkpoint equal those of its run."""
    config = FitConfig(sampling=SamplingConfig(sizes=(32, 64), crops=(80, 80)), val_groups=("a", "b"), seed=5)
    model = ModelConfig(input_size=64, hidden=16)
    path = tmp_path / "config.json"
    training = {"fit": config, "init": None, "sets": ["clips"], "torch": "2.0"}
    path.write_bytes(msgspec.json.encode({"model": model, "training": training}))
    assert read_run(path) == (model, config)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting"),
        ('{"fit": {"learning": 1}}', r": fit\.learning: unknown key; "),
        (
            '{"fit": {"sampling": {"batch_size": 3}}}',
            r"fit\.sampling\.batch_size: expected a whole number >= 8",
        ),
        ('{"fit": {"warmup_steps": 0}}', r"fit\.warmup_steps: expected a whole number >= 1"),
        ('{"fit": {"sampling": {"crops": [16, 16]}}}', "would train nothing"),
        ('{"fit": {"sampling": {"zoom": 2}}}', r"fit\.sampling\.zoom: unknown key; did you mean max_zoom"),
        ("[]", "no JSON object"),
        ("[" * 100_000, "not JSON"),
        ('{"lr": 1}', r"lr: unknown key; did you mean fit\.lr"),
        ('{"fit": {"lr": Infinity}}', r"fit\.lr: expected a number <= 1000000000"),
        ('{"fit": {"lr": NaN}}', r"fit\.lr: expected a number > 0"),
        ('{"fit": {"lr": 1e999}}', r"fit\.lr: expected a number <= 1000000000"),
        ('{"fit": {"lr": true}}', r"fit\.lr: expected a number, got true or false"),
        ('{"fit": {"seed": "1"}}', r"fit\.seed: expected a whole number, got text"),
        ('{"fit": {"seed": 1e30}}', r"fit\.seed: "),
        ('{"fit": {"precision": "half"}}', r"fit\.precision: expected one of bf16-mixed, "),
        ('{"fit": {"val_groups": "a"}}', r"fit\.val_groups: expected an array, got text"),
        (
            '{"fit": {"sampling": {"crops": [1000000000000], "sizes": [96]}}}',
            r"fit\.sampling\.crops: .* <= 1000000000",
        ),
        ('{"fit": {"sampling": {"sizes": [0], "crops": [80]}}}', r"fit\.sampling\.sizes: .* >= 32"),
        ('{"fit": {"sampling": {"strength": [1]}}}', r"fit\.sampling\.strength: .* length 2"),
        ('{"fit": {"sampling": []}}', r"fit\.sampling: expected a table"),
        ('{"fit": []}', "fit: expected a table"),
        ('{"model": []}', "model: expected a table"),
        ('{"model": {"sample_hz": Infinity}}', r"model\.sample_hz: expected a number <= 120"),
        ('{"training": []}', "training: expected a table"),
        ('{"training": {"fit": []}}', "fit: expected a table"),
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
