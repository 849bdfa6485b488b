"""Builder of TensorRT engines for TensorRT 8.6, 10, 11 and TensorRT-RTX.

    engines = load_or_build_engines(bundle, precision="fp16")       # from the cache, or built and stored

Version differences are detected by the members of the module, not by its version number. The ONNX graph
determines the precision (`onnx_rewrite.py`): networks are strongly typed where TensorRT supports that.
TensorRT 8.6 does not, so a flag allows its builder to use float16.

Building takes minutes, once, on the GPU that will run the engine. TensorRT-RTX builds in seconds and
without a GPU, and compiles the rest when the engine is loaded.

Source:
    NVIDIA TensorRT developer guide, "Python API", "Dynamic shapes", "Timing cache"; TensorRT migration guides
    8.x to 10.x and 10.x to 11.x (11.4), "Python", "IEngineInspector JSON output"; TensorRT-RTX
    documentation, "CPU-Only AOT", and its release notes: its timing cache needs a GPU and has no effect.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.engines.tensorrt.driver import ADVICE, NAME, Gpu, probe
from runtime.engines.tensorrt.engine_cache import EngineCache, EngineKey, read, write
from runtime.engines.tensorrt.library import (
    create_builder,
    create_runtime,
    is_rtx,
    library_name,
    load_tensorrt,
    tensorrt_log,
)
from runtime.engines.tensorrt.prepared import PARTS, prepared_graph
from runtime.errors import DeviceMemoryFull, EngineUnavailable

if TYPE_CHECKING:
    from runtime.engines.interface import Model
    from runtime.engines.tensorrt.api import (
        IBuilder,
        IBuilderConfig,
        INetworkDefinition,
        IParser,
        ITensor,
        ITimingCache,
        TensorRT,
    )
    from runtime.engines.tensorrt.onnx_rewrite import Precision

MAX_BATCH = 64
# Batch size that kernels are optimised for.
OPT_BATCH = 8
# Limit of a kernel's scratch memory. The networks need little of it.
WORKSPACE_BYTES = 1 << 30

Shape = tuple[int, ...]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OptimizationProfile:
    """Shapes that an engine's input may have.

    Args:
        min: Smallest length of every axis.
        opt: Shape that kernels are optimised for.
        max: Largest length of every axis.
    """

    min: Shape
    opt: Shape
    max: Shape


@dataclass(frozen=True)
class BuildResult:
    """A newly built engine.

    Args:
        engine: Serialized engine.
        summary: Build time, number of layers, inputs and outputs, as JSON values.
    """

    engine: bytes
    summary: Mapping[str, Any] = field(default_factory=dict)


def input_profile(model: Model, part: str, *, max_batch: int = MAX_BATCH) -> OptimizationProfile:
    """Return the input shapes that an engine has to serve.

    Args:
        model: The model.
        part: `backbone` or `head`.
        max_batch: Largest N.

    Returns:
        Shapes of crops `(N, H, W, 3)` for the backbone, of windows `(N, T, D)` for the head.
    """
    opt = min(OPT_BATCH, max_batch)
    if part == "backbone":
        crop = (model.input_size, model.input_size, 3)
        return OptimizationProfile((1, *crop), (opt, *crop), (max_batch, *crop))
    dim, window = model.feature_dim, model.window
    return OptimizationProfile((1, model.min_frames, dim), (opt, window, dim), (max_batch, window, dim))


def build(
    trt: TensorRT,
    graph: bytes,
    profile: OptimizationProfile,
    *,
    part: str,
    fp16: bool,
    hardware_compatible: bool = False,
    timing_cache: Path | None = None,
) -> BuildResult:
    """Build one engine.

    Except for TensorRT-RTX, call `probe` first: without a driver TensorRT crashes the process.

    Args:
        trt: The TensorRT module.
        graph: Serialized ONNX model from `onnx_rewrite.rewrite_graph`.
        profile: Input shapes.
        part: `backbone` or `head`, for messages.
        fp16: Whether the graph contains float16; if not, TensorRT must compute in full float32.
        hardware_compatible: Build for all GPUs from Ampere on instead of for this one; somewhat slower.
        timing_cache: File of the timing cache, read and updated; None for none.

    Returns:
        The engine.

    Raises:
        EngineUnavailable: TensorRT cannot parse or build the graph.
        DeviceMemoryFull: The GPU has too little memory to build it.
    """
    started = time.monotonic()
    log = tensorrt_log(trt)
    log.errors.clear()
    builder = create_builder(trt)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse(graph):
        reason = f"{library_name(trt)} cannot parse the {part}: {_parser_error(parser)}"
        raise EngineUnavailable(NAME, reason, ADVICE)
    config = builder.create_builder_config()
    _configure(trt, config, fp16=fp16, hardware_compatible=hardware_compatible)
    _add_profile(trt, builder, config, network, profile)
    cache = None if timing_cache is None or is_rtx(trt) else _attach_timing_cache(config, timing_cache)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        if memory_error := log.memory_error():
            raise DeviceMemoryFull(NAME, f"the GPU's memory is full ({memory_error})")
        reason = f"{library_name(trt)} cannot build the {part}: {log.last_error()}"
        raise EngineUnavailable(NAME, reason, ADVICE)
    if cache is not None and timing_cache is not None:
        write(timing_cache, bytes(config.get_timing_cache().serialize()))
    summary = {
        "seconds": round(time.monotonic() - started, 1),
        "layers_parsed": network.num_layers,
        "inputs": _tensors(network.num_inputs, network.get_input),
        "outputs": _tensors(network.num_outputs, network.get_output),
    }
    return BuildResult(bytes(engine), summary)


def load_or_build_engines(
    model: Model,
    *,
    precision: Precision = "fp16",
    cache: EngineCache | None = None,
    hardware_compatible: bool = False,
    trt: TensorRT | None = None,
    gpu: Gpu | None = None,
    rebuild: bool = False,
) -> dict[str, tuple[EngineKey, bytes]]:
    """Return a model's engines for this machine from the cache; build and store those that are missing.

    Args:
        model: A bundle or a prepared model.
        precision: `fp16` or `fp32`.
        cache: The engine cache; None for the user's.
        hardware_compatible: As for `build`.
        trt: The TensorRT module; None for the installed one.
        gpu: Result of `probe`; None to call it where TensorRT needs a GPU to build. With a GPU, the engine
            inspector's summary is stored with the engine.
        rebuild: Build the engines even if they are in the cache.

    Returns:
        `backbone` and `head`, each with its key and its serialized engine.

    Raises:
        EngineUnavailable: TensorRT is missing, a GPU is needed and missing, or the build fails.
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
            shapes=(profile.min, profile.opt, profile.max),
        )
        engine = None if rebuild else cache.load(key)
        if engine is None:
            _log.info("building the %s for %s with %s, once", part, target, library_name(trt))
            built = build(
                trt,
                prepared_graph(model, part, precision, cache),
                profile,
                part=part,
                # Only for convolutions: TensorRT 8.6 would also round the state of the head's LSTM.
                fp16=precision == "fp16" and part == "backbone",
                hardware_compatible=hardware_compatible,
                timing_cache=_timing_cache_path(cache, key),
            )
            # Without a driver, TensorRT's runtime crashes the process.
            inspected = {} if gpu is None else {"inspected": _inspect(trt, built.engine)}
            engine = cache.store(key, built.engine, {**built.summary, **inspected})
        engines[part] = (key, engine)
    return engines


