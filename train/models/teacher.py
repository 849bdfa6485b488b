"""A network that has seen more pictures than ours, for the trunk to learn from.

    teacher = Teacher("tf_efficientnet_lite0", weights)     # a trunk of timm, pretrained on ImageNet
    fit_teacher(data, out, ...)                             # made to tell forged crops from real ones
    fit(data, checkpoint, ..., teacher=out)                 # our trunk learns what it sees

A trunk that starts from nothing learns the people of a small set by heart, and not everybody has pretrained
weights of ours at hand. Those of a network of another form do: made to see forgeries, it hands over what it
learned. Our trunk learns to give its maps and its judgement of every crop.

Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (the judgement); Romero et al.,
"FitNets", ICLR 2015 (the maps).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from runtime.files import atomic_path, write_atomically
from train.models.initial_weights import NO_WEIGHTS, SORTED, read_state

WEIGHTS = "teacher.safetensors"
ABOUT = "teacher.json"
REDUCTIONS = (8, 16)
"""Of the maps that are taken beside the last: those of our trunk's second and third stage."""


class TeacherError(ValueError):
    """Says that a teacher cannot be had.

    Args:
        path: The file or directory; the name of the network if that is at fault.
        reason: What is wrong with it, without a full stop.
        advice: What to do.
    """

    def __init__(self, path: Path | str, reason: str, advice: str) -> None:
        super().__init__(path, reason, advice)
        self.path = path
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; {self.advice}"


class Teacher(nn.Module):
    """A trunk of timm, seen as ours is: three maps and a vector of features.

    Args:
        name: The network, as timm names it.

    Attributes:
        name: The same.
        widths: Channels of the maps at an eighth and a sixteenth of the crop, and of the last one.
        features: Length of the features.

    Raises:
        TeacherError: There is no such network, or it has no such maps.
    """

    trunk: Any
    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            self.trunk = timm.create_model(name, pretrained=False, num_classes=0)
        except RuntimeError as error:
            advice = "take one of `timm.list_models()`"
            raise TeacherError(name, "timm has no such network", advice) from error
        levels = {level["reduction"]: at for at, level in enumerate(self.trunk.feature_info)}
        if not set(REDUCTIONS) <= levels.keys() or not hasattr(self.trunk, "forward_intermediates"):
            advice = "take a convolutional one, such as tf_efficientnet_lite0"
            raise TeacherError(name, "has no maps at an eighth and a sixteenth of its input", advice)
        self.name = name
        self._levels = [levels[reduction] for reduction in REDUCTIONS]
        second, third = (int(self.trunk.feature_info[level]["num_chs"]) for level in self._levels)
        self.widths = (second, third, int(self.trunk.num_features))
        self.features = int(self.trunk.head_hidden_size)
        self._border = self._lost()
        for key, value in (
            ("mean", self.trunk.default_cfg["mean"]),
            ("deviation", self.trunk.default_cfg["std"]),
        ):
            self.register_buffer(key, 255 * torch.tensor(value).view(1, 3, 1, 1), persistent=False)

    def stages(self, crops: Tensor) -> tuple[list[Tensor], Tensor]:
        """Turn crops into maps and features.

        Args:
            crops: uint8 RGB (N, H, W, 3).

        Returns:
            float32 (N, C, H/8, W/8), (N, C, H/16, W/16), the last map (N, C, H', W'), of as many channels as
            `widths` says, and the features (N, F).
        """
        x = (crops.float().permute(0, 3, 1, 2) - self.mean) / self.deviation
        if self._border:
            x = F.pad(x, [self._border] * 4, mode="replicate")
        last, maps = self.trunk.forward_intermediates(
            x.contiguous(memory_format=torch.channels_last), indices=self._levels
        )
        return [*maps, last], self.trunk.forward_head(last, pre_logits=True)

    @torch.inference_mode()
    def _lost(self) -> int:
        """Say how wide a border makes up for convolutions without padding: maps then lie where ours do."""
        cells = 24
        side = cells * REDUCTIONS[0]
        _, (seen, _) = self.trunk.eval().forward_intermediates(
            torch.zeros(1, 3, side, side), indices=self._levels
        )
        self.trunk.train()
        return (cells - int(seen.shape[-1])) * REDUCTIONS[0] // 2


def load_pretrained(teacher: Teacher, path: Path) -> None:
    """Load a network's weights from whichever port of it they are of.

    Names differ between ports of a network, the order of the layers does not: weights of other names are
    taken in order if every shape agrees. A classifier at the end is left aside.

    Args:
        teacher: Is changed in place.
        path: A state dict, `.safetensors`, `.pth` or `.pt`; or a teacher's directory, to train it on.
            `.safetensors` sorts its layers, so its names must be timm's.

    Raises:
        TeacherError: The file or the teacher cannot be read, or is not of this network.
    """
    advice = (
        f"give a state dict of {teacher.name} (.pth, or .safetensors with timm's names), "
        "or a teacher's directory"
    )
    if path.is_dir():
        trained, _ = load_teacher(path)
        if trained.name != teacher.name:
            raise TeacherError(path, f"is a {trained.name}", advice)
        teacher.trunk.load_state_dict(trained.trunk.state_dict())
        return
    wanted = teacher.trunk.state_dict()
    try:
        state = read_state(path)
        if not wanted.keys() <= state.keys() and path.suffix != SORTED:
            values = list(state.values())[: len(wanted)]
            state = dict(zip(wanted, values, strict=True))
        teacher.trunk.load_state_dict({name: state[name] for name in wanted})
    except FileNotFoundError as error:
        raise TeacherError(path, "no such file", advice) from error
    except NO_WEIGHTS as error:
        raise TeacherError(path, f"does not fit this network ({type(error).__name__})", advice) from error


def save_teacher(folder: Path, teacher: Teacher, logit: nn.Linear, training: Mapping[str, Any]) -> None:
    """Write a teacher.

    Args:
        folder: Is made if it is missing.
        teacher: The network.
        logit: From its features to a frame's logit.
        training: How it was trained, as JSON values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = nn.ModuleDict({"trunk": teacher.trunk, "logit": logit})
    with atomic_path(folder / WEIGHTS) as draft:
        save_file({k: v.detach().cpu().contiguous() for k, v in parts.state_dict().items()}, draft)
    about = {"trunk": teacher.name, "training": dict(training)}
    write_atomically(folder / ABOUT, json.dumps(about, indent=2, allow_nan=False) + "\n")


def load_teacher(folder: Path) -> tuple[Teacher, nn.Linear]:
    """Read a teacher.

    Args:
        folder: What `save_teacher` wrote.

    Returns:
        The network and its logit, in evaluation mode and not to be trained.

    Raises:
        TeacherError: A file is missing or is not what `save_teacher` writes.
    """
    advice = "give the directory that `unmask train teacher` wrote"
    if not ((folder / ABOUT).is_file() and (folder / WEIGHTS).is_file()):
        raise TeacherError(folder, f"holds no {ABOUT} and {WEIGHTS}", advice)
    try:
        teacher = Teacher(json.loads((folder / ABOUT).read_text(encoding="utf-8"))["trunk"])
        logit = nn.Linear(teacher.features, 1)
        nn.ModuleDict({"trunk": teacher.trunk, "logit": logit}).load_state_dict(load_file(folder / WEIGHTS))
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise TeacherError(folder, f"cannot be read ({type(error).__name__})", advice) from error
    return teacher.eval().requires_grad_(False), logit.eval().requires_grad_(False)
