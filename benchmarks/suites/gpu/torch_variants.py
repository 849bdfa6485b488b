"""The torch side of `unmask bench gpu`: the obvious alternatives, and what the GPU can do at best.

Every alternative gets what the engine gets: uint8 crops on the host, page-locked staging, a stream of its
own, and is done when float32 features are on the host. Batch normalisation is fold_for_inference in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.suites.gpu.tensorrt_worker import call_ms

GEMM_SIDE = 8192
COPY_BYTES = 1 << 30
HOST_BYTES = 1 << 28

Call = Callable[[], object]


@dataclass(frozen=True)
class TorchVariant:
    """Names one way to run the backbone in torch.

    Args:
        name: For people.
        dtype: What it computes in.
        how: `eager`, `compile` or `graph`.
        limit: The name of the matrix rate that bounds it.
    """

    name: str
    dtype: torch.dtype
    how: str
    limit: str


VARIANTS = (
    TorchVariant("torch eager float32", torch.float32, "eager", "float32"),
    TorchVariant("torch eager float16 channels_last", torch.float16, "eager", "float16"),
    TorchVariant("torch eager bfloat16 channels_last", torch.bfloat16, "eager", "bfloat16"),
    TorchVariant("torch CUDA graph float32", torch.float32, "graph", "float32"),
    TorchVariant("torch CUDA graph float16 channels_last", torch.float16, "graph", "float16"),
    TorchVariant("torch.compile max-autotune float32", torch.float32, "compile", "float32"),
    TorchVariant("torch.compile max-autotune float16 channels_last", torch.float16, "compile", "float16"),
)


class TypedBackbone(nn.Module):
    """Runs the trunk in another type: normalised in float32, features in float32, as the engines do.

    Args:
        backbone: A `train.models.detector.Backbone`, fold_for_inference; it is changed.
        dtype: What the trunk computes in.
    """

    def __init__(self, backbone: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.backbone = backbone
        self.dtype = dtype
        self.layout = torch.contiguous_format if dtype == torch.float32 else torch.channels_last
        trunk: nn.Module = backbone.trunk  # type: ignore[assignment]
        trunk.to(dtype=dtype, memory_format=self.layout)  # type: ignore[call-overload]

    def forward(self, crops: Tensor) -> Tensor:
        """Turn crops uint8 (N, H, W, 3) into features float32 (N, D)."""
        normalised: Tensor = self.backbone.normalised(crops)  # type: ignore[operator]
        pixels = normalised.to(dtype=self.dtype, memory_format=self.layout)
        features: Tensor = self.backbone.trunk(pixels)  # type: ignore[operator]
        return features.float()


def backbone_call(network: nn.Module, how: str, batch: int, size: int, dim: int) -> Call:
    """Make a call from crops on the host to features on the host.

    Args:
        network: On the GPU, in evaluation mode.
        how: `eager`, `compile` or `graph`.
        batch: N.
        size: H and W.
        dim: D.

    Returns:
        The call, warmed up; compiling and capturing are done.
    """
    rng = np.random.default_rng(0)
    crops = torch.from_numpy(rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8))
    staged_in = torch.empty_like(crops).pin_memory()
    staged_out = torch.empty(batch, dim).pin_memory()
    on_device = torch.zeros_like(crops, device="cuda")
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    run: Callable[[Tensor], Tensor] = network
    if how == "compile":
        # Each size is its own program; a few kept ones would be taken for too many of one.
        torch.compiler.reset()
        run = torch.compile(network, mode="max-autotune", dynamic=False)
    graph: torch.cuda.CUDAGraph | None = None
    captured: Tensor | None = None
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(3):
            run(on_device)
        stream.synchronize()
        if how == "graph":
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                captured = run(on_device)

    def call() -> object:
        with torch.inference_mode(), torch.cuda.stream(stream):
            staged_in.copy_(crops)
            on_device.copy_(staged_in, non_blocking=True)
            if graph is None or captured is None:
                # Not kept: what torch.compile replays writes its next answer over it.
                staged_out.copy_(run(on_device), non_blocking=True)
            else:
                graph.replay()
                staged_out.copy_(captured, non_blocking=True)
            stream.synchronize()
            return staged_out.numpy().copy()

    return call


def head_call(head: nn.Module, batch: int, window: int, dim: int) -> Call:
    """Make a call from windows on the host to logits on the host, float32, through cuDNN's LSTM.

    Args:
        head: On the GPU, in evaluation mode.
        batch: N.
        window: T.
        dim: D.

    Returns:
        The call.
    """
    windows = torch.rand(batch, window, dim).pin_memory()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def call() -> object:
        with torch.inference_mode(), torch.cuda.stream(stream):
            logits: Tensor = head(windows.to("cuda", non_blocking=True)).to("cpu")
            return logits.numpy()

    return call


def fair_settings() -> None:
    """Have torch look for the fastest convolutions, and compute float32 as such, not in ten bits."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def gemm_rates(side: int = GEMM_SIDE) -> Iterator[tuple[str, list[float]]]:
    """Measure how fast the GPU multiplies large matrices, on random data.

    Args:
        side: Of the square matrices.

    Returns:
        By the type's name, 10^12 multiplications and additions a second in each of several runs.
    """
    for name, dtype in (
        ("float32", torch.float32),
        ("float16", torch.float16),
        ("bfloat16", torch.bfloat16),
    ):
        yield name, [2 * side**3 / s / 1e12 for s in _device_s(_product(side, dtype))]


def copy_rates() -> Iterator[tuple[str, list[float]]]:
    """Measure how fast memory is copied on the GPU, and to it from page-locked memory.

    Returns:
        By name, 10^9 bytes a second; on the GPU bytes read and written count.
    """
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    yield "device", [2 * COPY_BYTES / s / 1e9 for s in _device_s(lambda: target.copy_(source))]
    host = torch.empty(HOST_BYTES, dtype=torch.uint8).pin_memory()
    part = target[:HOST_BYTES]
    yield "upload", [HOST_BYTES / s / 1e9 for s in _device_s(lambda: part.copy_(host, non_blocking=True))]


def time_variant(
    variant: TorchVariant, network: nn.Module, batches: list[int], size: int, dim: int, seconds: float
) -> dict[int, list[float]]:
    """Time one alternative.

    Args:
        variant: Which.
        network: As `backbone_call` takes it.
        batches: Sizes of the batch.
        size: H and W.
        dim: D.
        seconds: For each size.

    Returns:
        Milliseconds of each call, by batch size.
    """
    return {
        batch: call_ms(backbone_call(network, variant.how, batch, size, dim), seconds) for batch in batches
    }


def _product(side: int, dtype: torch.dtype) -> Call:
    left, right = (torch.randn(side, side, device="cuda", dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=out)


def _device_s(work: Call, runs: int = 10) -> list[float]:
    """Time work on the GPU's own clock, after three runs to warm up."""
    for _ in range(3):
        work()
    spent = []
    for _ in range(runs):
        begun = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        ended = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        begun.record()
        work()
        ended.record()
        ended.synchronize()
        spent.append(begun.elapsed_time(ended) / 1e3)
    return spent
