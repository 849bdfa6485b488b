"""Limits of this machine: rates of matrix products in float32 and int8, and memory bandwidth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from runtime.engines.cpu import usable_cores

# (M, K, N): square shapes, large enough to amortise packing and small enough for the caches, and those of the
# 1x1 convolutions of a ResNeXt.
SHAPES = ((512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (784, 256, 512), (3136, 64, 256))
COPY_BYTES = 256 * 2**20
MIN_S = 0.2

Call = Callable[[], object]
Arithmetic = Literal["float32", "int8"]
VALUE_BYTES: dict[Arithmetic, int] = {"float32": 4, "int8": 1}


@dataclass(frozen=True, kw_only=True)
class MatrixProduct:
    """Matrix product of one library, ready to run.

    Args:
        library: Name of the library.
        shape: `(M, K, N)`.
        run: Runs the product once.
        arithmetic: Type of the values that are multiplied; the sums of int8 products are int32.
    """

    library: str
    shape: tuple[int, int, int]
    run: Call
    arithmetic: Arithmetic = "float32"

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


def matrix_products(threads: int, arithmetic: Arithmetic = "float32") -> Iterator[MatrixProduct]:
    """Yield the matrix products of all shapes, of every library that is installed.

    The libraries choose the instructions: AMX, VNNI or, in int8 without either, 16-bit sums.

    Args:
        threads: Number of threads. numpy has no such setting and is left out if it would use more.
        arithmetic: Type of the values. int8 is the product of engines: unsigned by signed, sums in int32.
    """
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        m, k, n = shape
        if arithmetic == "int8":
            left, right = rng.integers(0, 128, (m, k), np.uint8), rng.integers(-64, 64, (k, n), np.int8)
            calls = {
                "onnxruntime": _onnxruntime(left, right, threads),
                "torch": _torch(left.astype(np.int8), right, threads),
            }
        else:
            left, right = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
            calls = {
                "numpy": _numpy(left, right) if threads == usable_cores() else None,
                "onnxruntime": _onnxruntime(left, right, threads),
                "torch": _torch(left, right, threads),
            }
        for library, call in calls.items():
            if call is not None:
                yield MatrixProduct(library=library, shape=shape, run=call, arithmetic=arithmetic)


def fastest_matrix_product(candidates: Iterable[MatrixProduct]) -> MatrixProduct:
    """Run the candidates twice and return the fastest.

    Args:
        candidates: At least one. After a library has been ten times slower than the best, its other shapes
            are left out: it has no fast kernel on this CPU.

    Raises:
        ValueError: There is no candidate.
    """
    best: MatrixProduct | None = None
    best_rate = 0.0
    slow: set[str] = set()
    for product in candidates:
        if product.library in slow:
            continue
        product.run()
        rate = max(product.flop / min_call_s(product.run) for _ in range(2))
        if rate > best_rate:
            best, best_rate = product, rate
        elif rate < best_rate / 10:
            slow.add(product.library)
    if best is None:
        raise ValueError("there is no matrix product to run")
    return best


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


def _onnxruntime(left: NDArray[Any], right: NDArray[Any], threads: int) -> Call:
    # The right operand is a constant, like a weight: the library may pack it once, ahead of time.
    multiply, out = ("MatMul", TensorProto.FLOAT)
    if right.dtype == np.int8:
        multiply, out = ("MatMulInteger", TensorProto.INT32)
    left_type, right_type = map(helper.np_dtype_to_tensor_dtype, (left.dtype, right.dtype))
    graph = helper.make_graph(
        [helper.make_node(multiply, ["left", "right"], ["out"])],
        "product",
        [helper.make_tensor_value_info("left", left_type, left.shape)],
        [helper.make_tensor_value_info("out", out, [left.shape[0], right.shape[1]])],
        [helper.make_tensor("right", right_type, right.shape, right.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"left": left})


def _torch(left: NDArray[Any], right: NDArray[Any], threads: int) -> Call | None:
    try:
        import torch
    except ModuleNotFoundError:
        return None
    torch.set_num_threads(threads)
    first, second = torch.from_numpy(left), torch.from_numpy(right)
    if right.dtype == np.int8:
        # The public operators round the sums to 8 bits; this one, of torchao, returns them.
        if not hasattr(torch, "_int_mm"):
            return None
        return lambda: torch._int_mm(first, second)
    out = torch.empty(left.shape[0], right.shape[1])
    return lambda: torch.mm(first, second, out=out)
