"""Checks of the machine: CPU, GPU, engine, model, port, open files and installed extras."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from runtime.commands.doctor.finding import Finding
from runtime.engines.cache import CACHE_VARIABLE, cache_folder, exposed_part
from runtime.engines.cpu import usable_cores
from runtime.engines.onnx_cpu.int8 import int8_is_exact
from runtime.engines.tensorrt.driver import Gpu, probe
from runtime.engines.tensorrt.library import load_pycuda, load_tensorrt
from runtime.errors import BundleError, EngineUnavailable, os_reason
from runtime.model.bundle import load_bundle
from runtime.serving.refusals import client_limit, open_files_left

EXTRAS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "webrtc": ("aiortc", "aiortc", "the sources `browser` and `whip:KEY`"),
        "mqtt": ("paho.mqtt", "paho-mqtt", "output by MQTT"),
        "fleet": ("ray", "ray", "`unmask fleet` and `unmask scan --ray`"),
        "openvino": ("openvino", "openvino", "less CPU time on CPUs with VNNI or AMX"),
        "tensorrt": ("tensorrt", "tensorrt", "NVIDIA GPUs"),
        "train": ("torch", "torch", "`unmask train`"),
        "export": ("onnxscript", "onnxscript", "`unmask export`"),
        "bench": ("dlib", "dlib-bin", "`unmask bench baseline`"),
    }
)
"""Extra -> module and package that it contains, and what needs it."""

MIN_CORES = 2


def check_cpu(cpuinfo: str, cores: int, *, exact: bool) -> Finding:
    """Check the CPU's cores and instructions.

    Args:
        cpuinfo: Content of `/proc/cpuinfo`; empty where there is none.
        cores: Number of cores that this process may use.
        exact: Whether int8 arithmetic gives the same verdicts as float32.
    """
    flags = set(next(iter(re.findall(r"^flags\s*:\s*(.*)$", cpuinfo, re.M)), "").split())
    model = next(iter(re.findall(r"^model name\s*:\s*(.*)$", cpuinfo, re.M)), "unknown model")
    known = {
        "AVX2": "avx2",
        "AVX-512": "avx512f",
        "VNNI": "avx512_vnni",
        "AVX-VNNI": "avx_vnni",
        "AMX": "amx_int8",
    }
    found = [name for name, flag in known.items() if flag in flags]
    text = f"{model}, {cores} usable cores, {' '.join(found) or 'no known vector instructions'}"
    if cores < MIN_CORES:
        advice = f"live video needs about {MIN_CORES} cores: lift the quota, or use --rate 4 and few streams"
        return Finding(subject="cpu", level="optional", text=text, advice=advice)
    if exact:
        return Finding(subject="cpu", level="ok", text=f"{text}; int8 arithmetic", advice="nothing to do")
    advice = "a CPU with VNNI or AMX takes half the time; use --rate 4 or fewer streams if it is overloaded"
    return Finding(subject="cpu", level="ok", text=f"{text}; float32 arithmetic", advice=advice)


def check_gpu(find_gpu: Callable[[], Gpu] = probe) -> Finding:
    """Check the NVIDIA driver and its first GPU."""
    try:
        gpu = find_gpu()
    except EngineUnavailable as error:
        advice = "not needed; for a GPU install NVIDIA's driver, in a container start it with --gpus all"
        return Finding(subject="gpu", level="optional", text=error.reason, advice=advice)
    gigabytes = gpu.memory_bytes / 2**30
    text = f"{gpu.name}, {gpu.architecture}, {gigabytes:.0f} GiB, CUDA {gpu.cuda[0]}.{gpu.cuda[1]}"
    return Finding(subject="gpu", level="ok", text=text, advice="used if TensorRT is installed")


def check_engine(*, has_gpu: bool, exact: bool) -> Finding:
    """Check which inference engine `--engine auto` would choose for the bundled model.

    Args:
        has_gpu: Whether there is an NVIDIA GPU.
        exact: Whether int8 arithmetic gives the same verdicts as float32.
    """
    library = "openvino" if exact and find_spec("openvino") is not None else "onnxruntime"
    on_cpu = f"{library} {version(library)} on the CPU"
    if not has_gpu:
        if exact and library != "openvino":
            advice = "pip install 'unmask[openvino]' for less CPU time"
            return Finding(subject="engine", level="ok", text=on_cpu, advice=advice)
        return Finding(subject="engine", level="ok", text=on_cpu, advice="nothing to do")
    try:
        load_tensorrt()
        load_pycuda()
    except EngineUnavailable as error:
        return Finding(
            subject="engine", level="optional", text=f"{on_cpu}; {error.reason}", advice=error.advice
        )
    return Finding(subject="engine", level="ok", text="TensorRT on the GPU", advice="nothing to do")


def check_model(path: Path | None = None) -> Finding:
    """Check the model bundle, with its hashes."""
    try:
        bundle = load_bundle(path)
    except BundleError as error:
        return Finding(subject="model", level="problem", text=error.reason, advice=error.advice)
    text = f"{bundle.name}, {bundle.sample_hz:g} samples a second"
    return Finding(subject="model", level="ok", text=text, advice="choose another with --model")


def check_port(host: str, port: int) -> Finding:
    """Check whether the server could listen."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    advice = "choose another with --host or --port"
    try:
        _listen(host, port)
    except UnicodeError:
        text = f"{address}: it is not a host name"
        return Finding(subject="port", level="optional", text=text, advice=advice)
    except OSError as error:
        text = f"{address}: {os_reason(error)}"
        if error.errno == errno.EADDRINUSE:
            text = f"{address} is in use"
            advice = "stop the other program, perhaps a running unmask, or choose another port with --port"
        return Finding(subject="port", level="optional", text=text, advice=advice)
    return Finding(subject="port", level="ok", text=f"{address} is free", advice="choose another with --port")


