"""The cache of engines returns an engine only for the key that it was built for."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.engines.tensorrt.engine_cache import EngineCache, EngineKey
from runtime.errors import EngineUnavailable


@pytest.fixture
def key() -> EngineKey:
    return EngineKey(
        digest="ab" * 32,
        part="backbone",
        precision="fp16",
        library="TensorRT 10.9.0",
        target="Pretend 9000 sm_90",
        shapes=((1, 2), (8, 2), (64, 2)),
    )


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "cd" * 32},
        {"part": "head"},
        {"precision": "fp32"},
        {"library": "TensorRT 10.9.1"},
        {"target": "Pretend 9000 sm_80"},
        {"shapes": ((1, 2), (8, 2), (32, 2))},
        {"rewrite_version": 0},
        {"build_version": 0},
    ],
)
def test_each_field_of_the_key_selects_another_engine(
    tmp_path: Path, key: EngineKey, change: dict[str, Any]
) -> None:
    """A changed field leads to another file, and an engine is never read for another key."""
    cache = EngineCache(tmp_path)
    cache.store(key, b"machine code", {})
    other = replace(key, **change)
    assert cache.path(other) != cache.path(key)
    assert cache.load(other) is None
    assert cache.load(key) == b"machine code"


def test_foreign_or_damaged_file_is_not_used(
    tmp_path: Path, key: EngineKey, caplog: pytest.LogCaptureFixture
) -> None:
    """An engine of another key, a truncated one, and one with unreadable metadata are built again."""
    cache = EngineCache(tmp_path)
    other = replace(key, target="Pretend 8000 sm_89")
    cache.store(other, b"for another card", {})
    for suffix in (".engine", ".json"):
        cache.path(other).with_suffix(suffix).rename(cache.path(key).with_suffix(suffix))
    assert cache.load(key) is None
    cache.store(key, b"machine code", {"seconds": 1})
    cache.path(key).write_bytes(b"machine")
    assert cache.load(key) is None
    cache.path(key).with_suffix(".json").write_text("[")
    assert cache.load(key) is None
    reasons = ("built for another key", "changed or truncated", "cannot be read")
    for reason, record in zip(reasons, caplog.records, strict=True):
        assert reason in record.message
        assert record.levelno == logging.WARNING


def test_unwritable_cache_is_reported(tmp_path: Path, key: EngineKey) -> None:
    """The message names the variable that sets another directory."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineUnavailable, match=r"cannot be written .*UNMASK_CACHE"):
        EngineCache(tmp_path / "file").store(key, b"", {})
