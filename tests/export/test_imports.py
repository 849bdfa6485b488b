"""Tests of the imports of export."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Importing a blocked module fails as if it were not installed.
SCRIPT = """
import pkgutil, sys
for name in ("sklearn", "matplotlib", "tensorboard"):
    sys.modules[name] = None
import export
for module in pkgutil.walk_packages(export.__path__, "export."):
    __import__(module.name)
from pathlib import Path
from train.models.checkpoint import load_checkpoint, save_checkpoint
from train.models.config import ModelConfig
from train.models.detector import ResNeXtLSTM
folder = Path(sys.argv[1])
save_checkpoint(folder, ResNeXtLSTM(ModelConfig(input_size=32, hidden=8)), {})
load_checkpoint(folder)
"""


def test_export_reads_a_checkpoint_without_scikit_learn_and_matplotlib(tmp_path: Path) -> None:
    """Exporting needs neither scikit-learn nor matplotlib."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "checkpoint")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
