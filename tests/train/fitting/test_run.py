"""Training runs on real sets, and a run that was cut ends as one that was not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

import train.fitting.backbone
from train.fitting.config import FitConfig
from train.fitting.run import fit
from train.models.checkpoint import load_checkpoint
from train.models.config import ModelConfig
from train.sampling.config import SamplingConfig

SIZES = ModelConfig(input_size=32, hidden=8, window=4, min_frames=2)
RUN = FitConfig(
    sampling=SamplingConfig(sizes=(32,), crops=(40,), batch_size=8),
    warmup_steps=2,
    clip_passes=1,
    head_steps=3,
    precision="32-true",
    val_groups=("kept-out",),
)


class CutConsole(Console):
    """Cuts the run at a step, as a kill would."""

    def log(self, *objects: object, **options: object) -> None:
        """Stop at the third step."""
        if str(objects[0]).startswith("trunk 3/"):
            raise KeyboardInterrupt


def test_a_cut_run_goes_on(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut after two saved steps and started again, the trunk is what it is without the cut."""
    quiet = Console(quiet=True)
    fit([clips], tmp_path / "whole", model_config=SIZES, config=RUN, console=quiet)
    monkeypatch.setattr(train.fitting.backbone, "SAVE_S", 0.0)
    monkeypatch.setattr(train.fitting.backbone, "SHOW_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        fit([clips], tmp_path / "cut", model_config=SIZES, config=RUN, console=CutConsole(quiet=True))
    assert not (tmp_path / "cut/model.safetensors").exists()
    fit([clips], tmp_path / "cut", model_config=SIZES, config=RUN, console=quiet)
    whole = load_checkpoint(tmp_path / "whole").model
    cut = load_checkpoint(tmp_path / "cut").model
    for name, value in whole.backbone.state_dict().items():
        assert torch.allclose(cut.backbone.state_dict()[name], value, atol=1e-4), name


def test_another_configuration_is_refused(clips: Path, tmp_path: Path) -> None:
    """A run is not continued under other settings than it began with."""
    quiet = Console(quiet=True)
    fit([clips], tmp_path / "run", model_config=SIZES, config=RUN, console=quiet)
    other = FitConfig(sampling=SamplingConfig(sizes=(32,), crops=(48,), batch_size=8))
    with pytest.raises(ValueError, match="another configuration"):
        fit([clips], tmp_path / "run", model_config=SIZES, config=other, console=quiet)


def test_two_processes_train_one_model(clips: Path, tmp_path: Path) -> None:
    """Under torchrun two processes share the work and write one calibrated checkpoint, with its log."""
    config = replace(RUN, sampling=replace(RUN.sampling, crops=(64,)), devices=2, validate_every=2)
    run = tmp_path / "run.json"
    run.write_text(json.dumps({"model": asdict(SIZES), "fit": asdict(config)}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    command = [*torchrun, "-m", "unmask", "train", "fit", clips, "--out", tmp_path / "out", "--config", run]
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[:6000]
    found = load_checkpoint(tmp_path / "out")
    assert found.model.config == SIZES
    assert found.training["fit"]["devices"] == 2
    # Four steps of two times eight crops.
    assert torch.load(tmp_path / "out/resume.pt", weights_only=True)["done"] == 4
    assert done.stdout.count("written to") == 1
    assert any((tmp_path / "out/log").iterdir())
