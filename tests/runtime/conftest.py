"""Fixtures for tests of the runtime: a small model bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.small_bundle import write_small_bundle


@pytest.fixture(scope="session")
def make_bundle() -> Callable[[Path], Path]:
    """Function that writes the small bundle into a new directory."""
    return write_small_bundle


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of one small bundle that all tests share; read only."""
    return write_small_bundle(tmp_path_factory.mktemp("bundles") / "small")
