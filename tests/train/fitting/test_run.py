"""Training runs on real clip sets; an interrupted run ends like one that was not interrupted."""

from __future__ import annotations

import io
import math
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from msgspec.structs import replace
from rich.console import Console

import train.fitting.backbone
import train.fitting.run
import unmask
from tests.support.full_disk import full_disk
from tests.train.tiny_run import TINY_MODEL, TINY_RUN
from train.data.clip_set import read_clip_set
from train.errors import ConfigInvalid, Diverged
from train.fitting.backbone import learning_rate_schedule
from train.fitting.config import FitConfig
from train.fitting.run import fit, fit_teacher
from train.fitting.run_state import StateUnreadable
from train.models.checkpoint import load_checkpoint, save_checkpoint
from train.models.detector import ResNeXtLSTM
from train.models.trained_groups import trained_on
from train.models.writing import ModelNotWritten

QUIET = Console(quiet=True)


class InterruptingConsole(Console):
    """Console that interrupts the run at its second step, like a kill."""

    def log(self, *objects: object, **options: object) -> None:
        """Raise at the second step."""
        if str(objects[0]).startswith("backbone 2/"):
            raise KeyboardInterrupt


def test_interrupted_run_resumes(
    clips: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after a saved step and started again, the backbone ends like without interruption."""
    monkeypatch.setattr(train.fitting.backbone, "SAVE_S", 0.0)
    monkeypatch.setattr(train.fitting.backbone, "PROGRESS_S", 0.0)
    out = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        fit([clips], out, model_config=TINY_MODEL, config=TINY_RUN, console=InterruptingConsole(quiet=True))
    assert not (out / "model.safetensors").exists()
    assert torch.load(out / "resume.pt", weights_only=True)["step"] == 1
    fit([clips], out, model_config=TINY_MODEL, config=TINY_RUN, console=QUIET)
    whole = load_checkpoint(trained).model.backbone.state_dict()
    resumed = load_checkpoint(out).model.backbone.state_dict()
    for name, value in whole.items():
        assert torch.allclose(resumed[name], value, atol=1e-4), name


def test_other_configuration_is_refused(clips: Path, trained: Path, tmp_path: Path) -> None:
    """A run is not resumed with other settings than it began with."""
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    other = FitConfig(sampling=replace(TINY_RUN.sampling, crops=(32,)))
    with pytest.raises(ValueError, match="another configuration"):
        fit([clips], out, model_config=TINY_MODEL, config=other, console=QUIET)


def test_groups_of_the_training_are_recorded(clips: Path, trained: Path) -> None:
    """The held-out group is not among them."""
    clip_set = read_clip_set(clips)
    assert trained_on(load_checkpoint(trained).training, clip_set, clip_set.entries) == ["a", "b"]


def test_other_data_and_weights_are_refused(clips: Path, trained: Path, tmp_path: Path) -> None:
    """A run is resumed only with its data, initial weights and crop margin; names may change."""
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    other = Path(shutil.copytree(clips, tmp_path / "other"))
    fit([other], out, model_config=TINY_MODEL, config=TINY_RUN, console=QUIET)
    wider = replace(TINY_MODEL, crop_margin=1.3)
    index = other / "clips.csv"
    index.write_text(index.read_text().replace("swap_a,1,swap,a", "swap_a,1,swap,b"))
    for data, model, init, changed in (
        (other, TINY_MODEL, None, "data"),
        (clips, TINY_MODEL, trained, "initial weights"),
        (clips, wider, None, "crop_margin"),
    ):
        with pytest.raises(ConfigInvalid, match=rf"belongs to a run with another .* \({changed}\)"):
            fit([data], out, model_config=model, config=TINY_RUN, init=init, console=QUIET)


def test_a_damaged_state_is_reported(clips: Path, trained: Path, tmp_path: Path) -> None:
    """Whether it is cut short or not that of a run, the message says what to do."""
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    state = out / "resume.pt"
    whole = torch.load(state, weights_only=True)
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(StateUnreadable, match=r"cannot be read .*delete it to begin again"):
        fit([clips], out, model_config=TINY_MODEL, config=TINY_RUN, console=QUIET)
    torch.save({**whole, "task": {}}, state)
    with pytest.raises(StateUnreadable, match=r"does not fit this run .*delete it to begin again"):
        fit([clips], out, model_config=TINY_MODEL, config=TINY_RUN, console=QUIET)
    # Nor can it be averaged.
    state.write_bytes(b"")
    script = [sys.executable, "-m", "train.recipes.averaged_backbone", str(state), str(tmp_path / "weights")]
    done = subprocess.run(script, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no state of a run" in done.stderr


def test_a_folder_that_cannot_be_written_is_reported_first(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the clips are read, for a detector and for a teacher."""
    monkeypatch.setattr(train.fitting.run, "read_pool", None)
    (tmp_path / "file").touch()
    out = tmp_path / "file/run"
    with pytest.raises(ModelNotWritten, match=r"file/run: cannot be written \(not a directory\)"):
        fit([clips], out, model_config=TINY_MODEL, config=TINY_RUN, console=QUIET)
    with pytest.raises(ModelNotWritten, match=r"file/run: cannot be written \(not a directory\)"):
        fit_teacher([clips], out, "resnet18", config=TINY_RUN, console=QUIET)


def test_a_full_disk_is_reported(clips: Path, tmp_path: Path) -> None:
    """The state of the run does not fit."""
    with full_disk(100_000), pytest.raises(ModelNotWritten, match=r"resume\.pt: cannot be written"):
        fit([clips], tmp_path / "run", model_config=TINY_MODEL, config=TINY_RUN, console=QUIET)
    model = ResNeXtLSTM(TINY_MODEL)
    with full_disk(100_000), pytest.raises(ModelNotWritten, match="model: cannot be written"):
        save_checkpoint(tmp_path / "model", model, {})
    assert not any((tmp_path / "model").iterdir())


def test_run_stops_without_improvement(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `patience` validations without a better one the backbone stops; resumed, it stays stopped."""
    monkeypatch.setattr(train.fitting.backbone, "validation_aucs", lambda *_: {"clips": 0.5})
    config = replace(TINY_RUN, validate_every=1, patience=1)
    out, screen = tmp_path / "run", io.StringIO()
    for _ in range(2):
        fit([clips], out, model_config=TINY_MODEL, config=config, console=Console(file=screen, width=200))
        assert "stopped at step 2 of 3 without improvement (patience 1)" in screen.getvalue()
        # The first validation is the best, the second one brings no improvement.
        assert torch.load(out / "resume.pt", weights_only=True)["step"] == 2


def test_validation_needs_held_out_clips_of_both_classes(clips: Path, tmp_path: Path) -> None:
    """Without them the run would stop, or keep no best weights, for no reason."""
    real = Path(shutil.copytree(clips, tmp_path / "real"))
    lines = (real / "clips.csv").read_text().splitlines(keepends=True)
    (real / "clips.csv").write_text("".join(line for line in lines if "swap_kept-out" not in line))
    for data, val_groups in ((clips, ()), (real, ("kept-out",))):
        config = replace(TINY_RUN, validate_every=1, patience=2, val_groups=val_groups)
        with pytest.raises(ConfigInvalid, match="validate_every needs held-out real and fake clips"):
            fit([data], tmp_path / "run", model_config=TINY_MODEL, config=config, console=QUIET)
    with pytest.raises(ConfigInvalid, match="set validate_every too"):
        replace(TINY_RUN, patience=2)


@pytest.mark.parametrize(
    ("steps", "validate_every", "part"), [(3, 0, "backbone"), (1, 1, "backbone"), (1, 0, "head")]
)
def test_a_diverged_run_is_explained(
    clips: Path, tmp_path: Path, steps: int, validate_every: int, part: str
) -> None:
    """Whether gradients, a validation or the head give it away, nothing is written."""
    sampling = replace(TINY_RUN.sampling, crops=(8 * steps,))
    config = replace(
        TINY_RUN, sampling=sampling, lr=1e9, warmup_steps=1, ema_decay=0.0, validate_every=validate_every
    )
    with pytest.raises(Diverged, match=rf"training of the {part} diverged.* smaller lr"):
        fit([clips], tmp_path / "run", model_config=TINY_MODEL, config=config, console=QUIET)
    assert not (tmp_path / "run/model.safetensors").exists()


def test_learning_rate_is_a_linear_warmup_times_a_cosine() -> None:
    """The schedule applies both factors from the first step on, and ends at 0."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = learning_rate_schedule(optimizer, warmup_steps=10, total_steps=50)
    for step in range(50):
        expected = 0.5 * min(1.0, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / 50))
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, abs=1e-12)
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("launcher", ["torchrun", "fabric"])
def test_two_processes_train_one_model(clips: Path, tmp_path: Path, launcher: str) -> None:
    """Two processes share the work, and one of them writes the checkpoint, the log and the last message."""
    config = replace(TINY_RUN, sampling=replace(TINY_RUN.sampling, crops=(32,)), devices=2, validate_every=1)
    run = tmp_path / "run.json"
    run.write_text(msgspec.json.encode({"model": TINY_MODEL, "fit": config}).decode())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable]
    if launcher == "torchrun":
        launch += ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    command = [*launch, "-m", "unmask", "train", "fit", clips, "--out", tmp_path / "out", "--config", run]
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[:6000]
    checkpoint = load_checkpoint(tmp_path / "out")
    assert checkpoint.model.config == TINY_MODEL
    assert checkpoint.training["fit"]["devices"] == 2
    # Two steps of two processes with eight crops each.
    assert torch.load(tmp_path / "out/resume.pt", weights_only=True)["step"] == 2
    assert done.stdout.count("written to") == 1
    assert any((tmp_path / "out/log").iterdir())
    # The only held-out group is fitted on or reported once.
    reported = sum(done.stderr.count(text) for text in ("no temporal classifier", "is not calibrated"))
    assert reported <= 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["fit", ".", "--sizes", "a"], "--sizes a: give whole numbers from 1 on, separated by commas"),
        (["teacher", ".", "--crops", "9,"], "--crops 9,: give whole numbers from 1 on, separated by commas"),
        (["fit", "nosuch"], "nosuch: no such folder; check the path"),
        (["fit", "."], ".: contains no clips.csv or labels.csv; copy or prepare the set again"),
        (["fit", "set", "--init", "nosuch"], "--init nosuch: no such file or directory; check the path"),
        (
            ["fit", "set", "--teacher", "nosuch"],
            "--teacher nosuch: no such file or directory; "
            "give the directory that `unmask train teacher` wrote",
        ),
        (
            ["temporal", "nosuch", "set"],
            "nosuch: no such directory; give a checkpoint of `unmask train fit`, or a model of "
            "`unmask export`",
        ),
        (
            ["temporal", "set", "set"],
            "set: contains no model; give a checkpoint of `unmask train fit`, or a model of `unmask export`",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_are_reported_before_the_imports(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    reason: str,
) -> None:
    """Modules that need torch take ten seconds to import, and Fabric prints what it uses."""
    monkeypatch.chdir(tmp_path)
    Path("set").mkdir()
    Path("set", "clips.csv").touch()
    for name in ("train.fitting.run", "train.fitting.calibrate"):
        monkeypatch.setitem(sys.modules, name, None)
    out = [] if arguments[0] == "temporal" else ["--out", "run"]
    assert unmask.run(["train", *arguments, *out]) == 2
    assert capfd.readouterr() == ("", f"unmask: {reason}\n")
