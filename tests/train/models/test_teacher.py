"""A pretrained network of another form becomes a teacher, and our trunk learns from it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
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

TRUNK = "tf_efficientnet_lite0"
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


def views(teacher: Teacher) -> tuple[torch.Tensor, ...]:
    """What it sees in noise."""
    with torch.inference_mode():
        maps, features = teacher.eval().stages(CROPS)
        return *maps, features


def test_weights_of_any_port_are_taken_up(tmp_path: Path) -> None:
    """By name, in order where a port gave other names, and from a teacher; a classifier is left aside."""
    one, two, three, four = (Teacher(TRUNK) for _ in range(4))
    state = {**one.trunk.state_dict(), "classifier.weight": torch.zeros(10, 1280)}
    torch.save({f"_net.{name}": value for name, value in state.items()}, tmp_path / "other.pth")
    save_file(state, tmp_path / "same.safetensors")
    load_pretrained(two, tmp_path / "same.safetensors")
    load_pretrained(three, tmp_path / "other.pth")
    save_teacher(tmp_path / "teacher", one, torch.nn.Linear(one.features, 1), {})
    load_pretrained(four, tmp_path / "teacher")
    for mine, *others in zip(*map(views, (one, two, three, four)), strict=True):
        assert all(torch.equal(mine, other) for other in others)
    assert [view.shape[1] for view in views(one)] == [*one.widths, one.features]
    assert [view.shape[-1] for view in views(one)[:3]] == [8, 4, 2]


def test_what_is_no_teacher_is_refused(tmp_path: Path) -> None:
    """A name that timm lacks, a network without maps, files of something else: one line says what to give."""
    with pytest.raises(TeacherError, match="timm has no such network; take one of"):
        Teacher("resnext_from_mars")
    with pytest.raises(TeacherError, match="no maps at an eighth"):
        Teacher("vit_tiny_patch16_224")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "broken.pth").write_bytes(b"h\x05.")  # a pickle that asks for what it never kept
    names = {f"_net.{name}": value for name, value in Teacher(TRUNK).trunk.state_dict().items()}
    save_file(names, tmp_path / "unordered.safetensors")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name in ("missing.pth", "text.pth", "broken.pth", "unordered.safetensors", "other.safetensors"):
        with pytest.raises(TeacherError, match=f"give a state dict of {TRUNK} .* with timm's names"):
            load_pretrained(Teacher(TRUNK), tmp_path / name)
    for load in (load_teacher, lambda path: load_pretrained(Teacher(TRUNK), path)):
        with pytest.raises(TeacherError, match="give the directory that `unmask train teacher` wrote"):
            load(tmp_path)
    other = Teacher("tf_efficientnet_lite1")
    save_teacher(tmp_path / "lite1", other, torch.nn.Linear(other.features, 1), {})
    with pytest.raises(TeacherError, match=f"is a tf_efficientnet_lite1; give a state dict of {TRUNK}"):
        load_pretrained(Teacher(TRUNK), tmp_path / "lite1")


def test_a_teacher_is_trained_and_learned_from(
    clips: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the commands: a teacher is kept, a trunk learns from it, and the checkpoint says from whom."""
    config = tmp_path / "run.json"
    config.write_text(json.dumps({"model": asdict(SIZES), "fit": asdict(RUN)}))
    taught = [
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
    assert run(*taught) == 2
    assert "give the directory that `unmask train teacher` wrote" in capfd.readouterr().err
    assert run("train", "teacher", clips, "--out", tmp_path / "it", "--config", config) == 0
    assert load_teacher(tmp_path / "it")[0].name == TRUNK
    assert run(*taught) == 0
    assert load_checkpoint(tmp_path / "run").training["teacher"] == "it"
    with pytest.raises(ValueError, match="another configuration"):
        fit([clips], tmp_path / "run", model_config=SIZES, config=RUN, console=Console(quiet=True))


def run(*arguments: object) -> int:
    """Run the command in this process."""
    return unmask.run([str(argument) for argument in arguments])


def test_the_teachers_word_is_heeded(clips: Path, tmp_path: Path) -> None:
    """Heeded alone, a teacher that calls everything fake makes a trunk that does, whatever the labels say."""
    logits = []
    for side, word in enumerate((-10.0, 10.0)):
        teacher = Teacher(TRUNK)
        logit = torch.nn.Linear(teacher.features, 1)
        torch.nn.init.zeros_(logit.weight)
        torch.nn.init.constant_(logit.bias, word)
        save_teacher(tmp_path / f"teacher{side}", teacher, logit, {})
        model = fit(
            [clips],
            tmp_path / f"run{side}",
            model_config=SIZES,
            config=replace(RUN, distill_weight=1.0, ema_decay=0.5),
            teacher=tmp_path / f"teacher{side}",
            console=Console(quiet=True),
        )
        logits.append(_mean_logit(model, tmp_path / f"run{side}"))
    assert logits[0] < -0.2
    assert logits[1] > 0.2


def _mean_logit(model: ResNeXtLSTM, run: Path) -> float:
    """The trunk's own logit of grey crops: the head is trained on labels after it."""
    state = torch.load(run / "resume.pt", weights_only=True)["average"]
    logit = torch.nn.Linear(2048, 1)
    logit.load_state_dict({name: state[f"module.logit.{name}"] for name in ("weight", "bias")})
    with torch.inference_mode():
        features = model.backbone(torch.from_numpy(np.full((2, 32, 32, 3), 128, np.uint8)))
        return float(logit(features).mean())


@pytest.mark.parametrize("trunk", ["inception_v3", TRUNK])
def test_maps_lie_where_ours_do(trunk: str) -> None:
    """A mark is seen where it is, near the edge too, and in a network without padding."""
    torch.manual_seed(0)
    teacher = Teacher(trunk).eval()
    plain = torch.full((1, 160, 160, 3), 128, dtype=torch.uint8)
    for place in (1, 5, 10, 18):
        marked = plain.clone()
        marked[:, 8 * place : 8 * place + 8, 8 * place : 8 * place + 8] = 255
        with torch.inference_mode():
            changed = teacher.stages(marked)[0][0] - teacher.stages(plain)[0][0]
        share = changed.abs().sum((0, 1))
        assert share.shape == (20, 20)
        assert abs(int(share.sum(0).argmax()) - place) <= 1
        assert abs(int(share.sum(1).argmax()) - place) <= 1
