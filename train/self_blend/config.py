"""Settings of a run that makes self-blended videos."""

from __future__ import annotations

from dataclasses import dataclass

from train.errors import ConfigInvalid


@dataclass(frozen=True, kw_only=True)
class SelfBlendConfig:
    """Settings of a run.

    Args:
        versions: Number of forged videos of each real one, each with a perturbation of its own.
        seconds: Duration taken from each video. The first version starts where the video starts.
        min_faces: Minimum number of frames with a face; videos with fewer are left out.
        workers: Number of processes.
        seed: Seed of the perturbations and of the choice of scaling, quality and start.

    Raises:
        ConfigInvalid: A value is out of its range.
    """

    versions: int = 1
    seconds: float = 6.0
    min_faces: int = 24
    workers: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("versions", "min_faces", "workers"):
            if getattr(self, name) < 1:
                raise ConfigInvalid(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.seconds > 0:
            raise ConfigInvalid(f"seconds must be above 0, not {self.seconds}")
        if self.seed < 0:
            raise ConfigInvalid(f"seed must be at least 0, not {self.seed}")
