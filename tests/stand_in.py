"""A bundle of an untrained detector, for a tree that has no bundled model yet.

It answers without meaning. The chain around it is real, and that is what the tests prove.
"""

from __future__ import annotations

import tempfile
from pathlib import Path


def write_stand_in(out: Path) -> None:
    """Write a full-size bundle of seeded random weights."""
    import torch

    from export.bundle import export_bundle
    from train.model import ModelConfig, ResNeXtLSTM, save_checkpoint

    torch.manual_seed(0)
    model = ResNeXtLSTM(ModelConfig())
    for name, value in model.named_parameters():
        # Open the residual branches, as training does: closed ones would leave most of the trunk unused.
        if name.endswith("bn3.weight"):
            torch.nn.init.constant_(value, 0.3)
    with tempfile.TemporaryDirectory() as scratch:
        save_checkpoint(
            Path(scratch), model.eval(), {"note": "untrained: stands in for a model in the tests"}
        )
        export_bundle(Path(scratch), out, name="untrained")