def build_target(trt: TensorRT, gpu: Gpu | None, *, hardware_compatible: bool) -> str:
    """Return the GPU, or the set of GPUs, that an engine is built for, as in its cache key.

    Args:
        trt: The TensorRT module.
        gpu: The GPU in use; None for TensorRT-RTX only.
        hardware_compatible: As for `build`.
    """
    if is_rtx(trt):
        return "any GPU that TensorRT-RTX supports"
    if gpu is None:
        raise ValueError(f"{library_name(trt)} builds for the GPU in use, but none was given")
    return "any GPU from sm_80 on" if hardware_compatible else f"{gpu.name} {gpu.architecture}"


def count_layers(inspection: str) -> dict[str, Any]:
    """Count the layers in the engine inspector's output.

    Args:
        inspection: The inspector's JSON for a whole engine, with or without details.

    Returns:
        `layers`: their number; `kinds` and `formats`: the number of layers by type and by output format.
        Empty if the text is not such JSON.
    """
    try:
        # TensorRT 8.6 separates the names of merged layers with a bare control character.
        layers = json.loads(inspection, strict=False)["Layers"]
    except (ValueError, KeyError, TypeError):
        return {}
    detailed = [layer for layer in layers if isinstance(layer, dict)]
    formats = Counter(_layout(output) for layer in detailed for output in layer.get("Outputs", []))
    kinds = Counter(str(layer.get("LayerType", "unknown")) for layer in detailed)
    return {
        "layers": len(layers),
        "kinds": dict(kinds.most_common()),
        "formats": dict(formats.most_common()),
    }


