"""The wheel: its contents, and that it works without the sources and without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("streams", "runtime", "train", "export", "benchmarks")
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the project's own backend from a copy of its sources."""
    sources, out = tmp_path_factory.mktemp("sources") / "unmask", tmp_path_factory.mktemp("dist")
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, sources, ignore=unwanted)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)], cwd=sources, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory, skip_or_fail: Callable[[str], NoReturn]
) -> Path:
    """Script directory of a fresh environment with only the wheel and its dependencies."""
    place = tmp_path_factory.mktemp("elsewhere") / "venv"
    uv = shutil.which("uv")
    if uv:
        python = place / "bin" / "python"
        commands = [
            [uv, "venv", "--python", sys.executable, str(place)],
            [uv, "pip", "install", "--python", str(python), str(wheel)],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", str(place)],
            [str(place / "bin" / "python"), "-m", "pip", "install", str(wheel)],
        ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            skip_or_fail(f"{' '.join(command[:4])} failed, no package index? {done.stderr.strip()[-300:]}")
    return place / "bin"


def elsewhere(tmp_path: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a command outside of the sources, with no Python variables in the environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        list(map(str, command)), cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
    )


def test_contents_of_the_wheel(wheel: Path) -> None:
    """The wheel contains the command, every module, the web pages, asyncapi.yaml and the model."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    data = {
        str(path.relative_to(ROOT))
        for place in ("serving/web", "model/default", "scan_report")
        for path in (ROOT / "runtime" / place).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {
        "runtime/serving/web/asyncapi.yaml",
        "runtime/serving/web/index.html",
        "runtime/serving/web/overlay.js",
        "runtime/serving/web/scan/scan.js",
        "runtime/serving/web/shared/feed.js",
        "runtime/scan_report/report.css",
    } <= data
    assert {"runtime/model/default/manifest.json", "runtime/model/default/backbone.onnx"} <= data
    assert names == {"unmask.py", *modules, *data}


def test_metadata_of_the_wheel(wheel: Path) -> None:
    """The metadata state version, licence and one command."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    with zipfile.ZipFile(wheel) as archive:
        names = {Path(name).name: name for name in archive.namelist() if ".dist-info/" in name}
        metadata = archive.read(names["METADATA"]).decode()
        commands = archive.read(names["entry_points.txt"]).decode()
    assert f"\nVersion: {version}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "Private :: Do Not Upload" in metadata
    assert commands.split() == ["[console_scripts]", "unmask", "=", "unmask:main"]


def test_scan_works_without_torch(installed: Path, face_video: Path, tmp_path: Path) -> None:
    """The installed command scores a video with the bundled model."""
    probe = "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is not None)"
    assert elsewhere(tmp_path, installed / "python", "-c", probe).returncode == 0
    done = elsewhere(tmp_path, installed / "unmask", "scan", "--json", face_video)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    line = json.loads(done.stdout)
    assert line["state"] == "scored"
    assert 0 < line["p_fake"] < 1


def test_client_can_be_imported(installed: Path, tmp_path: Path) -> None:
    """`from unmask import watch` works from the wheel."""
    probe = "from unmask import watch; print(watch.__name__)"
    done = elsewhere(tmp_path, installed / "python", "-W", "error", "-c", probe)
    assert (done.returncode, done.stdout) == (0, "watch\n"), done.stderr


def test_missing_torch_is_reported_with_the_extra(installed: Path, tmp_path: Path) -> None:
    """A command that needs torch names the extra to install, in one line."""
    done = elsewhere(tmp_path, installed / "unmask", "export", "checkpoint", "--out", "bundle")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "[export]" in done.stderr
