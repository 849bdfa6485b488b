"""Teacher for knowledge distillation: a pretrained network of timm that the backbone learns from.

    fit_teacher(data, out, "tf_efficientnet_lite0", init=weights)     # fine-tune it to detect fakes
    fit(data, checkpoint, teacher=out)                                # distil it into the backbone

A backbone trained from random weights on a small data set memorises its people. If no pretrained weights of
a ResNeXt-50 are at hand, those of another architecture help: fine-tuned to detect fakes, that network becomes
the teacher. The backbone learns to predict the teacher's feature maps and its logit for every crop.

Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (the logit); Romero et al.,
"FitNets", ICLR 2015 (the feature maps).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from runtime.errors import PathError
from runtime.files import atomic_path, write_atomically
from train.errors import TrainError
from train.models.initial_weights import SORTED_SUFFIX, WEIGHTS_ERRORS, read_state
from train.models.writing import writing

WEIGHTS_FILE = "teacher.safetensors"
ABOUT_FILE = "teacher.json"
REDUCTIONS = (8, 16)
"""Ratios of input size to map size of the maps used besides the last one, as of a ResNet's middle stages."""


class TeacherError(PathError, TrainError):
    """A teacher that cannot be built or read."""


class Teacher(nn.Module):
    """Network of timm with the interface of `train.models.detector.Backbone`.

    Args:
        name: Name of the network in timm.

    Attributes:
        name: Name of the network in timm.
        widths: Channels of the maps at 1/8 and 1/16 of the input size, and of the last one.
        features: Length of the feature vector.

    Raises:
        TeacherError: There is no such network, or it has no such maps.
    """

    network: Any
    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            self.network = timm.create_model(name, pretrained=False, num_classes=0)
        except RuntimeError as error:
            advice = "use one of `timm.list_models()`"
            raise TeacherError(name, "timm has no such network", advice) from error
        levels = {level["reduction"]: at for at, level in enumerate(self.network.feature_info)}
        if not set(REDUCTIONS) <= levels.keys() or not hasattr(self.network, "forward_intermediates"):
            advice = "use a convolutional network, such as tf_efficientnet_lite0"
            raise TeacherError(name, "has no maps at an eighth and a sixteenth of its input", advice)
        self.name = name
        self._levels = [levels[reduction] for reduction in REDUCTIONS]
        second, third = (int(self.network.feature_info[level]["num_chs"]) for level in self._levels)
        self.widths = (second, third, int(self.network.num_features))
        self.features = int(self.network.head_hidden_size)
        self._border = self._border_px()
        for key, value in (
            ("mean", self.network.default_cfg["mean"]),
            ("deviation", self.network.default_cfg["std"]),
        ):
            self.register_buffer(key, 255 * torch.tensor(value).view(1, 3, 1, 1), persistent=False)

    def stages(self, crops: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return feature maps and features.

        Args:
            crops: RGB uint8 `(N, H, W, 3)`.

        Returns:
            float32 `(N, widths[0], H/8, W/8)`, `(N, widths[1], H/16, W/16)` and the last map `(N, widths[2],
            H', W')`; float32 `(N, features)`.
        """
        x = (crops.float().permute(0, 3, 1, 2) - self.mean) / self.deviation
        if self._border:
            x = F.pad(x, [self._border] * 4, mode="replicate")
        last, maps = self.network.forward_intermediates(
            x.contiguous(memory_format=torch.channels_last), indices=self._levels
        )
        return [*maps, last], self.network.forward_head(last, pre_logits=True)

    @torch.inference_mode()
    def _border_px(self) -> int:
        """Return the input border that compensates for convolutions without padding, so that maps align."""
        cells = 24
        side = cells * REDUCTIONS[0]
        _, (seen, _) = self.network.eval().forward_intermediates(
            torch.zeros(1, 3, side, side), indices=self._levels
        )
        self.network.train()
        return (cells - int(seen.shape[-1])) * REDUCTIONS[0] // 2


def load_pretrained(teacher: Teacher, path: Path) -> None:
    """Load pretrained weights of the network, from timm or from another implementation of it.

    Implementations name layers differently but in the same order: weights with other names are matched by
    order if every shape agrees. A classifier at the end is ignored.

    Args:
        teacher: Teacher to change in place.
        path: State dict as `.safetensors`, `.pth` or `.pt`, or the directory of a teacher to train further.
            `.safetensors` files are sorted by name, so they must have timm's names.

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
        teacher.network.load_state_dict(trained.network.state_dict())
        return
    wanted = teacher.network.state_dict()
    try:
        state = read_state(path)
        if not wanted.keys() <= state.keys() and path.suffix != SORTED_SUFFIX:
            values = list(state.values())[: len(wanted)]
            state = dict(zip(wanted, values, strict=True))
        teacher.network.load_state_dict({name: state[name] for name in wanted})
    except FileNotFoundError as error:
        raise TeacherError(path, "no such file", advice) from error
    except WEIGHTS_ERRORS as error:
        raise TeacherError(path, f"does not fit this network ({type(error).__name__})", advice) from error


def save_teacher(folder: Path, teacher: Teacher, logit: nn.Linear, training: Mapping[str, Any]) -> None:
    """Write a teacher.

    Args:
        folder: Directory to write, created if missing.
        teacher: The network.
        logit: Layer from its features to the logit of a crop.
        training: How it was trained, as JSON values.

    Raises:
        ModelNotWritten: It cannot be written.
    """
    parts = nn.ModuleDict({"network": teacher.network, "logit": logit})
    about = {"network": teacher.name, "training": dict(training)}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / WEIGHTS_FILE) as draft:
            save_file({k: v.detach().cpu().contiguous() for k, v in parts.state_dict().items()}, draft)
        write_atomically(folder / ABOUT_FILE, json.dumps(about, indent=2, allow_nan=False) + "\n")


def load_teacher(folder: Path) -> tuple[Teacher, nn.Linear]:
    """Read a teacher.

    Args:
        folder: Directory that `save_teacher` wrote.

    Returns:
        The network and its logit layer, frozen and in evaluation mode.

    Raises:
        TeacherError: A file is missing or unreadable.
    """
    advice = "give the directory that `unmask train teacher` wrote"
    if not ((folder / ABOUT_FILE).is_file() and (folder / WEIGHTS_FILE).is_file()):
        raise TeacherError(folder, f"contains no {ABOUT_FILE} and {WEIGHTS_FILE}", advice)
    try:
        teacher = Teacher(json.loads((folder / ABOUT_FILE).read_text(encoding="utf-8"))["network"])
        logit = nn.Linear(teacher.features, 1)
        nn.ModuleDict({"network": teacher.network, "logit": logit}).load_state_dict(
            load_file(folder / WEIGHTS_FILE)
        )
    except (*WEIGHTS_ERRORS, TypeError) as error:
        raise TeacherError(folder, f"cannot be read ({type(error).__name__})", advice) from error
    return teacher.eval().requires_grad_(False), logit.eval().requires_grad_(False)
