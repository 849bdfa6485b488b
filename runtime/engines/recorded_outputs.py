"""Runs one engine over saved crops and saves what it answers, for a comparison in another process.

    python -m runtime.engines.recorded_outputs SAMPLES.npz ANSWERS.npz --prepared FOLDER --precision fp16

TensorRT 8.6 needs Python 3.10 and cannot share a process with a newer torch. Its answers are compared by
`unmask export --check --answers`. Where only this runs, numpy, tensorrt and pycuda are installed, no more.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtime.engines.tensorrt.driver import NAME
from runtime.engines.tensorrt.engine import TensorRTEngine
from runtime.engines.tensorrt.engine_cache import EngineCache
from runtime.engines.tensorrt.onnx_rewrite import PRECISIONS
from runtime.engines.tensorrt.prepared import read_prepared
from runtime.errors import EngineUnavailable, UnmaskError

if TYPE_CHECKING:
    from runtime.engines.interface import Engine

CROPS_AT_ONCE = 32


@dataclass(frozen=True)
class RecordedOutputs:
    """Holds what one engine made of some clips.

    Args:
        engine: Its own description.
        precision: `fp32`, `fp16` or `int8`.
        samples: Fingerprint of the clips.
        digest: Of the model.
        features: float32 `(K, T, D)`.
        logits: float32, of every window that begins a clip, as `window_logits` orders them.
    """

    engine: str
    precision: str
    samples: str
    digest: str
    features: NDArray[np.float32]
    logits: NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write them.

        Args:
            path: Of the `.npz` file.
        """
        with path.open("wb") as file:
            np.savez(file, **vars(self))


def load_recorded_outputs(path: Path) -> RecordedOutputs:
    """Read what `RecordedOutputs.save` wrote.

    Args:
        path: Of the `.npz` file.

    Returns:
        The answers.

    Raises:
        EngineUnavailable: The file is not one of these.
    """
    try:
        with np.load(path, allow_pickle=False) as saved:
            words = {name: str(saved[name]) for name in ("engine", "precision", "samples", "digest")}
            return RecordedOutputs(**words, features=saved["features"], logits=saved["logits"])
    except (OSError, ValueError, KeyError) as error:
        raise EngineUnavailable(
            NAME,
            f"{path} holds no answers ({error})",
            "make it with `python -m runtime.engines.recorded_outputs`",
        ) from error


def record_outputs(
    engine: Engine, clips: NDArray[np.uint8], *, precision: str, digest: str, min_frames: int
) -> RecordedOutputs:
    """Run an engine over clips.

    Args:
        engine: Open.
        clips: uint8 RGB `(K, T, H, W, 3)`.
        precision: What the engine computes in.
        digest: Of the model.
        min_frames: The shortest window.

    Returns:
        Its answers.
    """
    crops = clips.reshape(-1, *clips.shape[2:])
    parts = [
        engine.features(crops[start : start + CROPS_AT_ONCE]) for start in range(0, len(crops), CROPS_AT_ONCE)
    ]
    features = np.concatenate(parts).reshape(*clips.shape[:2], -1)
    return RecordedOutputs(
        engine=engine.describe(),
        precision=precision,
        samples=fingerprint(clips),
        digest=digest,
        features=features,
        logits=window_logits(engine, features, min_frames),
    )


def window_logits(engine: Engine, features: NDArray[np.float32], min_frames: int) -> NDArray[np.float32]:
    """Judge every window that begins a clip: all clips at `min_frames`, then at one more, up to all.

    Args:
        engine: Open.
        features: float32 `(K, T, D)`.
        min_frames: The shortest window.

    Returns:
        float32 `(K * (T - min_frames + 1),)`.
    """
    lengths = range(min_frames, features.shape[1] + 1)
    return np.concatenate([engine.logits(np.ascontiguousarray(features[:, :length])) for length in lengths])


def fingerprint(clips: NDArray[np.uint8]) -> str:
    """Tell clips from others: SHA-256 of shape and pixels, in hexadecimal."""
    content = hashlib.sha256(repr(clips.shape).encode())
    content.update(np.ascontiguousarray(clips).data)
    return content.hexdigest()


def main(arguments: Sequence[str]) -> int:
    """Run the program.

    Args:
        arguments: Without the program's name.

    Returns:
        The exit code: 2 with a line on standard error if it cannot run.
    """
    parser = argparse.ArgumentParser(description="Run saved crops through the TensorRT engine.")
    parser.add_argument("samples", type=Path, help="what `unmask export --check --save` wrote")
    parser.add_argument("answers", type=Path, help="the .npz file to write")
    parser.add_argument("--prepared", type=Path, required=True, help="a model's folder in the cache")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp16")
    options = parser.parse_args(arguments)
    try:
        model = read_prepared(options.prepared)
        with np.load(options.samples, allow_pickle=False) as saved:
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
            ).save(options.answers)
    except (UnmaskError, OSError, ValueError, KeyError) as error:
        sys.stderr.write(f"unmask: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
