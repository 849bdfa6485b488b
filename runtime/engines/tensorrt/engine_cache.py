"""The user's cache of TensorRT engines: each is found only by what it was built from, for and with.

    cache = EngineCache()
    engine = cache.load(key) or cache.store(key, build(...), summary={})

An engine file is machine code. One that was built from another model, for another GPU or by another TensorRT
may load and give other numbers, so all of that is in the key, the key is in the file's name, and the whole
key and the file's own hash stand beside it and are compared before the file is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.engines.tensorrt.driver import NAME
from runtime.engines.tensorrt.onnx_rewrite import VERSION as GRAPHS_VERSION
from runtime.errors import EngineUnavailable

# Of how engines are built; raised with every change that makes another engine out of the same graph.
RECIPE = 2
ENVIRONMENT = "UNMASK_CACHE"

_log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Say where engines are kept: `$UNMASK_CACHE`, else `unmask` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if chosen := os.environ.get(ENVIRONMENT):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "unmask"


@dataclass(frozen=True)
class EngineKey:
    """States all that an engine depends on.

    Args:
        digest: Of the bundle.
        part: `backbone` or `head`.
        precision: `fp16` or `fp32`.
        library: TensorRT's name and version.
        target: The GPU, or the set of GPUs, that it is built for.
        shapes: Smallest, best and largest shape of its input.
        graphs: Version of the graphs' preparation.
        recipe: Version of the building.
    """

    digest: str
    part: str
    precision: str
    library: str
    target: str
    shapes: tuple[tuple[int, ...], ...]
    graphs: int = GRAPHS_VERSION
    recipe: int = RECIPE

    @property
    def stem(self) -> str:
        """The name of its files, without a suffix."""
        whole = hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()
        return f"{self.part}.{self.precision}.{whole[:16]}"

    def facts(self) -> dict[str, Any]:
        """Give the key as JSON values."""
        return {**asdict(self), "shapes": [list(shape) for shape in self.shapes]}


class EngineCache:
    """Keeps engines on disk.

    Args:
        root: The directory; None for `cache_dir()`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = cache_dir() if root is None else root

    def folder(self, digest: str) -> Path:
        """Say where what belongs to one bundle lies."""
        return self.root / "tensorrt" / digest[:16]

    def path(self, key: EngineKey) -> Path:
        """Say where an engine lies, or would lie."""
        return self.folder(key.digest) / f"{key.stem}.engine"

    def load(self, key: EngineKey) -> bytes | None:
        """Read an engine if it is there, whole, and built for exactly this.

        Args:
            key: What is needed.

        Returns:
            The serialised engine; None if it has to be built, with the reason in the log.
        """
        path = self.path(key)
        try:
            card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("%s cannot be read (%s): building it again", path.name, error)
            return None
        if not isinstance(card, dict) or card.get("key") != key.facts():
            _log.warning("%s was built for something else: building it again", path.name)
            return None
        if card.get("sha256") != hashlib.sha256(content).hexdigest():
            _log.warning("%s was changed or cut short: building it again", path.name)
            return None
        return content

    def store(self, key: EngineKey, engine: bytes, summary: Mapping[str, Any]) -> bytes:
        """Keep an engine.

        Args:
            key: What it was built from, for and with.
            engine: Serialised.
            summary: What the builder says of it, as JSON values.

        Returns:
            The engine.

        Raises:
            EngineUnavailable: The cache cannot be written.
        """
        path = self.path(key)
        card = {
            "key": key.facts(),
            "sha256": hashlib.sha256(engine).hexdigest(),
            "bytes": len(engine),
            "summary": dict(summary),
        }
        write(path, engine)
        # The card last: an engine without its card is not used.
        write(path.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())
        return engine

    def discard(self, key: EngineKey) -> None:
        """Forget an engine that TensorRT itself would not take."""
        for suffix in (".json", ".engine"):
            self.path(key).with_suffix(suffix).unlink(missing_ok=True)


def write(path: Path, content: bytes) -> None:
    """Put a file in place whole or not at all, also with several processes at it.

    Args:
        path: Where; its folders are made.
        content: What.

    Raises:
        EngineUnavailable: The place cannot be written.
    """
    try:
        # Whoever can write here can have their code run: nobody but the user may.
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(draft, path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise EngineUnavailable(
            NAME,
            f"the cache {path.parent} cannot be written ({error.strerror or error})",
            f"name another directory with the environment variable {ENVIRONMENT}",
        ) from error
