"""TensorRT part of `unmask bench gpu`, in a process of its own: outputs and timings of one precision.

    python -m benchmarks.suites.gpu.tensorrt_worker --prepared DIR --precision fp16 --crops IN \
        --recorded OUT --json TIMES

It may run in another interpreter than the benchmark, as TensorRT 8.6 needs Python 3.10. Like the engine, it
imports only numpy, tensorrt and pycuda.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from runtime.engines.recorded_outputs import record_outputs
from runtime.engines.tensorrt.engine import TensorRTEngine
from runtime.engines.tensorrt.engine_cache import EngineCache
from runtime.engines.tensorrt.onnx_rewrite import PRECISIONS
from runtime.engines.tensorrt.prepared import PreparedModel, read_prepared
from runtime.errors import UnmaskError
from runtime.files import write_atomically

# During the warm-up kernels are loaded, clocks rise, and CUDA graphs are captured.
WARMUP_CALLS = 10
MIN_CALLS = 20


def call_ms(call: Callable[[], object], seconds: float) -> list[float]:
    """Time a call repeatedly.

    Args:
        call: Returns when its result is on the host.
        seconds: Time to repeat it for, after the warm-up.

    Returns:
        Milliseconds of each call, at least `MIN_CALLS`.
    """
    for _ in range(WARMUP_CALLS):
        call()
    spent: list[float] = []
    ended = begun = time.perf_counter()
    while ended - begun < seconds or len(spent) < MIN_CALLS:
        started = time.perf_counter()
        call()
        ended = time.perf_counter()
        spent.append(1e3 * (ended - started))
    return spent


def time_engine(
    engine: TensorRTEngine, model: PreparedModel, batches: Sequence[int], seconds: float
) -> dict[str, dict[str, list[float]]]:
    """Time both networks, from crops or windows on the host to outputs on the host.

    Args:
        engine: Open engine.
        model: Its model.
        batches: Batch sizes.
        seconds: Time for each measurement.

    Returns:
        `backbone` and `head`, each with milliseconds by batch size.
    """
    rng = np.random.default_rng(0)
    size = model.input_size
    spent: dict[str, dict[str, list[float]]] = {"backbone": {}, "head": {}}
    for batch in batches:
        crops = rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
        windows = rng.random((batch, model.window, model.feature_dim), dtype=np.float32)
        spent["backbone"][str(batch)] = call_ms(partial(engine.features, crops), seconds)
        spent["head"][str(batch)] = call_ms(partial(engine.logits, windows), seconds)
    return spent


def main(arguments: Sequence[str]) -> int:
    """Run the program.

    Args:
        arguments: Command line without the name of the program.

    Returns:
        The exit code: 2 with a line on standard error if it cannot run.
    """
    parser = argparse.ArgumentParser(description="Time the TensorRT engine and save its outputs.")
    parser.add_argument("--prepared", type=Path, required=True, help="folder of the model in the cache")
    parser.add_argument("--precision", choices=PRECISIONS, required=True)
    parser.add_argument("--crops", type=Path, required=True, help="file with the clips")
    parser.add_argument("--recorded", type=Path, required=True, help=".npz file to write the outputs to")
    parser.add_argument("--json", type=Path, required=True, help="file to write the timings to")
    parser.add_argument("--batches", default="1,8,32,64")
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args(arguments)
    try:
        batches = [int(batch) for batch in options.batches.split(",")]
        model = read_prepared(options.prepared)
        with np.load(options.crops, allow_pickle=False) as saved:
            clips = saved["clips"]
        cache = EngineCache(options.prepared.resolve().parents[1])
        record: dict[str, Any] = {"python": platform.python_version()}
        for graphs in (True, False):
            engine = TensorRTEngine(model, precision=options.precision, cache=cache, cuda_graphs=graphs)
            started = time.monotonic()
            with engine:
                if graphs:
                    # Opening for the first time builds the engine.
                    record["open_s"] = round(time.monotonic() - started, 2)
                    record_outputs(
                        engine,
                        clips,
                        precision=options.precision,
                        digest=model.digest,
                        min_frames=model.min_frames,
                    ).save(options.recorded)
                spent = time_engine(engine, model, batches, options.seconds)
                record["ms" if graphs else "ms_without_graphs"] = spent
                if graphs:
                    record["engine"] = engine.describe()
                    record["inspected"] = engine.inspect()
        write_atomically(options.json, json.dumps(record) + "\n")
    except (UnmaskError, OSError, ValueError, KeyError) as error:
        sys.stderr.write(f"unmask: {' '.join(str(error).split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
