"""Commands `unmask bench ...`. Each imports what it needs when it runs, so that `unmask --help` is fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtime.commands.options import Engine, Model, whole_numbers

app = typer.Typer(help="Measure latency, capacity and compute cost on this machine.", no_args_is_help=True)

Repeats = Annotated[int, typer.Option(min=1, help="Number of repetitions, to estimate the noise.")]
JsonOut = Annotated[
    Path | None,
    typer.Option("--json", metavar="OUT", help="Write the record as JSON.", show_default=False),
]
Compare = Annotated[
    Path | None,
    typer.Option(metavar="OLD", help="Record of an earlier run to compare with.", show_default=False),
]


@app.command()
def latency(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="demo, a video file with a face, or rtsp://..."),
    ] = "demo",
    samples: Annotated[int, typer.Option(min=1, help="Number of frames to measure.")] = 200,
    warmup: Annotated[int, typer.Option(min=0, help="Number of warm-up frames.")] = 30,
    repeats: Repeats = 3,
    model: Model = None,
    engine: Engine = "auto",
    json_out: JsonOut = None,
    compare: Compare = None,
) -> int:
    """Measure the latency of a verdict by stage, with one frame at a time."""
    from benchmarks.suites.latency import LatencyConfig, run_latency

    return run_latency(
        LatencyConfig(
            source=source,
            samples=samples,
            warmup=warmup,
            repeats=repeats,
            model=model,
            engine=engine,
            json_out=json_out,
            compare=compare,
        )
    )


@app.command()
def throughput(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A video file with a face, streamed as live cameras; demo, or rtsp://..."
        ),
    ] = "demo",
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="HZ",
            min=0.5,
            max=120,
            help="Verdicts per second and face.",
            show_default="the model's sample rate",
        ),
    ] = None,
    heights: Annotated[
        str,
        typer.Option(
            help="Frame heights in pixels at which a file is streamed.", show_default="480,720,1080"
        ),
    ] = "",
    seconds: Annotated[
        float, typer.Option(min=1, max=86400, help="Seconds to measure at each number of streams.")
    ] = 10.0,
    warmup: Annotated[
        float, typer.Option(min=0, max=86400, help="Warm-up seconds before each measurement.")
    ] = 3.0,
    bound: Annotated[
        float, typer.Option(metavar="MS", min=1, max=60000, help="Latency limit (99th percentile).")
    ] = 250.0,
    max_streams: Annotated[int, typer.Option(min=1, help="Maximum number of streams.")] = 32,
    repeats: Repeats = 2,
    model: Model = None,
    engine: Engine = "auto",
    json_out: JsonOut = None,
    compare: Compare = None,
) -> int:
    """Find the number of live streams that this machine sustains without drops, and the bottleneck."""
    from benchmarks.suites.throughput.benchmark import ThroughputConfig, run_throughput

    return run_throughput(
        ThroughputConfig(
            source=source,
            rate_hz=rate,
            heights=whole_numbers("--heights", heights) if heights else (),
            seconds=seconds,
            warmup_s=warmup,
            bound_ms=bound,
            max_streams=max_streams,
            repeats=repeats,
            model=model,
            engine=engine,
            json_out=json_out,
            compare=compare,
        )
    )


@app.command()
def baseline(
    video: Annotated[
        str, typer.Argument(metavar="VIDEO", help="A video file with a face, 80 frames or more.")
    ],
    repeats: Repeats = 3,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Measure torch.compile too (slow to compile).")
    ] = True,
    model: Model = None,
    engine: Engine = "auto",
    json_out: JsonOut = None,
    compare: Compare = None,
) -> int:
    """Compare the CPU time per verdict with that of the original method: dlib and a clip of 80 crops."""
    from benchmarks.suites.baseline.benchmark import BaselineConfig, run_baseline

    return run_baseline(
        BaselineConfig(
            video=video,
            repeats=repeats,
            compiled=compiled,
            model=model,
            engine=engine,
            json_out=json_out,
            compare=compare,
        )
    )


@app.command()
def peers(
    video: Annotated[
        str, typer.Argument(metavar="VIDEO", help="A video file with a face, 5 seconds or more.")
    ],
    verdicts: Annotated[int, typer.Option(min=1, help="Number of verdicts of each method to measure.")] = 12,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads.", show_default="one per core")
    ] = None,
    repeats: Repeats = 3,
    model: Model = None,
    engine: Engine = "auto",
    json_out: JsonOut = None,
    compare: Compare = None,
) -> int:
    """Compare the cost of a verdict with per-frame detectors: EfficientNet-B4 and Xception with MTCNN."""
    from benchmarks.suites.peers.benchmark import PeersConfig, run_peers

    return run_peers(
        PeersConfig(
            video=video,
            verdicts=verdicts,
            threads=threads,
            repeats=repeats,
            model=model,
            engine=engine,
            json_out=json_out,
            compare=compare,
        )
    )


@app.command()
def scale(
    video: Annotated[
        str, typer.Argument(metavar="VIDEO", help="A video file with a face in its middle, sent as cameras.")
    ],
    cameras: Annotated[str, typer.Option(help="Numbers of cameras.")] = "1,2,4,8,12",
    heights: Annotated[str, typer.Option(help="Frame heights in pixels.")] = "480,720,1080",
    faces: Annotated[
        str, typer.Option(help="Numbers of faces of one 720p camera; empty for none.")
    ] = "1,2,4,8",
    seconds: Annotated[float, typer.Option(min=1, max=86400, help="Seconds to measure at each point.")] = 4.0,
    warmup: Annotated[
        float, typer.Option(min=0, max=86400, help="Warm-up seconds before each measurement.")
    ] = 1.5,
    bound: Annotated[
        float, typer.Option(metavar="MS", min=1, max=60000, help="Latency limit (99th percentile).")
    ] = 250.0,
    svg: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Draw the curves.", show_default=False)
    ] = None,
    model: Model = None,
    engine: Engine = "auto",
    json_out: JsonOut = None,
    compare: Compare = None,
) -> int:
    """Measure CPU time, latency and memory by the number of cameras and faces (three minutes by default)."""
    from benchmarks.suites.scale.benchmark import ScaleConfig, run_scale

    return run_scale(
        ScaleConfig(
            video=video,
            cameras=whole_numbers("--cameras", cameras),
            heights=whole_numbers("--heights", heights),
            faces=whole_numbers("--faces", faces) if faces else (),
            seconds=seconds,
            warmup_s=warmup,
            bound_ms=bound,
            svg=svg,
            model=model,
            engine=engine,
            json_out=json_out,
            compare=compare,
        )
    )


@app.command()
def startup(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="demo, a video file with a face, or rtsp://...")
    ] = "demo",
    repeats: Repeats = 3,
    model: Model = None,
    engine: Engine = "auto",
    json_out: JsonOut = None,
    compare: Compare = None,
) -> int:
    """Measure the time from the start of `unmask monitor` to its first verdict."""
    from benchmarks.suites.startup import StartupConfig, run_startup

    return run_startup(
        StartupConfig(
            source=source, repeats=repeats, model=model, engine=engine, json_out=json_out, compare=compare
        )
    )


@app.command()
def roofline(
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,2,4,8",
    engine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="auto|onnxruntime|openvino|tensorrt",
            help="Inference engine; repeat the option for several.",
            show_default="auto",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads.", show_default="one per core")
    ] = None,
    repeats: Repeats = 5,
    model: Model = None,
    json_out: JsonOut = None,
    compare: Compare = None,
) -> int:
    """Compare the speed of the backbone with the arithmetic and memory limits of this machine."""
    from benchmarks.suites.roofline import RooflineConfig, run_roofline

    return run_roofline(
        RooflineConfig(
            batches=whole_numbers("--batch", batch),
            engines=engine or ["auto"],
            threads=threads,
            repeats=repeats,
            model=model,
            json_out=json_out,
            compare=compare,
        )
    )


@app.command()
def fanout(
    subscribers: Annotated[str, typer.Option(help="Numbers of fast subscribers, one run each.")] = "1,10,100",
    slow: Annotated[int, typer.Option(min=0, help="Number of additional slow readers.")] = 5,
    rate: Annotated[
        float, typer.Option(metavar="HZ", min=0.5, max=120, help="Verdicts per second and stream.")
    ] = 8.0,
    streams: Annotated[int, typer.Option(min=1, help="Number of streams.")] = 4,
    seconds: Annotated[float, typer.Option(min=1, max=86400, help="Seconds to measure in each run.")] = 6.0,
    repeats: Repeats = 3,
    json_out: JsonOut = None,
    compare: Compare = None,
) -> int:
    """Measure the delivery time of messages to many subscribers, with slow readers among them."""
    from benchmarks.suites.fanout import FanoutConfig, run_fanout

    return run_fanout(
        FanoutConfig(
            subscribers=whole_numbers("--subscribers", subscribers),
            slow=slow,
            rate_hz=rate,
            streams=streams,
            seconds=seconds,
            repeats=repeats,
            json_out=json_out,
            compare=compare,
        )
    )


@app.command()
def fleet(
    cameras: Annotated[
        str, typer.Option(help="Numbers of simulated cameras, one run each.")
    ] = "1,50,100,200",
    workers: Annotated[int, typer.Option(min=1, help="Number of workers.")] = 4,
    rate: Annotated[
        float, typer.Option(metavar="HZ", min=0.5, max=120, help="Verdicts per second and camera.")
    ] = 8.0,
    subscribers: Annotated[int, typer.Option(min=0, help="Number of WebSocket clients.")] = 2,
    seconds: Annotated[float, typer.Option(min=1, max=86400, help="Seconds to measure in each run.")] = 6.0,
    json_out: JsonOut = None,
    compare: Compare = None,
) -> int:
    """Measure the load of the head of a fleet with simulated cameras on a local Ray cluster."""
    from benchmarks.suites.fleet import FleetBenchConfig, run_fleet_benchmark

    return run_fleet_benchmark(
        FleetBenchConfig(
            cameras=whole_numbers("--cameras", cameras),
            workers=workers,
            rate_hz=rate,
            subscribers=subscribers,
            seconds=seconds,
            json_out=json_out,
            compare=compare,
        )
    )


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.1, max=100000, help="Length of the run.")] = 30.0,
    cameras: Annotated[int, typer.Option(help="Number of cameras.")] = 4,
    every: Annotated[
        float, typer.Option(metavar="S", min=4, max=86400, help="Seconds between faults.")
    ] = 60.0,
    max_gap: Annotated[
        float,
        typer.Option(
            metavar="S", min=0.1, max=86400, help="Longest time without a score of a camera without a fault."
        ),
    ] = 5.0,
    model: Model = None,
    json_out: JsonOut = None,
    compare: Compare = None,
) -> int:
    """Run the monitor on RTSP cameras for a long time, inject a fault every minute, and check its limits."""
    from benchmarks.suites.soak.benchmark import SoakConfig, run_soak

    return run_soak(
        SoakConfig(
            minutes=minutes,
            cameras=cameras,
            every_s=every,
            max_gap_s=max_gap,
            model=model,
            json_out=json_out,
            compare=compare,
        )
    )


@app.command()
def gpu(
    crops: Annotated[
        Path | None,
        typer.Option(help="Face crops for the parity table.", show_default="a portrait"),
    ] = None,
    tensorrt_python: Annotated[
        Path | None,
        typer.Option(
            metavar="PYTHON",
            help="Python interpreter with TensorRT, or a wrapper script.",
            show_default="this interpreter",
        ),
    ] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8,32,64",
    seconds: Annotated[float, typer.Option(min=0.1, max=86400, help="Seconds per measurement.")] = 2.0,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Measure torch.compile too (takes minutes).")
    ] = True,
    model: Model = None,
    json_out: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="OUT", help="Write the record as JSON.", show_default="benchmarks/results"
        ),
    ] = None,
    compare: Compare = None,
) -> int:
    """Compare TensorRT with PyTorch on an NVIDIA GPU, and measure the limits of the GPU."""
    from benchmarks.suites.gpu.benchmark import GpuConfig, run_gpu

    return run_gpu(
        GpuConfig(
            crops=crops,
            tensorrt_python=tensorrt_python,
            batches=whole_numbers("--batch", batch),
            seconds=seconds,
            compiled=compiled,
            model=model,
            json_out=json_out,
            compare=compare,
        )
    )
