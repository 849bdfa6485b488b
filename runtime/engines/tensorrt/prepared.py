"""Prepared graphs: a model's ONNX graphs rewritten for TensorRT, stored in the engine cache.

write_prepared(bundle, "fp16", cache)            # where `onnx` is installed
model = read_prepared(folder)                    # where only numpy is installed
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.engines.interface import Model
from runtime.engines.tensorrt.driver import NAME
from runtime.engines.tensorrt.engine_cache import EngineCache, read, write
from runtime.engines.tensorrt.onnx_rewrite import REWRITE_VERSION, Precision, rewrite_graph
from runtime.errors import EngineUnavailable

METADATA = "model.json"
PARTS = ("backbone", "head")


@dataclass(frozen=True)
class PreparedModel:
    """Facts of a bundle that an engine needs; implements `runtime.engines.interface.Model`."""

    name: str
    digest: str
    input_size: int
    feature_dim: int
    window: int
    min_frames: int
    backbone: Path
    head: Path


def write_prepared(model: Model, precision: Precision, cache: EngineCache) -> Path:
    """Rewrite a model's graphs for TensorRT and store them in the cache.

    Args:
        model: A bundle.
        precision: `fp16` or `fp32`.
        cache: The engine cache.

    Returns:
        The folder of the prepared graphs.

    Raises:
        EngineUnavailable: A graph cannot be rewritten, or the cache cannot be written.
    """
    folder = cache.folder(model.digest)
    files = _read_metadata(folder).get("files", {})
    for part in PARTS:
        content = rewrite_graph(getattr(model, part).read_bytes(), precision)
        write(folder / _file_name(part, precision), content)
        files[_file_name(part, precision)] = hashlib.sha256(content).hexdigest()
    facts = {
        "name": model.name,
        "digest": model.digest,
        "input_size": model.input_size,
        "feature_dim": model.feature_dim,
        "window": model.window,
        "min_frames": model.min_frames,
    }
    metadata = {"version": REWRITE_VERSION, "model": facts, "files": files}
    write(folder / METADATA, (json.dumps(metadata, indent=2) + "\n").encode())
    return folder


def read_prepared(folder: Path) -> PreparedModel:
    """Read the facts that `write_prepared` stored.

    Args:
        folder: Result of `write_prepared`, or a copy of it.

    Returns:
        The model. Its `backbone` and `head` do not exist as files; `prepared_graph` reads the graphs.

    Raises:
        EngineUnavailable: The folder has no prepared graphs of this version.
    """
    facts = _read_metadata(folder).get("model")
    if not isinstance(facts, dict):
        raise EngineUnavailable(
            NAME,
            f"{folder} has no graphs prepared by this version of unmask",
            "run `unmask export --tensorrt` with this version",
        )
    return PreparedModel(**facts, backbone=folder / "backbone.onnx", head=folder / "head.onnx")


def prepared_graph(model: Model, part: str, precision: Precision, cache: EngineCache) -> bytes:
    """Return a graph for TensorRT: from the cache if it is intact there, otherwise rewritten.

    Args:
        model: A bundle or a prepared model.
        part: `backbone` or `head`.
        precision: `fp16` or `fp32`.
        cache: The engine cache.

    Returns:
        The serialized ONNX model.

    Raises:
        EngineUnavailable: The graph is not in the cache and cannot be rewritten here.
    """
    folder = cache.folder(model.digest)
    expected = _read_metadata(folder).get("files", {}).get(_file_name(part, precision))
    if expected is not None:
        try:
            content = read(folder / _file_name(part, precision))
        except OSError:
            content = b""
        if hashlib.sha256(content).hexdigest() == expected:
            return content
    source: Path = getattr(model, part)
    try:
        original = source.read_bytes()
    except OSError as error:
        raise EngineUnavailable(
            NAME,
            f"the {part} for {precision} has not been prepared, and {source} cannot be read",
            f"run `unmask export --tensorrt --precision {precision}` where the model is, and copy the cache",
        ) from error
    return rewrite_graph(original, precision)


def _file_name(part: str, precision: str) -> str:
    return f"{part}.{precision}.onnx"


def _read_metadata(folder: Path) -> dict[str, Any]:
    """Read the metadata of prepared graphs; empty if there is none or it has another version."""
    try:
        metadata = json.loads(read(folder / METADATA))
    except (OSError, ValueError):
        return {}
    current = isinstance(metadata, dict) and metadata.get("version") == REWRITE_VERSION
    return metadata if current else {}
