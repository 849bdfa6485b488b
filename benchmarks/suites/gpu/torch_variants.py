"""PyTorch part of `unmask bench gpu`: the alternatives to TensorRT, and the limits of the GPU.

All alternatives run under the same conditions as the engine: uint8 crops on the host, page-locked staging, a
stream of its own, and float32 features on the host at the end. Batch normalisation is folded in all of them.
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
    """One way to run the backbone in torch.

    Args:
        name: Name for the table.
        dtype: Type of the computation.
        mode: `eager`, `compile` or `graph`.
        limit: Type whose matrix rate bounds it.
    """

    name: str
    dtype: torch.dtype
    mode: str
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
    """Backbone that computes in another type, with normalisation and features in float32, like the engines.

    Args:
        backbone: A folded `train.models.detector.Backbone`; it is changed.
        dtype: Type of the convolutions.
    """

    def __init__(self, backbone: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.backbone = backbone
        self.dtype = dtype
        self.layout = torch.contiguous_format if dtype == torch.float32 else torch.channels_last
        trunk: nn.Module = backbone.trunk  # type: ignore[assignment]
        trunk.to(dtype=dtype, memory_format=self.layout)  # type: ignore[call-overload]

    def forward(self, crops: Tensor) -> Tensor:
        """Return the features float32 `(N, D)` of crops uint8 `(N, H, W, 3)`."""
        normalised: Tensor = self.backbone.normalised(crops)  # type: ignore[operator]
        pixels = normalised.to(dtype=self.dtype, memory_format=self.layout)
        features: Tensor = self.backbone.trunk(pixels)  # type: ignore[operator]
        return features.float()


def backbone_call(network: nn.Module, mode: str, batch: int, size: int, dim: int) -> Call:
    """Return a call from crops on the host to features on the host.

    Args:
        network: Network on the GPU, in evaluation mode.
        mode: `eager`, `compile` or `graph`.
        batch: N.
        size: H and W.
        dim: D.

    Returns:
        The call, after compiling, capturing and warm-up.
    """
    rng = np.random.default_rng(0)
    crops = torch.from_numpy(rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8))
    staged_in = torch.empty_like(crops).pin_memory()
    staged_out = torch.empty(batch, dim).pin_memory()
    on_device = torch.zeros_like(crops, device="cuda")
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    run: Callable[[Tensor], Tensor] = network
    if mode == "compile":
        # Each size is compiled on its own; earlier programs would count towards the recompilation limit.
        torch.compiler.reset()
        run = torch.compile(network, mode="max-autotune", dynamic=False)
    graph: torch.cuda.CUDAGraph | None = None
    captured: Tensor | None = None
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(3):
            run(on_device)
        stream.synchronize()
        if mode == "graph":
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                captured = run(on_device)

    def call() -> object:
        with torch.inference_mode(), torch.cuda.stream(stream):
            staged_in.copy_(crops)
            on_device.copy_(staged_in, non_blocking=True)
            if graph is None or captured is None:
                # Copied immediately: the next call of torch.compile overwrites this output.
                staged_out.copy_(run(on_device), non_blocking=True)
            else:
                graph.replay()
                staged_out.copy_(captured, non_blocking=True)
            stream.synchronize()
            return staged_out.numpy().copy()

    return call


def head_call(head: nn.Module, batch: int, window: int, dim: int) -> Call:
    """Return a call from windows on the host to logits on the host, float32, through cuDNN's LSTM.

    Args:
        head: Head on the GPU, in evaluation mode.
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
    """Enable the search for the fastest convolutions, and disable TF32 for float32."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def gemm_rates(side: int = GEMM_SIDE) -> Iterator[tuple[str, list[float]]]:
    """Measure the rate of products of large random matrices.

    Args:
        side: Side of the square matrices.

    Yields:
        Name of the type, and 10^12 multiplications and additions per second in each of several runs.
    """
    for name, dtype in (
        ("float32", torch.float32),
        ("float16", torch.float16),
        ("bfloat16", torch.bfloat16),
    ):
        yield name, [2 * side**3 / s / 1e12 for s in _device_s(_product(side, dtype))]


def copy_rates() -> Iterator[tuple[str, list[float]]]:
    """Measure the rate of copies on the GPU, and from page-locked memory to it.

    Yields:
        Name, and 10^9 bytes per second; on the GPU, bytes read and written count.
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
        variant: The alternative.
        network: See `backbone_call`.
        batches: Batch sizes.
        size: H and W.
        dim: D.
        seconds: Time for each size.

    Returns:
        Milliseconds of each call, by batch size.
    """
    return {
        batch: call_ms(backbone_call(network, variant.mode, batch, size, dim), seconds) for batch in batches
    }


def _product(side: int, dtype: torch.dtype) -> Call:
    left, right = (torch.randn(side, side, device="cuda", dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=out)


def _device_s(operation: Call, runs: int = 10) -> list[float]:
    """Time an operation with events of the GPU, after three runs to warm up."""
    for _ in range(3):
        operation()
    spent = []
    for _ in range(runs):
        begun = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        ended = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        begun.record()
        operation()
        ended.record()
        ended.synchronize()
        spent.append(begun.elapsed_time(ended) / 1e3)
    return spent
