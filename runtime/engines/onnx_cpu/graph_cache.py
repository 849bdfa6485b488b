"""The user's cache of graphs that onnxruntime has optimised for one CPU.

Optimising unpacks the stored weights and lays them out for the CPU's vectors. It takes a quarter of a second
at each start and holds every weight in memory twice; a graph from the cache is mapped into memory instead.

    cache = GraphCache()
    path = cache.find(key) or cache.store(key, optimise)

A graph for another CPU may fail to load or be slow, and a damaged one gives other numbers. Therefore the key,
which contains everything that a graph depends on, and the hashes of the files are stored beside the graph and
compared before use. Without a graph that can be stored and verified, the engine optimises in memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from runtime.engines.cache import cache_folder, exposed_part, make_private

GRAPH_FILE = "graph.onnx"
WEIGHTS_FILE = "weights.bin"
METADATA_FILE = "card.json"

# Version of the rewriting before optimisation and of the session's options. Increase it with every change
# there.
REWRITE_VERSION = 3
# Graphs in the cache, about 100 MB each; those used longest ago are removed.
MAX_GRAPHS = 6
# Smaller graphs are optimised faster than they are looked up.
MIN_BYTES = 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GraphKey:
    """Everything that an optimised graph depends on.

    Args:
        digest: Digest of the bundle.
        part: `backbone` or `head`.
        precision: `fp32` or `int8`.
        library: Version of onnxruntime.
        cpu: Vector instructions of the CPU, from `cpu_name`.
        recipe: `REWRITE_VERSION`.
    """

    digest: str
    part: str
    precision: str
    library: str
    cpu: str
    recipe: int = REWRITE_VERSION

    @property
    def name(self) -> str:
        """Name of the graph's folder."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.part}.{self.precision}.{digest[:16]}"


class GraphCache:
    """Optimised graphs on disk, each in a folder of its own.

    Args:
        root: Folder of the cache; None for `onnxruntime` in `cache_folder()`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = cache_folder() / "onnxruntime" if root is None else root

    def find(self, key: GraphKey) -> Path | None:
        """Return the path of a graph, with its weights beside it; None if there is none that can be trusted.

        Args:
            key: Everything that the graph depends on.
        """
        folder = self.root / key.name
        try:
            if not folder.is_dir():
                return None
            for name in (GRAPH_FILE, WEIGHTS_FILE, METADATA_FILE):
                if exposed := exposed_part(folder / name):
                    _log.warning("%s can be changed by other users, so its graphs are not used", exposed)
                    return None
        except OSError:
            return None
        try:
            metadata = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
            intact = metadata == {"key": asdict(key), "files": _hashes(folder)}
            os.utime(folder)
        except (OSError, ValueError):
            intact = False
        if not intact:
            _log.warning("%s was changed or is incomplete, so it is made again", folder)
            self.discard(key)
            return None
        return folder / GRAPH_FILE

    def store(self, key: GraphKey, optimise: Callable[[Path, str], None]) -> Path | None:
        """Optimise a graph and store it.

        Args:
            key: Everything that the graph depends on.
            optimise: Function that writes the graph to the given path and its weights beside it under the
                given name.

        Returns:
            The path of the graph; None if it cannot be stored.
        """
        folder = self.root / key.name
        try:
            # Whoever can write here could change the results, so only the user may.
            make_private(self.root)
            draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=self.root))
            try:
                optimise(draft / GRAPH_FILE, WEIGHTS_FILE)
                metadata = {"key": asdict(key), "files": _hashes(draft)}
                (draft / METADATA_FILE).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
                # Fails if another process has stored the graph meanwhile.
                draft.replace(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        except OSError as error:
            _log.debug("%s cannot be stored: %s", folder, error)
        else:
            self._prune()
        return self.find(key)

    def discard(self, key: GraphKey) -> None:
        """Remove a graph."""
        shutil.rmtree(self.root / key.name, ignore_errors=True)

    def _prune(self) -> None:
        folders = sorted(
            (folder.stat().st_mtime, folder) for folder in self.root.iterdir() if folder.is_dir()
        )
        # Drafts of killed processes count too; they are never used and become the oldest.
        for _, folder in folders[:-MAX_GRAPHS]:
            shutil.rmtree(folder, ignore_errors=True)


@cache
def cpu_name() -> str:
    """Return the machine's architecture with a hash of the vector instructions that this process may use.

    onnxruntime chooses kernels and the layout of weights by these. They are read from numpy, which queries
    the CPU itself; `/proc/cpuinfo` describes the host even under emulation.
    """
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    words = " ".join(sorted([*simd["baseline"], *simd["found"]]))
    return f"{platform.machine()} {hashlib.sha256(words.encode()).hexdigest()[:16]}"


def _hashes(folder: Path) -> dict[str, str]:
    hashes = {}
    for name in (GRAPH_FILE, WEIGHTS_FILE):
        with (folder / name).open("rb") as file:
            hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
