"""Tests of teachers: pretrained weights, training, and distillation into the backbone."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from msgspec.structs import replace
from rich.console import Console
from safetensors.torch import save_file

import unmask
from train.fitting.config import FitConfig
from train.fitting.run import fit
from train.models.checkpoint import load_checkpoint
from train.models.config import ModelConfig
from train.models.detector import ResNeXtLSTM
from train.models.teacher import Teacher, TeacherError, load_pretrained, load_teacher, save_teacher
from train.sampling.config import SamplingConfig

NETWORK = "tf_efficientnet_lite0"
SIZES = ModelConfig(input_size=32, hidden=8, window=4, min_frames=2)
RUN = FitConfig(
    sampling=SamplingConfig(sizes=(32,), crops=(80,), batch_size=8),
    warmup_steps=2,
    clip_passes=1,
    head_steps=3,
    precision="32-true",
    val_groups=("kept-out",),
)
CROPS = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def outputs(teacher: Teacher) -> tuple[torch.Tensor, ...]:
    """Return the feature maps and features of noise."""
    with torch.inference_mode():
        maps, features = teacher.eval().stages(CROPS)
        return *maps, features


def test_weights_of_any_implementation_are_loaded(tmp_path: Path) -> None:
    """Weights load by name, by order if the names differ, and from a teacher; a classifier is ignored."""
    one, two, three, four = (Teacher(NETWORK) for _ in range(4))
    state = {**one.network.state_dict(), "classifier.weight": torch.zeros(10, 1280)}
    torch.save({f"_net.{name}": value for name, value in state.items()}, tmp_path / "other.pth")
    save_file(state, tmp_path / "same.safetensors")
    load_pretrained(two, tmp_path / "same.safetensors")
    load_pretrained(three, tmp_path / "other.pth")
    save_teacher(tmp_path / "teacher", one, torch.nn.Linear(one.features, 1), {})
    load_pretrained(four, tmp_path / "teacher")
    for mine, *others in zip(*map(outputs, (one, two, three, four)), strict=True):
        assert all(torch.equal(mine, other) for other in others)
    assert [output.shape[1] for output in outputs(one)] == [*one.widths, one.features]
    assert [output.shape[-1] for output in outputs(one)[:3]] == [8, 4, 2]


def test_invalid_teachers_are_refused(tmp_path: Path) -> None:
    """Unknown networks, networks without maps and other files are errors with advice."""
    with pytest.raises(TeacherError, match="timm has no such network; use one of"):
        Teacher("resnext_from_mars")
    with pytest.raises(TeacherError, match="no maps at an eighth"):
        Teacher("vit_tiny_patch16_224")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "broken.pth").write_bytes(b"h\x05.")  # a pickle that asks for what it never kept
    names = {f"_net.{name}": value for name, value in Teacher(NETWORK).network.state_dict().items()}
    save_file(names, tmp_path / "unordered.safetensors")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name in ("missing.pth", "text.pth", "broken.pth", "unordered.safetensors", "other.safetensors"):
        with pytest.raises(TeacherError, match=f"give a state dict of {NETWORK} .* with timm's names"):
            load_pretrained(Teacher(NETWORK), tmp_path / name)
    for load in (load_teacher, lambda path: load_pretrained(Teacher(NETWORK), path)):
        with pytest.raises(TeacherError, match="give the directory that `unmask train teacher` wrote"):
            load(tmp_path)
    other = Teacher("tf_efficientnet_lite1")
    save_teacher(tmp_path / "lite1", other, torch.nn.Linear(other.features, 1), {})
    with pytest.raises(TeacherError, match=f"is a tf_efficientnet_lite1; give a state dict of {NETWORK}"):
        load_pretrained(Teacher(NETWORK), tmp_path / "lite1")


def test_a_teacher_is_trained_and_distilled(
    clips: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The commands write a teacher, distil it, and record its name in the checkpoint."""
    config = tmp_path / "run.json"
    short = replace(RUN, sampling=replace(RUN.sampling, crops=(16,)))
    config.write_bytes(msgspec.json.encode({"model": SIZES, "fit": short}))
    distil = [
        "train",
        "fit",
        clips,
        "--out",
        tmp_path / "run",
        "--config",
        config,
        "--teacher",
        tmp_path / "it",
    ]
    assert run(*distil) == 2
    assert "give the directory that `unmask train teacher` wrote" in capfd.readouterr().err
    assert run("train", "teacher", clips, "--out", tmp_path / "it", "--config", config) == 0
    assert load_teacher(tmp_path / "it")[0].name == NETWORK
    assert run(*distil) == 0
    assert load_checkpoint(tmp_path / "run").training["teacher"] == "it"
    with pytest.raises(ValueError, match=r"another configuration \(teacher\)"):
        fit([clips], tmp_path / "run", model_config=SIZES, config=short, console=Console(quiet=True))
    # A folder of another network.
    capfd.readouterr()
    assert run("train", "fit", clips, "--out", tmp_path / "it", "--config", config) == 2
    assert "another configuration (network)" in capfd.readouterr().err
    arguments = ["--out", tmp_path / "it", "--config", config, "--backbone", "resnet18"]
    assert run("train", "teacher", clips, *arguments) == 2
    assert "another configuration (network)" in capfd.readouterr().err


