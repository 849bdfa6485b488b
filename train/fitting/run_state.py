"""State of the backbone's training that an interrupted run resumes from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from runtime.errors import PathError
from runtime.files import atomic_path
from train.errors import ConfigInvalid, TrainError
from train.fitting.config import FitConfig
from train.models.initial_weights import WEIGHTS_ERRORS
from train.models.writing import writing

RESUME_FILE = "resume.pt"
NOT_OF_THE_BACKBONE = ("clip_passes", "pseudo_clips", "head_steps", "head_lr", "workers", "patience")
"""Settings that may change when a run is resumed: the backbone's weights do not depend on them."""


class StateUnreadable(PathError, TrainError):
    """Saved state that a run cannot be resumed from."""

    advice = "delete it to begin again, or give another --out"


class Stateful(Protocol):
    """A model, optimizer or scheduler whose state can be saved."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Restore the state."""
        ...


class RunState:
    """Progress, best weights and saved parts of a run.

    Args:
        path: File of the state.
        config: The run.
        parts: Model, moving average, optimizer and schedule, by name.
        average: The moving average of the weights.
        facts: What the weights depend on besides, such as the data, as JSON values by name.
    """

    def __init__(
        self,
        path: Path,
        config: FitConfig,
        parts: Mapping[str, Stateful],
        average: AveragedModel,
        facts: Mapping[str, Any],
    ) -> None:
        self.step = 0
        self.stopped = False
        self._path = path
        self._config = config
        self._parts = parts
        self._average = average
        self._facts = facts
        self._best: dict[str, Tensor] | None = None
        self._best_score = -math.inf
        self._validations_since_best = 0

    def record_validation(self, aucs: Mapping[str, float]) -> None:
        """Keep the weights if their mean AUC is the best so far."""
        score = float(np.mean(list(aucs.values()))) if aucs else -math.inf
        self._validations_since_best += 1
        if score > self._best_score:
            self._best_score, self._validations_since_best = score, 0
            weights = self._average.module.state_dict()
            self._best = {name: value.detach().cpu().clone() for name, value in weights.items()}

    def out_of_patience(self) -> bool:
        """Return whether the last `patience` validations brought no improvement."""
        return bool(self._config.patience) and self._validations_since_best >= self._config.patience

    def best_weights(self) -> dict[str, Tensor]:
        """Return the averaged weights of the best validation; without validation, the last ones."""
        return self._best or self._average.module.state_dict()

    def save(self) -> None:
        """Write the state atomically; an interruption leaves the previous one.

        Raises:
            ModelNotWritten: It cannot be written.
        """
        state: dict[str, Any] = {name: part.state_dict() for name, part in self._parts.items()}
        state |= {
            "config": self._fixed(),
            "step": self.step,
            "best": self._best or {},
            "best_score": self._best_score,
            "validations_since_best": self._validations_since_best,
        }
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self._path) as draft:
                torch.save(state, draft)

    def restore(self) -> bool:
        """Restore the saved state; return whether there was one.

        Raises:
            StateUnreadable: It cannot be read, or is of another version.
            ConfigInvalid: It is the state of a run with another configuration, data or initial weights.
        """
        if not self._path.exists():
            return False
        try:
            state = torch.load(self._path, weights_only=True, map_location="cpu")
            before, now = json.loads(state["config"]), json.loads(self._fixed())
        except (*WEIGHTS_ERRORS, TypeError) as error:
            raise StateUnreadable(self._path, f"cannot be read ({type(error).__name__})") from error
        changed = sorted(name for name in before.keys() | now if before.get(name) != now.get(name))
        if changed:
            raise ConfigInvalid(
                f"{self._path} belongs to a run with another configuration ({', '.join(changed)}); "
                "give another --out or delete the file"
            )
        try:
            for name, part in self._parts.items():
                part.load_state_dict(state[name])
            self.step = int(state["step"])
            self._best = dict(state["best"]) or None
            self._best_score = float(state["best_score"])
            self._validations_since_best = int(state["validations_since_best"])
        except (*WEIGHTS_ERRORS, TypeError) as error:
            raise StateUnreadable(self._path, f"does not fit this run ({type(error).__name__})") from error
        self.stopped = self.out_of_patience()
        return True

    def _fixed(self) -> str:
        """Return the settings and facts that must not change when a run is resumed."""
        settings = msgspec.to_builtins(self._config)
        kept = {name: value for name, value in settings.items() if name not in NOT_OF_THE_BACKBONE}
        return json.dumps({**kept, **self._facts}, sort_keys=True)