def _layout(output: Mapping[str, Any]) -> str:
    """Return format and data type of a layer's output; TensorRT 11 has a field for each."""
    for name in ("Format/Datatype", "Format/DataType"):
        if name in output:
            return str(output[name])
    fields = [output[name] for name in ("Format", "DataType", "Datatype") if name in output]
    return ", ".join(map(str, fields)) or "unknown"


def _inspect(trt: TensorRT, serialized: bytes) -> dict[str, Any]:
    engine = create_runtime(trt).deserialize_cuda_engine(serialized)
    if engine is None:
        return {}
    inspector = engine.create_engine_inspector()
    return count_layers(str(inspector.get_engine_information(trt.LayerInformationFormat.JSON)))


def _network_flags(trt: TensorRT) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    # TensorRT 8.6 needs a flag for a dynamic batch axis; strongly typed networks always have one. TensorRT 11
    # has strongly typed networks only and ignores the flag.
    return 1 << int(flags.STRONGLY_TYPED if _strongly_typed(trt) else flags.EXPLICIT_BATCH)


def _strongly_typed(trt: TensorRT) -> bool:
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def _configure(trt: TensorRT, config: IBuilderConfig, *, fp16: bool, hardware_compatible: bool) -> None:
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    # Otherwise the inspector returns the layers' names only.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if fp16 and not _strongly_typed(trt):
        config.set_flag(trt.BuilderFlag.FP16)
    if not fp16:
        # TensorRT's default, TF32, rounds the factors of every product to ten bits.
        config.clear_flag(trt.BuilderFlag.TF32)
    _disable_external_tactics(trt, config)
    if not _strongly_typed(trt) and hasattr(trt.PreviewFeature, "PROFILE_SHARING_0806"):
        # Each captured CUDA graph has its own execution context on the only profile, which later versions
        # allow without a flag.
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
    if hardware_compatible and not is_rtx(trt):
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _disable_external_tactics(trt: TensorRT, config: IBuilderConfig) -> None:
    """Exclude cuBLAS and cuDNN, which TensorRT 8.6 would load and which may not be installed."""
    if not hasattr(trt.TacticSource, "CUDNN"):
        return
    own = [name for name in ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS") if hasattr(trt.TacticSource, name)]
    config.set_tactic_sources(sum(1 << int(getattr(trt.TacticSource, name)) for name in own))
    features = trt.PreviewFeature
    if hasattr(features, "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"):
        config.set_preview_feature(features.DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805, True)


def _add_profile(
    trt: TensorRT,
    builder: IBuilder,
    config: IBuilderConfig,
    network: INetworkDefinition,
    profile: OptimizationProfile,
) -> None:
    shapes = builder.create_optimization_profile()
    shapes.set_shape(network.get_input(0).name, profile.min, profile.opt, profile.max)
    if config.add_optimization_profile(shapes) < 0:
        error = tensorrt_log(trt).last_error()
        raise EngineUnavailable(NAME, f"{library_name(trt)} rejects the shapes {profile}: {error}", ADVICE)


def _timing_cache_path(cache: EngineCache, key: EngineKey) -> Path:
    """Return the path of the timing cache that all engines of one TensorRT and one target share."""
    name = "".join(c if c.isalnum() or c in ".-" else "-" for c in f"{key.library} {key.target}")
    return cache.folder(key.digest).parent / f"timing.{name}.cache"


def _attach_timing_cache(config: IBuilderConfig, path: Path) -> ITimingCache | None:
    """Let the build use the kernel timings of earlier builds."""
    try:
        content = read(path)
    except OSError:
        content = b""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        # From another GPU or version, or damaged: start with an empty one.
        cache = config.create_timing_cache(b"")
        if cache is not None:
            config.set_timing_cache(cache, False)
    return cache


def _parser_error(parser: IParser) -> str:
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    if not errors:
        return "it gave no reason"
    return " ".join(str(errors[0].desc()).split()).rstrip(".")


def _tensors(count: int, get: Callable[[int], ITensor]) -> list[str]:
    """Describe inputs or outputs by name, type and shape."""
    return [
        f"{tensor.name} {str(tensor.dtype).rpartition('.')[2].lower()} {tuple(tensor.shape)}"
        for tensor in (get(i) for i in range(count))
    ]
