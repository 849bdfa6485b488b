"""Cache of optimised graphs: storing, verifying and removing them, and its use by the engine."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from runtime.engines.onnx_cpu import engine as cpu
from runtime.engines.onnx_cpu import graph_cache
from runtime.engines.onnx_cpu.engine import OnnxRuntimeEngine
from runtime.engines.onnx_cpu.graph_cache import (
    GRAPH_FILE,
    METADATA_FILE,
    WEIGHTS_FILE,
    GraphCache,
    GraphKey,
    cpu_name,
)
from runtime.model.bundle import Bundle, load_bundle

KEY = GraphKey(digest="d" * 64, part="backbone", precision="fp32", library="1.2.3", cpu="x86_64 abc")


@pytest.fixture
def graphs(tmp_path: Path) -> GraphCache:
    return GraphCache(tmp_path / "cache")


@pytest.fixture
def bundle(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A small bundle that is large enough for the cache."""
    monkeypatch.setattr(cpu, "MIN_BYTES", 0)
    return load_bundle(small_bundle)


class Optimiser:
    """Stand-in for onnxruntime that writes files and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, graph: Path, weights: str) -> None:
        self.calls += 1
        graph.write_bytes(b"graph")
        (graph.parent / weights).write_bytes(b"weights")


def outputs(bundle: Bundle, graphs: GraphCache) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    crops = np.random.default_rng(3).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    with OnnxRuntimeEngine(bundle, threads=1, cache=graphs) as engine:
        features = engine.features(crops)
        return features, engine.logits(features[None])


def test_a_graph_is_optimised_once(graphs: GraphCache) -> None:
    """A stored graph is found again instead of being optimised again."""
    optimiser = Optimiser()
    assert graphs.find(KEY) is None
    path = graphs.store(KEY, optimiser)
    assert path is not None
    assert path.read_bytes() == b"graph"
    assert graphs.find(KEY) == path == graphs.store(KEY, optimiser)
    assert sorted(os.listdir(graphs.root)) == [KEY.name]


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, digest="e" * 64),
        replace(KEY, part="head"),
        replace(KEY, precision="int8"),
        replace(KEY, library="1.2.4"),
        replace(KEY, cpu="x86_64 abd"),
        replace(KEY, recipe=KEY.recipe + 1),
    ],
)
def test_a_graph_with_another_key_is_not_found(graphs: GraphCache, other: GraphKey) -> None:
    """A graph of another model, onnxruntime, CPU or version is refused, even under the right name."""
    graphs.store(KEY, Optimiser())
    assert graphs.find(other) is None
    (graphs.root / KEY.name).rename(graphs.root / other.name)
    assert graphs.find(other) is None


@pytest.mark.parametrize("name", [GRAPH_FILE, WEIGHTS_FILE, METADATA_FILE])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"other"])
def test_a_damaged_graph_is_optimised_again(graphs: GraphCache, name: str, content: bytes | None) -> None:
    """A file that is missing, cut short or changed is detected before use."""
    optimiser = Optimiser()
    path = graphs.store(KEY, optimiser)
    assert path is not None
    damaged = path.parent / name
    damaged.unlink() if content is None else damaged.write_bytes(content)
    assert graphs.find(KEY) is None
    assert graphs.store(KEY, optimiser) == path
    assert optimiser.calls == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
def test_a_folder_that_others_can_write_is_not_used(
    graphs: GraphCache, caplog: pytest.LogCaptureFixture
) -> None:
    """A user who can write the graph can also write its hashes."""
    path = graphs.store(KEY, Optimiser())
    assert path is not None
    graphs.root.chmod(0o777)
    with caplog.at_level(logging.WARNING, logger="runtime.engines.onnx_cpu.graph_cache"):
        assert graphs.find(KEY) is None
    assert "can be changed by other users" in caplog.text


def test_the_graphs_used_longest_ago_are_removed(graphs: GraphCache) -> None:
    """The cache keeps `MAX_GRAPHS` graphs, those used last."""
    keys = [replace(KEY, digest=str(i)) for i in range(graph_cache.MAX_GRAPHS + 2)]
    for age, key in enumerate(keys):
        assert graphs.store(key, Optimiser()) is not None
        os.utime(graphs.root / key.name, (1000 + age, 1000 + age))
        graphs.find(keys[0])
    assert [key for key in keys if graphs.find(key)] == [keys[0], *keys[3:]]


def test_outputs_do_not_depend_on_the_cache(bundle: Bundle, graphs: GraphCache, tmp_path: Path) -> None:
    """Outputs are equal for a new graph, a cached one, and a cache that cannot be written."""
    made = outputs(bundle, graphs)
    names = sorted(os.listdir(graphs.root))
    assert [name.partition(".")[0] for name in names] == ["backbone", "head"]
    found = outputs(bundle, graphs)
    (tmp_path / "file").touch()
    kept_nowhere = outputs(bundle, GraphCache(tmp_path / "file"))
    for others in (found, kept_nowhere):
        for one, other in zip(made, others, strict=True):
            np.testing.assert_array_equal(one, other)
    assert sorted(os.listdir(graphs.root)) == names


def test_a_graph_that_does_not_load_is_discarded(
    bundle: Bundle, graphs: GraphCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If onnxruntime refuses an intact graph, it is removed and the bundle's graph is used."""
    expected = outputs(bundle, graphs)
    for folder in list(graphs.root.iterdir()):
        graph, weights = (folder / name for name in (GRAPH_FILE, WEIGHTS_FILE))
        key = next(key for key in keys_of(bundle) if key.name == folder.name)
        content = weights.read_bytes()
        graphs.discard(key)

        def spoil(path: Path, name: str, content: bytes = content) -> None:
            path.write_bytes(b"no graph")
            (path.parent / name).write_bytes(content)

        assert graphs.store(key, spoil) == graph
    for one, other in zip(expected, outputs(bundle, graphs), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not any(graphs.root.iterdir())


def keys_of(bundle: Bundle) -> list[GraphKey]:
    return [
        GraphKey(
            digest=bundle.digest,
            part=part,
            precision="fp32",
            library=onnxruntime.__version__,
            cpu=cpu_name(),
        )
        for part in ("backbone", "head")
    ]
