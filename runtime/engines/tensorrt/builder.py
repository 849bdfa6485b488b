"""Builds TensorRT engines: one path for TensorRT 8.6, 10, 11 and the one for RTX cards.

    engines = load_or_build_engines(bundle, precision="fp16")       # from the cache, or built and kept

What a version has is asked of its module, never of its number. Precision lies in the graph (`onnx_rewrite.py`):
networks are strongly typed where TensorRT knows that; TensorRT 8.6 does not, and is allowed float16 instead.

Building on the GPU that will run the engine takes a minute or more, once. TensorRT for RTX cards builds in
seconds and without a GPU, as it finishes the work on the card.

Source:
    NVIDIA TensorRT developer guide, "Python API", "Dynamic shapes", "Timing cache"; TensorRT-RTX
    documentation, "CPU-Only AOT", and its release notes on the timing cache, which would ask for a GPU and
    change nothing.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.engines.interface import Model
from runtime.engines.tensorrt.driver import ADVICE, NAME, Gpu, probe
from runtime.engines.tensorrt.engine_cache import EngineCache, EngineKey, write
from runtime.engines.tensorrt.library import is_rtx, library_name, load_tensorrt, start, tensorrt_log
from runtime.engines.tensorrt.onnx_rewrite import Precision
from runtime.engines.tensorrt.prepared import PARTS, prepared_graph
from runtime.errors import DeviceMemoryFull, EngineUnavailable

MAX_BATCH = 64
# What kernels are chosen for: between a lone face and a full house.
OPT_BATCH = 8
# What a kernel may take for its own use. The networks need little; the rest of the GPU is the user's.
WORKSPACE_BYTES = 1 << 30

Shape = tuple[int, ...]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OptimizationProfile:
    """States the shapes of an engine's one input.

    Args:
        smallest: The least of every axis.
        best: What kernels are chosen for.
        largest: The most of every axis.
    """

    smallest: Shape
    best: Shape
    largest: Shape


@dataclass(frozen=True)
class BuildResult:
    """Is an engine as it comes from the builder.

    Args:
        engine: Serialised.
        seconds: How long it took.
        summary: What was built, as JSON values.
    """

    engine: bytes
    seconds: float
    summary: Mapping[str, Any] = field(default_factory=dict)


def input_profile(model: Model, part: str, *, most_batch: int = MAX_BATCH) -> OptimizationProfile:
    """Say which shapes an engine has to serve.

    Args:
        model: The model.
        part: `backbone` or `head`.
        most_batch: The largest N.

    Returns:
        Crops `(N, H, W, 3)` for the backbone, windows `(N, T, D)` for the head.
    """
    best = min(OPT_BATCH, most_batch)
    if part == "backbone":
        crop = (model.input_size, model.input_size, 3)
        return OptimizationProfile((1, *crop), (best, *crop), (most_batch, *crop))
    dim = model.feature_dim
    return OptimizationProfile(
        (1, model.min_frames, dim), (best, model.window, dim), (most_batch, model.window, dim)
    )


def build(
    trt: Any,
    graph: bytes,
    profile: OptimizationProfile,
    *,
    part: str,
    half: bool,
    hardware_compatible: bool = False,
    timing: Path | None = None,
) -> BuildResult:
    """Build one engine.

    All but TensorRT-RTX need a driver here, which the caller has probed: without one they end the process.

    Args:
        trt: The TensorRT module.
        graph: A serialised ONNX model from `onnx_rewrite.rewrite_graph`.
        profile: The shapes of its input.
        part: What it is, for messages.
        half: Whether the graph holds float16; without it TensorRT must compute in full float32.
        hardware_compatible: Build for all GPUs from Ampere on instead of for the one at hand, at some speed.
        timing: The file of the timing cache, read and renewed; None for none.

    Returns:
        The engine.

    Raises:
        EngineUnavailable: TensorRT cannot parse or build it.
        DeviceMemoryFull: The GPU has too little memory to build it.
    """
    started = time.monotonic()
    logger = tensorrt_log(trt)
    logger.errors.clear()
    builder = start(trt, "Builder")
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        raise EngineUnavailable(
            NAME, f"{library_name(trt)} cannot parse the {part}: {_parser_said(parser)}", ADVICE
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    # Without it the inspector knows no more than the layers' names.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if half and not _strongly_typed(trt):
        config.set_flag(trt.BuilderFlag.FP16)
    if not half:
        # TensorRT's default rounds the factors of every product to ten bits.
        config.clear_flag(trt.BuilderFlag.TF32)
    _keep_to_own_kernels(trt, config)
    _share_profile(trt, config)
    if hardware_compatible and not is_rtx(trt):
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    shapes = builder.create_optimization_profile()
    shapes.set_shape(network.get_input(0).name, profile.smallest, profile.best, profile.largest)
    if config.add_optimization_profile(shapes) < 0:
        raise EngineUnavailable(
            NAME, f"{library_name(trt)} refuses the shapes {profile}: {logger.said()}", ADVICE
        )
    cache = None if timing is None or is_rtx(trt) else _timing_cache(config, timing)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        if full := logger.full():
            raise DeviceMemoryFull(NAME, f"the GPU's memory is full ({full})")
        raise EngineUnavailable(NAME, f"{library_name(trt)} cannot build the {part}: {logger.said()}", ADVICE)
    if cache is not None and timing is not None:
        write(timing, bytes(config.get_timing_cache().serialize()))
    seconds = time.monotonic() - started
    summary = {
        "seconds": round(seconds, 1),
        "layers_parsed": network.num_layers,
        "inputs": _ports(network.num_inputs, network.get_input),
        "outputs": _ports(network.num_outputs, network.get_output),
    }
    return BuildResult(bytes(engine), seconds, summary)


def load_or_build_engines(
    model: Model,
    *,
    precision: Precision = "fp16",
    cache: EngineCache | None = None,
    hardware_compatible: bool = False,
    trt: Any = None,
    gpu: Gpu | None = None,
    rebuild: bool = False,
) -> dict[str, tuple[EngineKey, bytes]]:
    """Give a model's engines for this machine: from the cache, or built and kept there.

    Args:
        model: A bundle or a prepared model.
        precision: `fp16` or `fp32`.
        cache: None for the user's.
        hardware_compatible: As for `build`.
        trt: The TensorRT module; None for the one that is installed.
        gpu: What `probe` found; None to ask, where TensorRT needs one to build. Where there is one, the
            inspector's summary is kept beside the engine.
        rebuild: Build them even if they are there.

    Returns:
        `backbone` and `head`, each with its key and its serialised engine.

    Raises:
        EngineUnavailable: There is no TensorRT, no GPU where one is needed, or it cannot build them.
    """
    trt = load_tensorrt() if trt is None else trt
    if gpu is None and not is_rtx(trt):
        gpu = probe()
    cache = EngineCache() if cache is None else cache
    target = build_target(trt, gpu, hardware_compatible=hardware_compatible)
    engines = {}
    for part in PARTS:
        profile = input_profile(model, part)
        key = EngineKey(
            digest=model.digest,
            part=part,
            precision=precision,
            library=library_name(trt),
            target=target,
            shapes=(profile.smallest, profile.best, profile.largest),
        )
        engine = None if rebuild else cache.load(key)
        if engine is None:
            _log.info("building the %s for %s with %s, once", part, target, library_name(trt))
            built = build(
                trt,
                prepared_graph(model, part, precision, cache),
                profile,
                part=part,
                # Only convolutions are float16: of the head TensorRT 8.6 would round the LSTM's state.
                half=precision == "fp16" and part == "backbone",
                hardware_compatible=hardware_compatible,
                timing=cache.folder(model.digest).parent
                / f"timing.{_slug(f'{library_name(trt)} {target}')}.cache",
            )
            summary = dict(built.summary)
            if gpu is not None:
                # Only where there is a driver: without one TensorRT's runtime ends the process.
                summary["inspected"] = _inspected(trt, built.engine)
            engine = cache.store(key, built.engine, summary)
        engines[part] = (key, engine)
    return engines


def build_target(trt: Any, gpu: Gpu | None, *, hardware_compatible: bool) -> str:
    """Name what an engine is built for, as its key has it.

    Args:
        trt: The TensorRT module.
        gpu: The GPU at hand; None only for TensorRT-RTX.
        hardware_compatible: As for `build`.

    Returns:
        A GPU's name and architecture, or a set of GPUs.
    """
    if is_rtx(trt):
        return "any GPU that TensorRT-RTX serves"
    if gpu is None:
        raise ValueError(f"{library_name(trt)} builds for the GPU at hand, but none was given")
    return "any GPU from sm_80 on" if hardware_compatible else f"{gpu.name} {gpu.architecture}"


def count_layers(inspection: str) -> dict[str, Any]:
    """Count what the engine inspector lists.

    Args:
        inspection: The inspector's JSON for a whole engine, with or without details.

    Returns:
        `layers`, and `kinds` and `formats` with how many layers are or give each; empty if it is no JSON.
    """
    try:
        layers = json.loads(inspection)["Layers"]
    except (ValueError, KeyError, TypeError):
        return {}
    detailed = [layer for layer in layers if isinstance(layer, dict)]
    formats = Counter(
        str(output.get("Format/Datatype", output.get("Datatype", "unknown")))
        for layer in detailed
        for output in layer.get("Outputs", [])
    )
    kinds = Counter(str(layer.get("LayerType", "unknown")) for layer in detailed)
    return {
        "layers": len(layers),
        "kinds": dict(kinds.most_common()),
        "formats": dict(formats.most_common()),
    }


def _inspected(trt: Any, serialized: bytes) -> dict[str, Any]:
    """Give the inspector's summary of an engine that was built here."""
    runtime = start(trt, "Runtime")
    engine = runtime.deserialize_cuda_engine(serialized)
    if engine is None:
        return {}
    inspector = engine.create_engine_inspector()
    return count_layers(str(inspector.get_engine_information(trt.LayerInformationFormat.JSON)))


