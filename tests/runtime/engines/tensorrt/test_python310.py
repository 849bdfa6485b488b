"""The engine and the builder load with numpy alone, under Python 3.10 too."""

from __future__ import annotations

import ast
import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
IMPORTS = "import runtime.engines.tensorrt.engine, runtime.engines.recorded_outputs\n"


def test_engine_imports_with_numpy_alone() -> None:
    """Importing the engine, the builder and the recorder of outputs needs no package but numpy."""
    blocked = ["onnx", "onnxruntime", "cv2", "av", "tensorrt", "pycuda", "cuda", "torch", "google", "typer"]
    blocked += ["platformdirs", "msgspec", "typing_extensions"]
    script = f"import sys\nfor name in {blocked}: sys.modules[name] = None\n{IMPORTS}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def loaded_sources() -> list[Path]:
    """Return the project's sources that importing the engine loads."""
    script = f"{IMPORTS}import sys\nfor m in list(sys.modules.values()): print(getattr(m, '__file__', ''))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = [Path(line) for line in done.stdout.splitlines() if line]
    return [path for path in loaded if path.is_relative_to(ROOT / "runtime")]


def test_engine_keeps_to_python_310_syntax() -> None:
    """TensorRT 8.6 has no wheel for a newer Python."""
    # Imported by type checkers only, but part of the engine.
    sources = [*loaded_sources(), ROOT / "runtime/engines/tensorrt/api.py"]
    assert {path.stem for path in sources} >= {"engine", "builder", "runner", "errors", "recorded_outputs"}
    for path in sources:
        ast.parse(path.read_text(encoding="utf-8"), path.name, feature_version=(3, 10))


def python310() -> str | None:
    """Return a Python 3.10 of this machine that starts."""
    homes = sorted(Path.home().glob(".pyenv/versions/3.10.*/bin/python3.10"))
    for program in ("python3.10", *map(str, homes)):
        with contextlib.suppress(OSError):
            if subprocess.run([program, "-c", ""], capture_output=True, check=False).returncode == 0:
                return program
    return None


def test_engine_imports_under_python_310() -> None:
    """The standard library of 3.10 is enough; a mock replaces numpy where that Python has none."""
    program = python310()
    if program is None:
        pytest.skip("no Python 3.10 here; the syntax is checked all the same")
    script = (
        "import importlib.util, sys, unittest.mock\n"
        "if importlib.util.find_spec('numpy') is None:\n"
        "    for name in ('numpy', 'numpy.typing'): sys.modules[name] = unittest.mock.MagicMock()\n"
        + IMPORTS
        + "import runtime.engines.tensorrt.api\n"
    )
    done = subprocess.run([program, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
