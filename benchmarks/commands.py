"""Commands `unmask bench ...`: their options. What they need is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtime.commands.options import Engine, Model, whole_numbers

app = typer.Typer(help="Measure how fast this machine is.")

Repeats = Annotated[int, typer.Option(min=1, help="Repetitions, to see the noise.")]
JsonOut = Annotated[
    Path | None,
    typer.Option("--json", metavar="OUT", help="Write the record to a file.", show_default=False),
]
Compare = Annotated[
    Path | None,
    typer.Option(metavar="OLD", help="Print the changes since this record.", show_default=False),
]


@app.command()
def latency(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="demo, a video file with a face, or rtsp://..."),
    ] = "demo",
    samples: Annotated[int, typer.Option(min=1, help="Frames to measure.")] = 200,
    warmup: Annotated[int, typer.Option(min=0, help="Frames to analyse before measuring.")] = 30,
    repeats: Repeats = 3,
    model: Model = None,
    engine: Engine = "auto",
    json_out: JsonOut = None,
    compare: Compare = None,
) -> int:
    """Measure the time of a verdict, stage by stage, one frame after the other."""
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
            metavar="SOURCE", help="A video file with a face, sent as live cameras; demo, or rtsp://..."
        ),
    ] = "demo",
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="HZ", help="Verdicts per second and face.", show_default="the model's sample rate"
        ),
    ] = None,
    heights: Annotated[
        str, typer.Option(help="Heights in pixels to send a file at.", show_default="480,720,1080")
    ] = "",
    seconds: Annotated[float, typer.Option(min=1, help="Length of each step.")] = 10.0,
    warmup: Annotated[float, typer.Option(min=0, help="Seconds before each step.")] = 3.0,
    bound: Annotated[
        float, typer.Option(metavar="MS", min=1, help="Limit of the 99th percentile of the latency.")
    ] = 250.0,
    max_streams: Annotated[int, typer.Option(min=1, help="Largest number of streams to measure.")] = 32,
    repeats: Repeats = 2,
    model: Model = None,
    engine: Engine = "auto",
    json_out: JsonOut = None,
    compare: Compare = None,
) -> int:
    """Find how many live streams this machine sustains without a drop, and the bottleneck."""
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
        bool, typer.Option("--compile/--no-compile", help="Measure torch.compile too, which takes a while.")
    ] = True,
    model: Model = None,
    engine: Engine = "auto",
    json_out: JsonOut = None,
    compare: Compare = None,
) -> int:
    """Compare the CPU time of a verdict with the original method's: dlib, 80 crops, the whole clip."""
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
def roofline(
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,2,4,8",
    engine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="auto|onnxruntime|tensorrt",
            help="What runs the model. May be given again.",
            show_default="auto",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="the cores")] = None,
    repeats: Repeats = 5,
    model: Model = None,
    json_out: JsonOut = None,
    compare: Compare = None,
) -> int:
    """Compare the speed of the backbone with the arithmetic and the memory of this machine."""
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
    subscribers: Annotated[str, typer.Option(help="Numbers of fast subscribers.")] = "1,10,100",
    slow: Annotated[int, typer.Option(min=0, help="Number of slow readers beside them.")] = 5,
    rate: Annotated[float, typer.Option(metavar="HZ", min=0.1, help="Verdicts a second and stream.")] = 8.0,
    streams: Annotated[int, typer.Option(min=1, help="Streams with verdicts.")] = 4,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each run.")] = 6.0,
    repeats: Repeats = 3,
    json_out: JsonOut = None,
    compare: Compare = None,
) -> int:
    """Measure the delivery time of messages to many subscribers, slow readers among them."""
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
def gpu(
    crops: Annotated[
        Path | None,
        typer.Option(help="Face crops for the parity table.", show_default="a portrait"),
    ] = None,
    tensorrt_python: Annotated[
        Path | None,
        typer.Option(
            metavar="PYTHON",
            help="The Python that has TensorRT, or a script for it.",
            show_default="this one",
        ),
    ] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8,32,64",
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of each measurement.")] = 2.0,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Measure torch.compile too, which takes minutes.")
    ] = True,
    model: Model = None,
    json_out: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="OUT", help="Write the record to a file.", show_default="benchmarks/results"
        ),
    ] = None,
    compare: Compare = None,
) -> int:
    """Measure everything that needs an NVIDIA GPU: TensorRT against PyTorch, and the GPU's own limits."""
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
