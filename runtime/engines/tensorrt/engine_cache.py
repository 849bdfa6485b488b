"""The user's cache of TensorRT engines, keyed by everything that an engine depends on.

    cache = EngineCache()
    engine = cache.load(key) or cache.store(key, build(...).engine, summary={})

An engine file is machine code. An engine from another model, GPU or TensorRT version may load and compute
wrong numbers. The key therefore contains all of these; its hash is in the file name, and the whole key and
the file's SHA-256 are stored next to the engine and checked before it is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.engines.cache import CACHE_VARIABLE, cache_folder, exposed_part, make_private
from runtime.engines.tensorrt.driver import NAME
from runtime.engines.tensorrt.onnx_rewrite import REWRITE_VERSION
from runtime.errors import EngineUnavailable, os_reason
from runtime.files import atomic_path

# Version of the build options. Increase it with every change that builds another engine from the same graph.
BUILD_VERSION = 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineKey:
    """Everything that an engine depends on.

    Args:
        digest: Digest of the bundle.
        part: `backbone` or `head`.
        precision: `fp16` or `fp32`.
        library: TensorRT's name and version.
        target: The GPU, or the set of GPUs, that the engine is built for.
        shapes: Smallest, optimal and largest input shape.
        rewrite_version: Version of the rewritten ONNX graphs.
        build_version: Version of the build options.
    """

    digest: str
    part: str
    precision: str
    library: str
    target: str
    shapes: tuple[tuple[int, ...], ...]
    rewrite_version: int = REWRITE_VERSION
    build_version: int = BUILD_VERSION

    @property
    def stem(self) -> str:
        """File name without suffix."""
        digest = hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()
        return f"{self.part}.{self.precision}.{digest[:16]}"

    def as_json(self) -> dict[str, Any]:
        """Return the key as JSON values."""
        return {**asdict(self), "shapes": [list(shape) for shape in self.shapes]}


class EngineCache:
    """Engines on disk, each with a JSON file of metadata.

    Args:
        root: The cache directory; None for `cache_folder()`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = cache_folder() if root is None else root

    def folder(self, digest: str) -> Path:
        """Return the folder of one bundle's engines and prepared graphs."""
        return self.root / "tensorrt" / digest[:16]

    def path(self, key: EngineKey) -> Path:
        """Return the path of an engine, whether it exists or not."""
        return self.folder(key.digest) / f"{key.stem}.engine"

    def load(self, key: EngineKey) -> bytes | None:
        """Read an engine if it exists, is intact and was built for exactly this key.

        Args:
            key: The required key.

        Returns:
            The serialized engine; None if it has to be built, with the reason in the log.

        Raises:
            EngineUnavailable: Another user can write to the cache.
        """
        path = self.path(key)
        try:
            metadata = json.loads(read(path.with_suffix(".json")))
            content = read(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("%s cannot be read (%s): building it again", path.name, error)
            return None
        if not isinstance(metadata, dict) or metadata.get("key") != key.as_json():
            _log.warning("%s was built for another key: building it again", path.name)
            return None
        if metadata.get("sha256") != hashlib.sha256(content).hexdigest():
            _log.warning("%s was changed or truncated: building it again", path.name)
            return None
        return content

    def store(self, key: EngineKey, engine: bytes, summary: Mapping[str, Any]) -> bytes:
        """Store an engine.

        Args:
            key: The engine's key.
            engine: Serialized engine.
            summary: Information from the builder, as JSON values.

        Returns:
            The engine.

        Raises:
            EngineUnavailable: The cache cannot be written.
        """
        path = self.path(key)
        metadata = {
            "key": key.as_json(),
            "sha256": hashlib.sha256(engine).hexdigest(),
            "bytes": len(engine),
            "summary": dict(summary),
        }
        write(path, engine)
        # The metadata last: an engine without it is not used.
        write(path.with_suffix(".json"), (json.dumps(metadata, indent=2) + "\n").encode())
        return engine


def read(path: Path) -> bytes:
    """Read a file of the cache if only this user can write it, because it is or becomes machine code.

    Raises:
        EngineUnavailable: Another user can write to the file or a folder above it.
        OSError: The file cannot be read.
    """
    _refuse_exposed(path)
    return path.read_bytes()


def write(path: Path, content: bytes) -> None:
    """Write a file of the cache atomically, safe with several writing processes; create its folders.

    Raises:
        EngineUnavailable: The file cannot be written, or another user can write to a folder above it.
    """
    _refuse_exposed(path.parent)
    try:
        make_private(path.parent)
        with atomic_path(path) as draft:
            draft.write_bytes(content)
            draft.chmod(0o600)
    except OSError as error:
        raise EngineUnavailable(
            NAME,
            f"the cache {path.parent} cannot be written ({os_reason(error)})",
            f"set another directory with the environment variable {CACHE_VARIABLE}",
        ) from error


def _refuse_exposed(path: Path) -> None:
    if exposed := exposed_part(path):
        raise EngineUnavailable(
            NAME,
            f"{exposed} belongs to another user or can be written by others, so it is not trusted",
            f"run `chmod go-w` on it, or set another directory with the variable {CACHE_VARIABLE}",
        )