def run(*arguments: object) -> int:
    """Run the command in this process."""
    return unmask.run([str(argument) for argument in arguments])


def test_distill_weight_1_ignores_the_labels(clips: Path, tmp_path: Path) -> None:
    """The backbone learns the constant logit of a teacher, whatever the labels are."""
    logits = []
    for number, constant in enumerate((-10.0, 10.0)):
        teacher = Teacher(NETWORK)
        logit = torch.nn.Linear(teacher.features, 1)
        torch.nn.init.zeros_(logit.weight)
        torch.nn.init.constant_(logit.bias, constant)
        save_teacher(tmp_path / f"teacher{number}", teacher, logit, {})
        model = fit(
            [clips],
            tmp_path / f"run{number}",
            model_config=SIZES,
            config=replace(
                RUN, sampling=replace(RUN.sampling, crops=(48,)), distill_weight=1.0, ema_decay=0.5
            ),
            teacher=tmp_path / f"teacher{number}",
            console=Console(quiet=True),
        )
        logits.append(_mean_logit(model, tmp_path / f"run{number}"))
    assert logits[0] < -0.2
    assert logits[1] > 0.2


def _mean_logit(model: ResNeXtLSTM, run: Path) -> float:
    """Return the backbone's own logit of grey crops; the head is trained on labels afterwards."""
    state = torch.load(run / "resume.pt", weights_only=True)["average"]
    logit = torch.nn.Linear(2048, 1)
    logit.load_state_dict({name: state[f"module.logit.{name}"] for name in ("weight", "bias")})
    with torch.inference_mode():
        features = model.backbone(torch.from_numpy(np.full((2, 32, 32, 3), 128, np.uint8)))
        return float(logit(features).mean())


@pytest.mark.parametrize("name", ["inception_v3", NETWORK])
def test_feature_maps_align_with_those_of_the_backbone(name: str) -> None:
    """A white square changes the map where it is, also near the edge and in a network without padding."""
    torch.manual_seed(0)
    teacher = Teacher(name).eval()
    places = (1, 5, 10, 18)
    frames = torch.full((1 + len(places), 160, 160, 3), 128, dtype=torch.uint8)
    for frame, place in zip(frames[1:], places, strict=True):
        frame[8 * place : 8 * place + 8, 8 * place : 8 * place + 8] = 255
    with torch.inference_mode():
        maps = teacher.stages(frames)[0][0]
    for changed, place in zip(maps[1:] - maps[0], places, strict=True):
        share = changed.abs().sum(0)
        assert share.shape == (20, 20)
        assert abs(int(share.sum(0).argmax()) - place) <= 1
        assert abs(int(share.sum(1).argmax()) - place) <= 1
