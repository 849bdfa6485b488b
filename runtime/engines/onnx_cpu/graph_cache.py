"""The user's cache of graphs as onnxruntime has optimised them for one CPU.

Optimising unpacks the stored weights and lays them out for the CPU's vectors: a quarter of a second at each
start, and every weight twice in memory. Kept on disk, the result is only mapped into memory.

    graphs = OptimisedGraphs()
    path = graphs.find(key) or graphs.keep(key, optimise)

A graph for another CPU may not load or, worse, be slow, and a damaged one gives other numbers. So all that
it depends on is in its key, and the key and the files' hashes stand beside it and are compared before it is
used. What cannot be kept or trusted is not used: the cache only ever saves time and memory.
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

from runtime.engines.cache import cache_folder, is_private

GRAPH = "graph.onnx"
WEIGHTS = "weights.bin"
CARD = "card.json"

# Of how graphs are rewritten before onnxruntime sees them, and of its settings.
RECIPE = 1
# Each is a hundred megabytes: those of the models used last stay.
MOST_KEPT = 6
# Smaller weights are optimised in no time.
LEAST_BYTES = 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GraphKey:
    """States all that an optimised graph depends on.

    Args:
        digest: Of the bundle.
        part: `backbone` or `head`.
        precision: `fp32` or `int8`.
        library: onnxruntime's version.
        cpu: What kernels the CPU can run.
        recipe: Version of the optimisation.
    """

    digest: str
    part: str
    precision: str
    library: str
    cpu: str
    recipe: int = RECIPE

    @property
    def name(self) -> str:
        """The name of its folder."""
        whole = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.part}.{self.precision}.{whole[:16]}"


class OptimisedGraphs:
    """Keeps optimised graphs on disk, each in a folder of its own.

    Args:
        root: Where; None for `onnxruntime` in `cache_folder()`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = cache_folder() / "onnxruntime" if root is None else root

    def find(self, key: GraphKey) -> Path | None:
        """Look for a graph.

        Args:
            key: What is needed.

        Returns:
            The graph's file, its weights beside it; None if it is not there, not whole, or not ours to trust.
        """
        folder = self.root / key.name
        try:
            if not (is_private(self.root) and is_private(folder)):
                _log.warning("%s can be written by others, so it is not used", folder)
                return None
        except OSError:
            return None
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            whole = card == {"key": asdict(key), "files": _hashes(folder)}
            os.utime(folder)
        except (OSError, ValueError):
            whole = False
        if not whole:
            _log.warning("%s was changed or cut short: making it again", folder)
            self.discard(key)
            return None
        return folder / GRAPH

    def keep(self, key: GraphKey, optimise: Callable[[Path, str], None]) -> Path | None:
        """Make a graph and keep it.

        Args:
            key: What it depends on.
            optimise: Writes the graph to the given path, and its weights beside it under the given name.

        Returns:
            The graph's file; None if it cannot be kept here.
        """
        folder = self.root / key.name
        try:
            # Whoever can write here decides what is computed: nobody but the user may.
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=self.root))
            try:
                optimise(draft / GRAPH, WEIGHTS)
                card = {"key": asdict(key), "files": _hashes(draft)}
                (draft / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
                # In one step, or not at all if another process was faster.
                draft.replace(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        except OSError as error:
            _log.debug("%s cannot be kept: %s", folder, error)
        else:
            self._prune()
        return self.find(key)

    def discard(self, key: GraphKey) -> None:
        """Forget a graph."""
        shutil.rmtree(self.root / key.name, ignore_errors=True)

    def _prune(self) -> None:
        folders = sorted(
            (folder.stat().st_mtime, folder) for folder in self.root.iterdir() if folder.is_dir()
        )
        # What a process that was killed left half made counts too, and is not renewed by use.
        for _, folder in folders[:-MOST_KEPT]:
            shutil.rmtree(folder, ignore_errors=True)


@cache
def cpu_name() -> str:
    """Return the machine's architecture with a hash of the vector instructions that this process may use.

    onnxruntime chooses its kernels and the layout of weights by those. They are numpy's view, which asks the
    CPU itself; `/proc/cpuinfo` describes the host even under emulation.
    """
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    words = " ".join(sorted([*simd["baseline"], *simd["found"]]))
    return f"{platform.machine()} {hashlib.sha256(words.encode()).hexdigest()[:16]}"


def _hashes(folder: Path) -> dict[str, str]:
    hashes = {}
    for name in (GRAPH, WEIGHTS):
        with (folder / name).open("rb") as file:
            hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