def _listen(host: str, port: int) -> None:
    """Listen for a moment on every address that the server would use."""
    both = host in ("", "::") and socket.has_dualstack_ipv6()
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _, _, _, address in found:
        dual = both and family == socket.AF_INET6
        socket.create_server(address, family=family, dualstack_ipv6=dual).close()


def check_clients() -> Finding:
    """Check the limit on open files."""
    limit = client_limit(None, open_files_left())
    text = f"{limit} WebSocket clients at a time"
    if limit < client_limit(None, None):
        return Finding(
            subject="clients",
            level="optional",
            text=text,
            advice="raise the limit on open files: ulimit -n 4096",
        )
    return Finding(subject="clients", level="ok", text=text, advice="change it with --max-clients")


def check_cache() -> Finding:
    """Check the folder of prepared graphs and engines."""
    folder = cache_folder()
    existing = next(part for part in (folder, *folder.parents) if part.exists())
    text = str(folder)
    try:
        exposed = exposed_part(folder)
    except OSError:
        exposed = folder
    if exposed is not None:
        text, advice = f"{exposed} can be written by other users", f"chmod go-w it, or set {CACHE_VARIABLE}"
        return Finding(subject="cache", level="optional", text=text, advice=advice)
    if not os.access(existing, os.W_OK):
        advice = f"set {CACHE_VARIABLE} to a folder that you may write; until then each start takes longer"
        return Finding(subject="cache", level="optional", text=f"{existing} cannot be written", advice=advice)
    return Finding(subject="cache", level="ok", text=text, advice="may be deleted at any time")


def check_extras() -> Iterator[Finding]:
    """Check which optional parts are installed."""
    for extra, (module, package, purpose) in EXTRAS.items():
        subject = f"extra {extra}"
        try:
            installed = find_spec(module) is not None
            text = f"{package} {version(package)}" if installed else f"not installed: {purpose}"
        except (ModuleNotFoundError, PackageNotFoundError):
            installed, text = False, f"not installed: {purpose}"
        advice = f"for {purpose}" if installed else f"pip install 'unmask[{extra}]' if you need it"
        yield Finding(subject=subject, level="ok" if installed else "optional", text=text, advice=advice)


def machine_findings(host: str, port: int) -> Iterator[Finding]:
    """Run all checks of this file."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        cpuinfo = ""
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding(subject="python", level="ok", text=f"{python} on {sys.platform}", advice="nothing to do")
    yield check_cpu(cpuinfo, usable_cores(), exact=int8_is_exact())
    gpu = check_gpu()
    yield gpu
    yield check_engine(has_gpu=gpu.level == "ok", exact=int8_is_exact())
    yield check_model()
    yield check_port(host, port)
    yield check_clients()
    yield check_cache()
    yield from check_extras()
