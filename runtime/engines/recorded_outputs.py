"""Recording of an engine's outputs for saved face crops, to be compared in another process.

    python -m runtime.engines.recorded_outputs CROPS.npz RECORDED.npz --prepared FOLDER --precision fp16

TensorRT 8.6 needs Python 3.10 and cannot share a process with a newer torch. `unmask export --check
--recorded RECORDED.npz` compares its recorded outputs with torch. The program needs numpy, tensorrt and
pycuda only.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from runtime.engines.tensorrt.engine import TensorRTEngine
from runtime.engines.tensorrt.engine_cache import EngineCache
from runtime.engines.tensorrt.onnx_rewrite import PRECISIONS
from runtime.engines.tensorrt.prepared import read_prepared
from runtime.errors import RecordedOutputsInvalid, UnmaskError, os_reason
from runtime.files import atomic_path

if TYPE_CHECKING:
    from runtime.engines.interface import Engine

BATCH = 32
# Errors of numpy about files of other formats, empty ones and damaged ones.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile)


@dataclass(frozen=True)
class RecordedOutputs:
    """Features and logits of one engine for a set of clips.

    Args:
        engine: Description of the engine, from `Engine.describe`.
        precision: `fp32`, `fp16` or `int8`.
        clips_digest: `fingerprint` of the clips.
        bundle_digest: Digest of the model bundle.
        features: float32 `(K, T, D)`.
        logits: float32 logits of every window that starts a clip, in the order of `window_logits`.
    """

    engine: str
    precision: str
    clips_digest: str
    bundle_digest: str
    features: NDArray[np.float32]
    logits: NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write the outputs to an `.npz` file.

        Args:
            path: Path of the file.
        """
        with atomic_path(path) as draft, draft.open("wb") as file:
            np.savez(file, **vars(self))


def load_recorded_outputs(path: Path) -> RecordedOutputs:
    """Read a file that `RecordedOutputs.save` wrote.

    Args:
        path: Path of the `.npz` file.

    Returns:
        The recorded outputs.

    Raises:
        RecordedOutputsInvalid: The file cannot be read or has another format.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            texts = {
                name: str(saved[name]) for name in ("engine", "precision", "clips_digest", "bundle_digest")
            }
            return RecordedOutputs(**texts, features=saved["features"], logits=saved["logits"])
    except _UNREADABLE as error:
        # Only errors of the system are for users: numpy gives advice to programmers.
        cause = f" ({os_reason(error)})" if isinstance(error, OSError) and error.strerror else ""
        raise RecordedOutputsInvalid(path, f"contains no recorded outputs{cause}") from error


def record_outputs(
    engine: Engine, clips: NDArray[np.uint8], *, precision: str, digest: str, min_frames: int
) -> RecordedOutputs:
    """Run an engine over clips and return its outputs.

    Args:
        engine: Open engine.
        clips: uint8 RGB `(K, T, H, W, 3)`.
        precision: Precision that the engine computes in.
        digest: Digest of the model bundle.
        min_frames: Length of the shortest window.

    Returns:
        The outputs.
    """
    crops = clips.reshape(-1, *clips.shape[2:])
    parts = [engine.features(crops[start : start + BATCH]) for start in range(0, len(crops), BATCH)]
    features = np.concatenate(parts).reshape(*clips.shape[:2], -1)
    return RecordedOutputs(
        engine=engine.describe(),
        precision=precision,
        clips_digest=fingerprint(clips),
        bundle_digest=digest,
        features=features,
        logits=window_logits(engine, features, min_frames),
    )


def window_logits(engine: Engine, features: NDArray[np.float32], min_frames: int) -> NDArray[np.float32]:
    """Score the windows at the start of each clip: those of `min_frames` first, then longer ones, up to T.

    Args:
        engine: Open engine.
        features: float32 `(K, T, D)`.
        min_frames: Length of the shortest window.

    Returns:
        float32 `(K * (T - min_frames + 1),)`.
    """
    lengths = range(min_frames, features.shape[1] + 1)
    return np.concatenate([engine.logits(np.ascontiguousarray(features[:, :length])) for length in lengths])


def fingerprint(clips: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of the shape and the pixels of clips, in hexadecimal."""
    content = hashlib.sha256(repr(clips.shape).encode())
    content.update(np.ascontiguousarray(clips).data)
    return content.hexdigest()


def main(arguments: Sequence[str]) -> int:
    """Run the program.

    Args:
        arguments: Command line without the name of the program.

    Returns:
        The exit code: 2 with one line on standard error if the engine cannot run.
    """
    parser = argparse.ArgumentParser(description="Run saved crops through the TensorRT engine.")
    parser.add_argument("crops", type=Path, help="file that `unmask export --check --save-crops` wrote")
    parser.add_argument("recorded", type=Path, help=".npz file to write the outputs to")
    parser.add_argument("--prepared", type=Path, required=True, help="folder of the model in the cache")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp16")
    options = parser.parse_args(arguments)
    try:
        model = read_prepared(options.prepared)
        with options.crops.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            clips = saved["clips"]
        # A prepared folder is `<cache>/tensorrt/<digest>`.
        cache = EngineCache(options.prepared.resolve().parents[1])
        with TensorRTEngine(model, precision=options.precision, cache=cache) as engine:
            record_outputs(
                engine,
                clips,
                precision=options.precision,
                digest=model.digest,
                min_frames=model.min_frames,
            ).save(options.recorded)
    except (UnmaskError, *_UNREADABLE) as error:
        sys.stderr.write(f"unmask: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
