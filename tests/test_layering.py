"""The stages of the house: imports point one way, and the lower floors stand without torch."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("streams", "runtime", "train", "export", "benchmarks")
TRAINING = {"torch", "torchvision", "lightning_fabric", "safetensors", "sklearn", "tensorboard", "onnxscript"}

# Importing anything of this fails as if it were not installed.
BLOCK = f"""
import sys
for name in {sorted(TRAINING)}:
    sys.modules[name] = None
"""


def modules(floor: str) -> list[str]:
    found = pkgutil.walk_packages([str(ROOT / floor)], prefix=f"{floor}.")
    return [floor, *(module.name for module in found)]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Give each import statement of a file, wherever in it, as its line and the name of the package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A relative import stays on its floor as long as it does not climb out of the package.
            package = node.module or "" if not node.level else path.relative_to(ROOT).parts[0]
            yield node.lineno, package.partition(".")[0]


def forbidden(floor: str, names: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {package}"
        for path in sorted((ROOT / floor).rglob("*.py"))
        for line, package in imports(path)
        if package in names
    ]


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_point_down(floor: str) -> None:
    """No file imports a higher floor, the command or the tests, not even inside a function."""
    above = FLOORS[FLOORS.index(floor) + 1 :]
    assert forbidden(floor, {*above, "unmask", "tests"}) == []


@pytest.mark.parametrize("floor", ["streams", "runtime"])
def test_the_lower_floors_do_not_name_torch(floor: str) -> None:
    """What watches live video asks for nothing that only training needs."""
    assert forbidden(floor, TRAINING) == []


def test_the_ground_floor_has_no_engine_and_no_server() -> None:
    """Streams know pictures: what runs networks, and who is told, is decided above."""
    assert (
        forbidden("streams", {"onnxruntime", "websockets", "prometheus_client", "rich", "typer", "tensorrt"})
        == []
    )


@pytest.mark.parametrize("floor", ["streams", "runtime"])
def test_the_lower_floors_import_without_torch(floor: str) -> None:
    """Every module can be imported where nothing of training is installed."""
    names = [name for name in modules(floor) if not name.startswith("runtime.engines.tensorrt.engine")]
    assert len(names) > 5
    done = run(BLOCK + "".join(f"import {name}\n" for name in names))
    assert done.returncode == 0, done.stderr


def test_the_readme_names_every_file() -> None:
    """A newcomer sees where a line belongs: each module has its line in the README, and no other has."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    told = [line.partition(" ")[0] for line in lines if line.startswith(tuple(f"{f}/" for f in FLOORS))]
    there = [
        str(path.relative_to(ROOT))
        for floor in FLOORS
        for path in (ROOT / floor).rglob("*.py")
        if path.name != "__init__.py"
    ]
    assert sorted(name for name in told if name.endswith(".py")) == sorted(there)


def test_the_command_loads_nothing_before_it_is_used() -> None:
    """`import unmask` brings in no stage and no heavy library; the client comes when it is asked for."""
    heavy = {*FLOORS, "av", "cv2", "numpy", "onnxruntime", "websockets"}
    script = f"""{BLOCK}
import unmask
loaded = {{name.partition(".")[0] for name in sys.modules}} & {heavy}
assert not loaded, loaded
from unmask import watch
assert watch.__module__ == "runtime.client"
"""
    done = run(script)
    assert done.returncode == 0, done.stderr
