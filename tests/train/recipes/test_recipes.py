"""Recipes in the repository can be run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch

from runtime.model.bundle import load_bundle
from tests.train.tiny_run import TINY_MODEL
from train.fitting.config import read_run
from train.models.detector import Backbone
from train.models.initial_weights import load_initial

ROOT = Path(__file__).parents[3] / "train" / "recipes"
RECIPE = ROOT / "unmask-160"
FILES = sorted(ROOT.glob("*/*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_is_complete_and_readable(path: Path) -> None:
    """Every setting is stated, so that a new default does not change a recipe."""
    model, fit = read_run(path)
    stated = json.loads(path.read_text())
    assert stated == json.loads(msgspec.json.encode({"model": model, "fit": fit}))
    assert fit.sampling.sizes[-1] == model.input_size


def test_last_run_of_the_bundled_model_is_the_one_in_its_manifest() -> None:
    """The manifest states the settings of the run that the bundled model came from."""
    _, fit = read_run(RECIPE / "13-distill-160-longer.json")
    stated = json.loads(msgspec.json.encode(fit))
    recorded = json.loads(json.dumps(load_bundle(None).training["fit"]))
    assert {name: stated[name] for name in recorded} == recorded


def test_commands_name_every_config() -> None:
    """The commands use each config file, and no other."""
    named = set(re.findall(r"--config \$RECIPE/(\S+)", (RECIPE / "README.md").read_text()))
    assert named == {path.name for path in RECIPE.glob("*.json")}


@pytest.mark.parametrize("option", [[], ["--last"]])
def test_backbone_of_an_interrupted_run_initialises_another(
    trained: Path, tmp_path: Path, option: list[str]
) -> None:
    """The script writes a state dict that `--init` reads."""
    out = tmp_path / "weights.safetensors"
    script = [sys.executable, "-m", "train.recipes.averaged_backbone", trained / "resume.pt", out, *option]
    subprocess.run(list(map(str, script)), check=True, cwd=ROOT.parents[1])
    size = TINY_MODEL.input_size
    crops = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    load_initial(Backbone(), out, crops)
