"""A model's graphs as TensorRT takes them, kept beside its engines for machines that have no `onnx`.

write_prepared(bundle, "fp16", cache.folder(bundle.digest))       # where `onnx` is
model = read_prepared(folder)                                      # where numpy is all there is
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.engines.interface import Model
from runtime.engines.tensorrt.driver import NAME
from runtime.engines.tensorrt.engine_cache import EngineCache, write
from runtime.engines.tensorrt.onnx_rewrite import VERSION, Precision, rewrite_graph
from runtime.errors import EngineUnavailable

CARD = "model.json"
PARTS = ("backbone", "head")


@dataclass(frozen=True)
class PreparedModel:
    """Is what an engine needs to know of a bundle, without the bundle."""

    name: str
    digest: str
    input_size: int
    feature_dim: int
    window: int
    min_frames: int
    backbone: Path
    head: Path


def write_prepared(model: Model, precision: Precision, cache: EngineCache) -> Path:
    """Rewrite a model's graphs for TensorRT and keep them in the cache.

    Args:
        model: A bundle.
        precision: `fp16` or `fp32`.
        cache: Where.

    Returns:
        The folder.

    Raises:
        EngineUnavailable: A graph cannot be rewritten, or the cache cannot be written.
    """
    folder = cache.folder(model.digest)
    files = _card(folder).get("files", {})
    for part in PARTS:
        content = rewrite_graph(getattr(model, part).read_bytes(), precision)
        write(folder / _file(part, precision), content)
        files[_file(part, precision)] = hashlib.sha256(content).hexdigest()
    facts = {
        "name": model.name,
        "digest": model.digest,
        "input_size": model.input_size,
        "feature_dim": model.feature_dim,
        "window": model.window,
        "min_frames": model.min_frames,
    }
    card = {"version": VERSION, "model": facts, "files": files}
    write(folder / CARD, (json.dumps(card, indent=2) + "\n").encode())
    return folder


def read_prepared(folder: Path) -> PreparedModel:
    """Read what `write_prepared` kept.

    Args:
        folder: What it returned, or a copy of it.

    Returns:
        The model; its `backbone` and `head` name no files, as the graphs are found through the cache.

    Raises:
        EngineUnavailable: There is nothing of this version.
    """
    facts = _card(folder).get("model")
    if not isinstance(facts, dict):
        raise EngineUnavailable(
            NAME,
            f"{folder} holds no graphs that this version of unmask prepared",
            "run `unmask export --tensorrt` with this version",
        )
    return PreparedModel(**facts, backbone=folder / "backbone.onnx", head=folder / "head.onnx")


def prepared_graph(model: Model, part: str, precision: Precision, cache: EngineCache) -> bytes:
    """Give a graph as TensorRT takes it: from the cache if it is there and whole, else rewritten.

    Args:
        model: A bundle or a prepared model.
        part: `backbone` or `head`.
        precision: `fp16` or `fp32`.
        cache: Where to look first.

    Returns:
        The serialised ONNX model.

    Raises:
        EngineUnavailable: It is not there, and cannot be made here.
    """
    folder = cache.folder(model.digest)
    expected = _card(folder).get("files", {}).get(_file(part, precision))
    if expected is not None:
        try:
            content = (folder / _file(part, precision)).read_bytes()
        except OSError:
            content = b""
        if hashlib.sha256(content).hexdigest() == expected:
            return content
    source: Path = getattr(model, part)
    try:
        raw = source.read_bytes()
    except OSError as error:
        raise EngineUnavailable(
            NAME,
            f"the {part} for {precision} has not been prepared, and {source} cannot be read",
            f"run `unmask export --tensorrt --precision {precision}` where the model is, and copy the cache",
        ) from error
    return rewrite_graph(raw, precision)


def _file(part: str, precision: str) -> str:
    return f"{part}.{precision}.onnx"


def _card(folder: Path) -> dict[str, Any]:
    """Read the card of what was prepared; empty if there is none, or one of another version."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) and card.get("version") == VERSION else {}
