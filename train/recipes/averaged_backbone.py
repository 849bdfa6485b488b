"""Script that writes the backbone of an interrupted run as a state dict for `--init`.

The weights are the moving average, or with `--last` those of the last step.

python -m train.recipes.averaged_backbone runs/01/resume.pt weights.safetensors
python -m train.recipes.averaged_backbone runs/04/resume.pt weights.safetensors --last
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from train.models.initial_weights import WEIGHTS_ERRORS
from train.models.writing import ModelNotWritten, writing


def main() -> None:
    """Read a resume state and write the backbone's weights with torchvision's names."""
    parser = argparse.ArgumentParser(
        description="Write the backbone of an interrupted run as a state dict for --init."
    )
    parser.add_argument("resume", help="The run's resume.pt.")
    parser.add_argument("out", help="The safetensors file to write.")
    parser.add_argument(
        "--last", action="store_true", help="Write the weights of the last step, not the average."
    )
    arguments = parser.parse_args()
    part, prefix = ("task", "") if arguments.last else ("average", "module.")
    prefix += "backbone.trunk."
    try:
        state = torch.load(arguments.resume, weights_only=True, map_location="cpu")[part]
    except (*WEIGHTS_ERRORS, TypeError) as error:
        parser.exit(2, f"{arguments.resume}: no state of a run ({type(error).__name__}); give a resume.pt\n")
    weights = {
        name.removeprefix(prefix): value.contiguous()
        for name, value in state.items()
        if name.startswith(prefix)
    }
    try:
        with writing(Path(arguments.out)):
            save_file(weights, arguments.out)
    except ModelNotWritten as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
