"""Training task of the backbone: outputs and losses on single crops.

The backbone learns the label of each crop and, where it is known, the faked region, which gives many targets
per crop instead of one. With a teacher, it also learns the teacher's prediction and feature maps. The layers
that predict regions and feature maps are used in training only.

Source: Li et al., "Face X-ray", CVPR 2020 (the region); Burges et al., "Learning to rank using gradient
descent", ICML 2005 (the ranking loss); Hinton et al., "Distilling the Knowledge in a Neural Network", 2015
and Romero et al., "FitNets", ICLR 2015 (the teacher).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.fitting.config import FitConfig
from train.models.detector import Backbone
from train.models.teacher import Teacher
from train.sampling.batches import Batch

TrainedTeacher = tuple[Teacher, nn.Linear]
"""A teacher, and its layer from features to a logit."""


class FrameOutputs(NamedTuple):
    """Outputs for a batch of crops.

    Attributes:
        logits: Logits `(N,)`; above 0 is fake.
        regions: Logits of the fake region at an eighth and a sixteenth of the crop's size, `(N, h, w)` each.
        teacher_maps: Predicted feature maps of the teacher, `(N, C, h, w)` each; empty without a teacher.
    """

    logits: Tensor
    regions: list[Tensor]
    teacher_maps: list[Tensor]


class FrameTask(nn.Module):
    """Backbone with the layers that predict labels, fake regions and the teacher's feature maps.

    Args:
        backbone: The detector's backbone, or a teacher in its own training.
        teacher_widths: Channels of the teacher's feature maps; empty without a teacher.
    """

    def __init__(self, backbone: Backbone | Teacher, teacher_widths: Sequence[int] = ()) -> None:
        super().__init__()
        self.backbone = backbone
        self.logit = nn.Linear(backbone.features, 1)
        self.regions = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in backbone.widths[:2])
        self.teacher_maps = nn.ModuleList(
            nn.Conv2d(own, target, 1) for own, target in zip(backbone.widths, teacher_widths, strict=False)
        )

    def forward(self, crops: Tensor) -> FrameOutputs:
        """Compute the outputs for crops, RGB uint8 `(N, H, W, 3)`."""
        maps, features = self.backbone.stages(crops)
        regions = [layer(stage).squeeze(1) for layer, stage in zip(self.regions, maps, strict=False)]
        teacher_maps = [layer(stage) for layer, stage in zip(self.teacher_maps, maps, strict=False)]
        return FrameOutputs(self.logit(features).squeeze(-1), regions, teacher_maps)


class FrameLosses(NamedTuple):
    """Losses of a batch: on labels and pairs, on the fake region, on the teacher's feature maps."""

    label: Tensor
    region: Tensor
    feature: Tensor

    def total(self, config: FitConfig) -> Tensor:
        """Return the weighted sum."""
        return self.label + config.region_weight * self.region + config.feature_weight * self.feature


class TeacherOutputs(NamedTuple):
    """Prediction `(N,)`, 0..1, and feature maps of a teacher."""

    p_fake: Tensor
    maps: list[Tensor]


@torch.no_grad()
def teacher_outputs(teacher: TrainedTeacher, crops: Tensor) -> TeacherOutputs:
    """Run a teacher on crops, RGB uint8 `(N, H, W, 3)`."""
    network, logit = teacher
    maps, features = network.stages(crops)
    return TeacherOutputs(torch.sigmoid(logit(features).float()).squeeze(-1), maps)


def frame_losses(
    outputs: FrameOutputs, batch: Batch, teacher: TeacherOutputs | None, config: FitConfig
) -> FrameLosses:
    """Compute the losses of a batch.

    Args:
        outputs: Outputs for its crops.
        batch: The batch, on the device of the outputs.
        teacher: The teacher's outputs for its crops; None without a teacher.
        config: The run.
    """
    labels = batch.labels
    feature = torch.zeros((), device=labels.device)
    if teacher is not None:
        labels = (1 - config.distill_weight) * labels + config.distill_weight * teacher.p_fake
        pairs = zip(outputs.teacher_maps, teacher.maps, strict=True)
        feature = torch.stack([_feature_loss(predicted, target) for predicted, target in pairs]).mean()
    logits = outputs.logits.float()
    label = F.binary_cross_entropy_with_logits(logits, labels)
    if config.pair_weight:
        label = label + config.pair_weight * _pair_loss(logits)
    region = torch.stack([_region_loss(predicted, batch) for predicted in outputs.regions]).mean()
    return FrameLosses(label, region, feature)


def _feature_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the share of the variance of the teacher's channels that is not predicted."""
    target = F.batch_norm(target.float(), None, None, training=True)
    # Networks differ in how they round the size of a map.
    target = F.adaptive_avg_pool2d(target, (predicted.shape[-2], predicted.shape[-1]))
    return F.mse_loss(predicted.float(), target)


def _pair_loss(logits: Tensor) -> Tensor:
    """Return the ranking loss (RankNet) of a batch that alternates a real crop and its fake."""
    real, fake = logits.view(-1, 2).unbind(1)
    return F.softplus(real - fake).mean()


def _region_loss(predicted: Tensor, batch: Batch) -> Tensor:
    size = (predicted.shape[-2], predicted.shape[-1])
    target = F.adaptive_avg_pool2d(batch.regions[:, None], size)[:, 0]
    return F.binary_cross_entropy_with_logits(predicted.float()[batch.known], target[batch.known])
