"""Prepared graphs replace the bundle on machines without onnx."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from runtime.engines.tensorrt.engine_cache import EngineCache
from runtime.engines.tensorrt.onnx_rewrite import PRECISIONS, rewrite_graph
from runtime.engines.tensorrt.prepared import prepared_graph, read_prepared, write_prepared
from runtime.errors import EngineUnavailable
from runtime.model.bundle import Bundle


def test_prepared_graphs_work_without_onnx(
    small: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copied folder is enough; a missing or damaged graph is reported with the command to run."""
    folder = write_prepared(small, "fp16", EngineCache(tmp_path / "written"))
    assert write_prepared(small, "fp32", EngineCache(tmp_path / "written")) == folder
    copied = tmp_path / "copied/tensorrt" / folder.name
    copied.parent.mkdir(parents=True)
    folder.rename(copied)
    cache = EngineCache(tmp_path / "copied")
    expected = {p: rewrite_graph(small.backbone.read_bytes(), p) for p in PRECISIONS}
    monkeypatch.setitem(sys.modules, "onnx", None)
    model = read_prepared(copied)
    assert (model.digest, model.window, model.feature_dim) == (small.digest, small.window, small.feature_dim)
    for precision, content in expected.items():
        assert prepared_graph(model, "backbone", precision, cache) == content
    (copied / "head.fp16.onnx").write_bytes(b"damaged")
    with pytest.raises(EngineUnavailable, match=r"head for fp16 has not been prepared.*--precision fp16"):
        prepared_graph(model, "head", "fp16", cache)
    with pytest.raises(EngineUnavailable, match="onnx is not installed"):
        prepared_graph(small, "head", "fp16", cache)
    with pytest.raises(EngineUnavailable, match="no graphs prepared by this version"):
        read_prepared(tmp_path)