def _network_flags(trt: Any) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    # Before there was strong typing, a free batch axis had to be asked for; since then it is the only kind.
    return 1 << int(flags.STRONGLY_TYPED if _strongly_typed(trt) else flags.EXPLICIT_BATCH)


def _strongly_typed(trt: Any) -> bool:
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def _keep_to_own_kernels(trt: Any, config: Any) -> None:
    """Leave cuBLAS and cuDNN out: TensorRT 8.6 would load them, and they need not be there."""
    if not hasattr(trt.TacticSource, "CUDNN"):
        return
    own = [name for name in ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS") if hasattr(trt.TacticSource, name)]
    config.set_tactic_sources(sum(1 << int(getattr(trt.TacticSource, name)) for name in own))
    external = "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"
    if hasattr(trt.PreviewFeature, external):
        config.set_preview_feature(getattr(trt.PreviewFeature, external), True)


def _share_profile(trt: Any, config: Any) -> None:
    """Let every captured graph have an execution context of the one profile, as TensorRT 10 does unasked."""
    if not _strongly_typed(trt) and hasattr(trt.PreviewFeature, "PROFILE_SHARING_0806"):
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)


def _timing_cache(config: Any, path: Path) -> Any:
    """Attach what earlier builds have timed."""
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        # Of another GPU or version, or damaged.
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _parser_said(parser: Any) -> str:
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    if not errors:
        return "it gave no reason"
    return " ".join(str(errors[0].desc()).split()).rstrip(".")


def _ports(count: int, get: Any) -> list[str]:
    tensors = [get(i) for i in range(count)]
    return [
        f"{tensor.name} {str(tensor.dtype).rpartition('.')[2].lower()} {tuple(tensor.shape)}"
        for tensor in tensors
    ]


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in text)
