"""Limits of this machine: rate of float32 matrix products, and memory bandwidth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

# (M, K, N): square shapes, large enough to amortise packing and small enough for the caches, and those of the
# 1x1 convolutions of a ResNeXt.
SHAPES = ((512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (784, 256, 512), (3136, 64, 256))
COPY_BYTES = 256 * 2**20
MIN_S = 0.2

Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class MatrixProduct:
    """Matrix product of one library, ready to run.

    Args:
        library: Name of the library.
        shape: `(M, K, N)`.
        run: Runs the product once.
    """

    library: str
    shape: tuple[int, int, int]
    run: Call

    @property
    def flop(self) -> int:
        """Multiplications and additions of one run."""
        m, k, n = self.shape
        return 2 * m * k * n

    @property
    def name(self) -> str:
        """Library and shape as text."""
        return f"{self.library} {'x'.join(map(str, self.shape))}"


def min_call_s(call: Call, *, min_total_s: float = MIN_S) -> float:
    """Return the seconds of the fastest of many calls.

    The fastest call is the one that other load on the machine disturbed least.

    Args:
        call: Callable that has run before.
        min_total_s: Total time to repeat the call for.
    """
    best = float("inf")
    ended = begun = time.perf_counter()
    while ended - begun < min_total_s or best == float("inf"):
        started = time.perf_counter()
        call()
        ended = time.perf_counter()
        best = min(best, ended - started)
    return best


def matrix_products(threads: int) -> Iterator[MatrixProduct]:
    """Yield the float32 matrix products of all shapes, of every library that is installed.

    Args:
        threads: Number of threads, for libraries that have such a setting.
    """
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        m, k, n = shape
        left = rng.standard_normal((m, k), np.float32)
        right = rng.standard_normal((k, n), np.float32)
        yield MatrixProduct(library="numpy", shape=shape, run=_numpy(left, right))
        yield MatrixProduct(library="onnxruntime", shape=shape, run=_onnxruntime(left, right, threads))
        if (run := _torch(left, right, threads)) is not None:
            yield MatrixProduct(library="torch", shape=shape, run=run)


def copy_gb_per_s(threads: int) -> Callable[[], float]:
    """Return a function that measures the rate of copying memory.

    Args:
        threads: Number of threads that copy, each its own part.

    Returns:
        Function that returns 10^9 bytes per second, counting bytes read and written.
    """
    source = np.ones(COPY_BYTES // threads // 8 * threads, np.float64)
    target = np.zeros_like(source)
    parts = list(zip(np.split(source, threads), np.split(target, threads), strict=True))

    def measure() -> float:
        # numpy releases the interpreter lock while it copies.
        with ThreadPoolExecutor(threads) as pool:

            def copy() -> None:
                for future in [pool.submit(np.copyto, copied, original) for original, copied in parts]:
                    future.result()

            copy()
            return 2 * source.nbytes / min_call_s(copy, min_total_s=0.3) / 1e9

    return measure


def _numpy(left: NDArray[np.float32], right: NDArray[np.float32]) -> Call:
    out = np.empty((left.shape[0], right.shape[1]), np.float32)
    return lambda: np.matmul(left, right, out=out)


def _onnxruntime(left: NDArray[np.float32], right: NDArray[np.float32], threads: int) -> Call:
    # The right operand is a constant, like a weight: the library may pack it once, ahead of time.
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["left", "right"], ["out"])],
        "product",
        [helper.make_tensor_value_info("left", TensorProto.FLOAT, left.shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [left.shape[0], right.shape[1]])],
        [helper.make_tensor("right", TensorProto.FLOAT, right.shape, right.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"left": left})


def _torch(left: NDArray[np.float32], right: NDArray[np.float32], threads: int) -> Call | None:
    try:
        import torch
    except ModuleNotFoundError:
        return None
    torch.set_num_threads(threads)
    first, second = torch.from_numpy(left), torch.from_numpy(right)
    out = torch.empty(left.shape[0], right.shape[1])
    return lambda: torch.mm(first, second, out=out)
