"""Import rules: packages and folders import downwards only, and nothing below training needs torch."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("streams", "runtime", "train", "export", "benchmarks")
# Folders and files inside a package, lowest first: each may import itself and what stands before it.
LAYERS = {
    "streams": (("errors", "text"), "synthesis", "input", "features", "faces"),
    "runtime": (
        ("version", "errors", "files", "child_process", "messages", "client_messages", "message_delay"),
        "config",
        "model",
        "engines",
        "pipeline",
        "scan_report",
        ("serving", "client"),
        "outputs",
        "uploads",
        "fleet",
        "commands",
    ),
    "train": (
        "errors",
        "checked_config",
        "data",
        "face_swap",
        "self_blend",
        "sampling",
        "models",
        "scoring",
        "fitting",
        "evaluation",
        "footage",
        ("recipes", "commands"),
    ),
    "export": ("errors", "onnx_graph", "parity", "bundle_writer", "run", "commands"),
    "benchmarks": ("hardware", "harness", "helpers", "suites", "commands"),
}
# Options and the user's errors are shared by the commands of all stages.
SHARED = {"runtime.commands.options"}
MAX_FILES = 10
TRAINING = {"torch", "torchvision", "lightning_fabric", "safetensors", "sklearn", "tensorboard", "onnxscript"}

# Importing anything of this fails as if it were not installed.
BLOCK = """
import sys
for name in {names}:
    sys.modules[name] = None
"""


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


SOURCES = {module_name(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}


def imported_names(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of everything that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield node.lineno, inner if inner in SOURCES else str(node.module)


def import_graph() -> dict[str, set[str]]:
    """Return which modules of the project each module imports."""
    return {
        name: {imported for _, imported in imported_names(path) if imported in SOURCES} - {name}
        for name, path in SOURCES.items()
    }


def violations(paths: list[Path], allowed: set[str] | None = None, *, forbidden: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted(paths)
        for line, name in imported_names(path)
        if name.partition(".")[0] in forbidden and name not in (allowed or set())
    ]


def layer_of(package: str, name: str) -> int:
    part = name.split(".")[1]
    for number, layer in enumerate(LAYERS[package]):
        if part in ((layer,) if isinstance(layer, str) else layer):
            return number
    raise AssertionError(f"{name} is in no layer of {package}; add it to LAYERS")


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_downwards(package: str) -> None:
    """No file imports a package above its own, the command or the tests, not even inside a function."""
    above = PACKAGES[PACKAGES.index(package) + 1 :]
    files = list((ROOT / package).rglob("*.py"))
    assert violations(files, forbidden={*above, "unmask", "tests"}) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_folders_import_downwards(package: str) -> None:
    """Inside a package each folder imports only itself and the folders below it."""
    upwards = [
        f"{name} imports {imported}"
        for name, found in sorted(import_graph().items())
        for imported in sorted(found)
        if name.startswith(f"{package}.")
        and imported.startswith(f"{package}.")
        and imported not in SHARED
        and layer_of(package, imported) > layer_of(package, name)
    ]
    assert upwards == []


def test_no_import_cycles() -> None:
    """No module imports itself by way of others, imports inside functions counted."""
    try:
        TopologicalSorter(import_graph()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_folders_stay_small() -> None:
    """A folder has at most about ten files: a larger one contains more than one concept."""
    folders = {path.parent for path in SOURCES.values()}
    crowded = {
        str(folder.relative_to(ROOT)): count
        for folder in folders
        if (count := len([path for path in folder.glob("*.py") if path.name != "__init__.py"])) > MAX_FILES
    }
    assert crowded == {}


@pytest.mark.parametrize("package", ["streams", "runtime"])
def test_lower_packages_do_not_name_torch(package: str) -> None:
    """Watching live video needs nothing that only training needs."""
    assert violations(list((ROOT / package).rglob("*.py")), forbidden=TRAINING) == []


def test_streams_has_no_engine_and_no_server() -> None:
    """Frames and faces are independent of what runs networks and of who receives verdicts."""
    others = {"onnxruntime", "websockets", "prometheus_client", "rich", "typer", "tensorrt"}
    assert violations(list((ROOT / "streams").rglob("*.py")), forbidden=others) == []


@pytest.mark.parametrize("package", ["streams", "runtime"])
def test_lower_packages_import_without_torch(package: str) -> None:
    """Every module can be imported without the libraries of training."""
    names = [module.name for module in pkgutil.walk_packages([str(ROOT / package)], prefix=f"{package}.")]
    assert len(names) > 5
    script = BLOCK.format(names=sorted(TRAINING)) + "".join(f"import {name}\n" for name in names)
    outcome = run(script)
    assert outcome.returncode == 0, outcome.stderr


def test_import_of_the_command_is_light() -> None:
    """`import unmask` loads no heavy library and no torch; the client is loaded when it is used."""
    heavy = {"av", "cv2", "numpy", "onnx", "onnxruntime", "websockets", "msgspec"}
    script = f"""{BLOCK.format(names=sorted(TRAINING))}
import unmask
loaded = {{name.partition(".")[0] for name in sys.modules}} & {heavy}
assert not loaded, loaded
from unmask import watch
assert watch.__module__ == "runtime.client"
"""
    outcome = run(script)
    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.parametrize(
    "module",
    [
        "runtime.commands.monitor.command",
        "runtime.commands.monitor.fleet",
        "runtime.fleet.cameras.actors",
        "runtime.fleet.cameras.processes",
    ],
)
def test_pyav_is_loaded_before_opencv(module: str) -> None:
    """In the other order FFmpeg crashes when it opens a screen, in the X11 libraries that OpenCV contains."""
    script = f"""
import sys
import {module}
names = list(sys.modules)
assert names.index("av._core") < names.index("cv2"), "OpenCV was loaded first"
"""
    outcome = run(script)
    assert outcome.returncode == 0, outcome.stderr


def test_public_surface() -> None:
    """Programs may rely on these names of `unmask`, and on no others."""
    outcome = run("import unmask; print(*sorted(unmask.__all__))")
    assert outcome.stdout.split() == ["app", "main", "watch"], outcome.stderr
