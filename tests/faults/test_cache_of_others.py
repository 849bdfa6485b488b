"""Faults: another user can write to what the cache of TensorRT engines is loaded from."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from runtime.engines.tensorrt.engine_cache import EngineCache, EngineKey, read
from runtime.engines.tensorrt.prepared import prepared_graph, read_prepared, write_prepared
from runtime.errors import EngineUnavailable
from runtime.model.bundle import load_bundle
from tests.support.small_bundle import write_small_bundle

ROOT = Path(__file__).parents[2]
KEY = EngineKey("ab" * 32, "backbone", "fp16", "TensorRT 10.9.0", "Pretend 9000 sm_90", ((1, 2),))

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")


def _chmod(mode: int) -> Callable[[Path], None]:
    return lambda path: path.chmod(mode)


def _give_away(path: Path) -> None:
    os.chown(path, 12345, -1)


# What is exposed, relative to the folder of the model, and how.
FAULTS = [
    pytest.param("{name}", _chmod(0o666), id="everybody can write the file"),
    pytest.param("{name}", _chmod(0o660), id="the group can write the file"),
    pytest.param("{name}", _give_away, id="the file belongs to another user"),
    pytest.param(".", _chmod(0o777), id="everybody can write the folder"),
    pytest.param(".", _chmod(0o775), id="the group can write the folder"),
    pytest.param(".", _give_away, id="the folder belongs to another user"),
    pytest.param("..", _chmod(0o777), id="everybody can replace the folder"),
    pytest.param("../..", _chmod(0o777), id="everybody can replace the folder above"),
]


@pytest.fixture
def inject(skip_or_fail: Callable[[str], NoReturn]) -> Callable[[Callable[[Path], None], Path], None]:
    """Function that applies a fault to a path, or skips the test where that takes another user."""

    def inject(fault: Callable[[Path], None], path: Path) -> None:
        try:
            fault(path)
        except PermissionError:
            skip_or_fail("only root can give files away")

    return inject


Inject = Callable[[Callable[[Path], None], Path], None]


@pytest.mark.parametrize(("place", "fault"), FAULTS)
@pytest.mark.parametrize("suffix", [".engine", ".json"])
def test_engines_are_not_loaded(
    place: str, fault: Callable[[Path], None], suffix: str, tmp_path: Path, inject: Inject
) -> None:
    """Hashes beside an engine prove nothing: it is refused, and the message says how to go on."""
    cache = EngineCache(tmp_path / "cache")
    assert cache.store(KEY, b"machine code", {}) == cache.load(KEY)
    path = cache.path(KEY).with_suffix(suffix)
    inject(fault, path.parent / place.format(name=path.name))
    with pytest.raises(EngineUnavailable, match=r"is not trusted; .*chmod go-w.*UNMASK_CACHE"):
        cache.load(KEY)


@pytest.mark.parametrize(("place", "fault"), FAULTS)
@pytest.mark.parametrize("name", ["model.json", "head.fp16.onnx"])
def test_prepared_graphs_are_not_loaded(
    place: str, fault: Callable[[Path], None], name: str, tmp_path: Path, inject: Inject
) -> None:
    """A prepared graph becomes machine code: graph and metadata are refused alike."""
    cache = EngineCache(tmp_path / "cache")
    folder = write_prepared(load_bundle(write_small_bundle(tmp_path / "model")), "fp16", cache)
    model = read_prepared(folder)
    inject(fault, folder / place.format(name=name))
    with pytest.raises(EngineUnavailable, match="is not trusted"):
        prepared_graph(model, "head", "fp16", cache)


@pytest.mark.parametrize(("place", "fault"), [case for case in FAULTS if "{name}" not in str(case.values[0])])
def test_no_engine_is_stored_in_an_exposed_folder(
    place: str, fault: Callable[[Path], None], tmp_path: Path, inject: Inject
) -> None:
    """An engine is not stored where it would not be loaded from."""
    cache = EngineCache(tmp_path / "cache")
    folder = cache.folder(KEY.digest)
    folder.mkdir(parents=True)
    inject(fault, folder / place)
    with pytest.raises(EngineUnavailable, match="is not trusted"):
        cache.store(KEY, b"machine code", {})
    assert list(folder.iterdir()) == []


def test_a_shared_umask_does_not_expose_the_cache(tmp_path: Path) -> None:
    """Files and folders of the cache are for the user alone, whatever the umask."""
    before = os.umask(0)
    try:
        cache = EngineCache(tmp_path / "cache")
        cache.store(KEY, b"machine code", {})
    finally:
        os.umask(before)
    assert cache.load(KEY) == b"machine code"
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "cache").rglob("*")} == {0}


def test_kernels_and_timings_are_read_by_the_same_function() -> None:
    """No module of the engine reads a file on its own but the bundle's graphs: all go through `read`."""
    folder = ROOT / "runtime/engines/tensorrt"
    reads = {
        (path.name, line.strip())
        for path in folder.glob("*.py")
        for line in path.read_text().splitlines()
        if ".read_bytes()" in line or ".read_text(" in line or ".open(" in line
    }
    assert reads == {
        ("engine_cache.py", "return path.read_bytes()"),
        ("prepared.py", "content = rewrite_graph(getattr(model, part).read_bytes(), precision)"),
        ("prepared.py", "original = source.read_bytes()"),
    }
    assert read.__module__ == "runtime.engines.tensorrt.engine_cache"
