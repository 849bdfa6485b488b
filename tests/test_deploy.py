"""Unit of systemd and container file: valid, hardened, and about files and options that exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
UNIT = (DEPLOY / "unmask.service").read_text()
CONTAINER = (DEPLOY / "Containerfile").read_text().replace("\\\n", "")
# Exposure by `systemd-analyze security`, from 0 to 10; services without any protection have 9.6.
MAX_EXPOSURE = 2.5


def test_the_unit_is_valid(tmp_path: Path, skip_or_fail: Callable[[str], NoReturn]) -> None:
    """systemd reports neither an error nor an unknown key, and rates it as well protected."""
    program = shutil.which("systemd-analyze")
    if program is None:
        skip_or_fail("systemd-analyze is not installed (Debian: apt install systemd)")
    # The program of the unit is not installed on this machine.
    unit = tmp_path / "unmask.service"
    unit.write_text(UNIT.replace("/opt/unmask/bin/unmask", sys.executable))
    verified = subprocess.run([program, "verify", unit], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    rated = subprocess.run(
        [program, "security", "--offline=true", unit], capture_output=True, text=True, check=False
    )
    found = re.search(r"Overall exposure level for unmask.service: ([0-9.]+)", rated.stdout)
    assert found is not None, rated.stdout + rated.stderr
    assert float(found[1]) <= MAX_EXPOSURE


def commands() -> list[list[str]]:
    """Return the arguments with which unit and container run the program."""
    of_unit = re.search(r"^ExecStart=\S+ (.*)$", UNIT, re.MULTILINE)
    of_container = re.search(r"^CMD (\[\"monitor.*)$", CONTAINER, re.MULTILINE)
    assert of_unit is not None
    assert of_container is not None
    return [shlex.split(of_unit[1]), json.loads(of_container[1])]


@pytest.mark.parametrize("arguments", commands())
def test_the_command_exists(arguments: list[str]) -> None:
    """Its options are those of the program."""
    shown = subprocess.run(
        [sys.executable, "-m", "unmask", arguments[0], "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"COLUMNS": "200", "PATH": "", "TERM": "dumb"},
        check=True,
    )
    options = [argument for argument in arguments if argument.startswith("--")]
    assert options
    assert all(option in shown.stdout for option in options), shown.stdout


def test_the_example_configuration_is_right(tmp_path: Path) -> None:
    """As a user would check it, also with the sections that are commented out, except their secrets."""
    text = (DEPLOY / "unmask.toml").read_text()
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef")
    full = re.sub(r"^#(?=[\w\[])", "", text, flags=re.MULTILINE)
    full = re.sub(r'password_file = ".*"', f'password_file = "{secret}"', full)
    assert full.count("[[sources]]") == 2
    for number, content in enumerate((text, full)):
        path = tmp_path / f"{number}.toml"
        path.write_text(content)
        checked = subprocess.run(
            [sys.executable, "-m", "unmask", "config", "check", path],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stderr


def test_the_container_file_copies_what_exists() -> None:
    """Every package of the program, and only files that are not left out of the build."""
    copied = [
        name
        for line in re.findall(r"^COPY (?!--)(.*)$", CONTAINER, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert all((ROOT / name).exists() for name in copied)
    packages = re.search(r"include = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
    assert packages is not None
    assert set(re.findall(r'"(\w+)\*"', packages[1])) <= set(copied)
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().split()
    assert {f"!{name}" for name in copied} <= set(ignored)


def test_the_health_check_is_python() -> None:
    """A syntax error in it would make every container unhealthy."""
    found = re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", CONTAINER, re.MULTILINE)
    assert found is not None
    compile(json.loads(found[1])[2], "health check", "exec")
