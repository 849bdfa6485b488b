"""Arbitrary configuration files: a configuration, or one printable line with its place for each problem."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.config.reading import make_config, read_settings
from runtime.errors import ConfigInvalid
from streams.text import printable
from tests.support.fuzzing import examples, mutations

ORIGINAL = b"""\
engine = "onnxruntime"
rate = 4
thresholds = { fake = 0.7 }

[server]
host = "0.0.0.0"
port = 8765
allow_origin = ["https://desk.example"]

[[sources]]
name = "door"
address = "rtsp://10.0.0.7/cam"
user = "ada"
password_env = "PASSWORD"
transport = "udp"
thresholds.real = 0.2

[[sources]]
address = "demo"
rate = 2.5

[outputs]
jsonl = { path = "verdicts.jsonl", max_mb = 100 }

[outputs.webhook]
url = "https://hook.example"
"""
KEYS = [
    "engine",
    "rate",
    "thresholds",
    "thresholds.fake",
    "server",
    "server.port",
    "server.max_clients",
    "server.proxy_addresses",
    "sources",
    "outputs",
    "outputs.jsonl",
    "outputs.mqtt.url",
    "evidence.folder",
    "ratee",
    '"a\\nb"',
    '"\\u001b[31m"',
]
VALUES = [
    "0",
    "-1",
    "1e400",
    "nan",
    "true",
    '""',
    '"x"',
    '"a\\nb"',
    "[]",
    "[[]]",
    "{}",
    '{ a = "b" }',
    "[{}]",
    '[{ address = "demo" }]',
    "2026-11-25",
    "[" * 200 + "]" * 200,
    "9" * 5000,
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration file."""
    return tmp_path_factory.mktemp("config") / "unmask.toml"


def check(path: Path, content: bytes) -> None:
    """Read a file; check that it is valid or that its error names the places of its problems."""
    path.write_bytes(content)
    problems: list[str] = []
    try:
        make_config(read_settings(path))
    except ConfigInvalid as error:
        problems = [*error.problems]
    for problem in problems:
        assert problem.startswith(str(path))
        assert problem == printable(problem, limit=len(problem) + 1)


@pytest.mark.fuzz
@examples(100, 50_000)
@given(mutations(ORIGINAL))
def test_changed_bytes(path: Path, content: bytes) -> None:
    """A valid file with changed bytes."""
    check(path, content)


@pytest.mark.fuzz
@examples(150, 50_000)
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=4))
def test_wrong_values(path: Path, entries: list[tuple[str, str]]) -> None:
    """Values of any type for known and unknown keys."""
    check(path, "\n".join(f"{key} = {value}" for key, value in entries).encode())
