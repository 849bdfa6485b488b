"""Real-time deepfake detection for live video: the command `unmask`, and its client for other programs.

from unmask import watch

async for message in watch("127.0.0.1:8765"):
    print(message)
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

if TYPE_CHECKING:
    from runtime.client import watch as watch
    from streams.input.source import Source
    from train.models.config import FitConfig

__all__ = ["watch"]

# Commands are described here and done elsewhere: what they need is imported when they run, so that `--help`
# is quick and nothing of training is asked of a machine that only watches.

app = typer.Typer(
    help="Tell, live, whether a face in a video is a deepfake.",
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
train = typer.Typer(help="Train a model on your own data, and measure it.")
bench = typer.Typer(help="Measure how fast this machine is.")
app.add_typer(train, name="train")
app.add_typer(bench, name="bench")

# Commands that need more than the base installation, each with an extra of the same name.
EXTRAS = ("train", "export", "bench")

USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]

Model = Annotated[
    Path | None,
    typer.Option(help="Directory of a model that `unmask export` wrote.", show_default="the bundled one"),
]
Layout = Literal["auto", "folder", "manifest", "ffpp", "celeb-df", "dfdc"]
Sets = Annotated[list[Path], typer.Argument(metavar="DATA", help="Sets of prepared clips or crops.")]
RunConfig = Annotated[
    Path | None,
    typer.Option(metavar="JSON", help="A run's config.json, to repeat or change it.", show_default=False),
]
Sizes = Annotated[str | None, typer.Option(help="Input sizes of the stages.", show_default="96,160")]
Crops = Annotated[str | None, typer.Option(help="Crops that each stage sees.", show_default="100000,100000")]
ValGroups = Annotated[
    str | None, typer.Option(help="Groups to keep out of sets that state no split.", show_default=False)
]
RunSeed = Annotated[int | None, typer.Option(min=0, help="Seed of every draw.", show_default="0")]
Engine = Annotated[str, typer.Option(metavar="auto|onnxruntime|tensorrt", help="What runs the model.")]
Repeats = Annotated[int, typer.Option(min=1, help="Repetitions, to see the noise.")]
JsonOut = Annotated[
    Path | None,
    typer.Option("--json", metavar="OUT", help="Write the record to a file.", show_default=False),
]
Compare = Annotated[
    Path | None,
    typer.Option(metavar="OLD", help="Tell what changed since this record.", show_default=False),
]


class UserMistake(Exception):
    """Is shown to the user, one line for each argument, and ends the program with exit code 2."""


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Tell, live, whether a face in a video is a deepfake."""
    if show_version:
        from runtime.version import version

        typer.echo(f"unmask {version()}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def monitor(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="rtsp://..., webcam, webcam:N, a video file, a URL, or demo.",
            show_default=False,
        ),
    ],
    model: Model = None,
    engine: Engine = "auto",
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="HZ", help="Verdicts a second and face.", show_default="the model's sample rate"
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8765,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Let pages of this origin connect (https://example.org, null, *). May be given again.",
            show_default=False,
        ),
    ] = None,
    rtsp_transport: Annotated[Literal["tcp", "udp"], typer.Option(help="How RTSP video travels.")] = "tcp",
    jsonl: Annotated[
        str | None,
        typer.Option(metavar="PATH|-", help="Write every message as a line of JSON.", show_default=False),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="End after this time.", show_default="run until Ctrl-C"),
    ] = None,
) -> int:
    """Watch live video and serve verdicts: a dashboard, an overlay for OBS, a WebSocket.

    A file is played at its own pace and ends with its last frame. Where there is no terminal, every change is
    logged in a line.
    """
    # Also while the engine is still loading, the end is clean.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from runtime.commands.monitor import MonitorOptions, run_monitor

        if duration is not None and not duration > 0:
            raise UserMistake(f"--duration {duration:g}: give a number of seconds above 0")
        return run_monitor(
            MonitorOptions(
                sources=_parsed(sources, rtsp_transport),
                model=model,
                engine=engine,
                rate_hz=rate,
                host=host,
                port=port,
                allow_origin=_checked(allow_origin or []),
                jsonl=jsonl,
                duration_s=duration,
            )
        )
    except KeyboardInterrupt:
        return 0


@app.command()
def scan(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="Videos, and directories to look for videos in.", show_default=False
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each file.")] = False,
    model: Model = None,
    engine: Engine = "auto",
) -> int:
    """Score whole videos, no frame dropped.

    Of each video the score of its most suspicious face is given. A file that cannot be read does not keep the
    others from being scored, but the exit code is 2 then.
    """
    from runtime.commands.scan import run_scan

    return run_scan(files, as_json=as_json, model=model, engine=engine)


@train.command()
def prepare(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Data set of videos, or a CSV file that lists them.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory for the clips; continued if it is there.")
    ],
    layout: Annotated[Layout, typer.Option(help="How the data set is laid out.")] = "auto",
    split: Annotated[
        Literal["official", "group"], typer.Option(help="The data set's own split, or a new one by groups.")
    ] = "official",
    compression: Annotated[
        Literal["raw", "c23", "c40"], typer.Option(help="Which of FaceForensics++.")
    ] = "c23",
    size: Annotated[int, typer.Option(min=16, help="Side of the crops in pixels.")] = 224,
    margin: Annotated[
        float, typer.Option(min=0.5, max=4, help="Side of the crops over the face's height.")
    ] = 1.3,
    sample_hz: Annotated[float, typer.Option(min=1, max=120, help="Crops a second.")] = 8.0,
    frames: Annotated[int, typer.Option(min=1, max=100, help="Crops per clip.")] = 16,
    per_video: Annotated[int, typer.Option(min=1, help="Clips per video, at most.")] = 4,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes.", show_default="one per core")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order and of a new split.")] = 0,
) -> int:
    """Cut the faces out of a data set of videos, once, for training.

    Run again after an interruption, it goes on where it stopped.
    """
    from train.data.clip_cutter import ClipSpec
    from train.data.prepare import PrepareError
    from train.data.prepare import prepare as prepare_clips
    from train.data.videos import LayoutError

    with _explained(PrepareError, LayoutError):
        prepared = prepare_clips(
            data,
            out,
            layout=layout,
            split=split,
            compression=compression,
            spec=ClipSpec(
                size=size,
                margin=margin,
                sample_hz=sample_hz,
                frames=frames,
                min_frames=min(frames, ClipSpec().min_frames),
                per_video=per_video,
            ),
            workers=workers,
            seed=seed,
        )
    typer.echo(
        f"{prepared.folder}: {prepared.clips} clips of {prepared.videos} videos, {prepared.skipped} skipped"
    )
    for note in prepared.notes:
        typer.echo(f"note: {note}")
    return 0


@train.command()
def fit(
    data: Sets,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory for the checkpoint; a run that was cut goes on.")
    ],
    config: RunConfig = None,
    sizes: Sizes = None,
    crops: Crops = None,
    val_groups: ValGroups = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Start from a checkpoint, a bundle or torchvision's weights.", show_default="random"
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Learn from what `unmask train teacher` wrote.", show_default="none"
        ),
    ] = None,
    seed: RunSeed = None,
    devices: Annotated[
        int | None, typer.Option(min=0, help="Accelerators a node; 0 for all.", show_default="1")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Nodes that torchrun started.", show_default="1")
    ] = None,
) -> int:
    """Train a model on prepared clips and write a checkpoint."""
    from runtime.errors import UnmaskError
    from train.data.clip_set import ClipSetError
    from train.fitting.run import fit as run_fit
    from train.models.config import FitConfig, RunUnreadable, read_run
    from train.models.detector import CheckpointError, ModelConfig
    from train.models.initial_weights import InitialWeightsError
    from train.models.teacher import TeacherError

    with _explained(RunUnreadable):
        sizes_of, run = read_run(config) if config else (ModelConfig(), FitConfig())
    run = _changed(
        run, seed=seed, devices=devices, nodes=nodes, sizes=sizes, crops=crops, val_groups=val_groups
    )
    if sizes is not None:
        with _explained(ValueError):
            sizes_of = replace(sizes_of, input_size=run.sizes[-1])

    # What these load does not say so well that PyTorch is missing.
    from train.fitting.calibrate import calibrate, held_out
    from train.fitting.calibration import CalibrationError
    from train.fitting.temporal_classifier import fit_temporal_classifier

    with _explained(ClipSetError):
        kept = held_out(data, run.val_groups)
    if not kept:
        typer.echo("nothing is kept out to calibrate the model on; see --val-groups", err=True)
    with _explained(
        ClipSetError, CheckpointError, InitialWeightsError, TeacherError, UnmaskError, ValueError
    ):
        run_fit(data, out, model_config=sizes_of, config=run, init=init, teacher=teacher)
    # Of the processes that torchrun started, the first one writes.
    if os.environ.get("RANK", "0") != "0":
        return 0
    if kept:
        try:
            # Calibrates too.
            fit_temporal_classifier(out, data, val_groups=run.val_groups, seed=run.seed)
        except CalibrationError as error:
            typer.echo(f"the model does not look at flicker: {error}", err=True)
            try:
                calibrate(out, kept, groups=run.val_groups or None)
            except CalibrationError as error:
                typer.echo(f"the model stays uncalibrated: {error}", err=True)
    typer.echo(f"written to {out}")
    return 0


@train.command()
def temporal(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A checkpoint or an exported model.")],
    data: Sets,
    val_groups: ValGroups = None,
    name: Annotated[
        str | None, typer.Option(help="What an exported model calls itself then.", show_default="as before")
    ] = None,
    seed: RunSeed = None,
) -> int:
    """Fit what a trained model makes of flicker to other clips, and calibrate it again.

    The network stays as it is. `unmask train fit` does this too, at its end.
    """
    from runtime.model.bundle import MANIFEST
    from train.data.clip_set import ClipSetError
    from train.models.detector import CheckpointError

    if name is not None and not (model / MANIFEST).is_file():
        raise UserMistake("--name is for an exported model; a checkpoint is called by its directory")
    if name == "":
        raise UserMistake("--name is empty; give the model a name or leave --name out")

    # What these load does not say so well that PyTorch is missing.
    from train.fitting.calibration import CalibrationError
    from train.fitting.temporal_classifier import fit_temporal_classifier

    groups = tuple(filter(None, (val_groups or "").split(",")))
    with _explained(ClipSetError, CheckpointError, CalibrationError, OSError):
        fit_temporal_classifier(model, data, val_groups=groups, seed=seed or 0, name=name)
    typer.echo(f"written to {model}")
    return 0


@train.command()
def teacher(
    data: Sets,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory for the teacher; a run that was cut goes on.")
    ],
    init: Annotated[
        Path | None,
        typer.Option(
            help="Weights to start from: a state dict of the network, or another teacher's directory.",
            show_default="random",
        ),
    ] = None,
    trunk: Annotated[str, typer.Option(help="The network, as timm names it.")] = "tf_efficientnet_lite0",
    config: RunConfig = None,
    sizes: Sizes = None,
    crops: Crops = None,
    val_groups: ValGroups = None,
    seed: RunSeed = None,
) -> int:
    """Train a pretrained network of another form, for `unmask train fit --teacher` to learn from."""
    from train.data.clip_set import ClipSetError
    from train.fitting.run import fit_teacher
    from train.models.config import FitConfig, RunUnreadable, read_run
    from train.models.detector import ModelConfig
    from train.models.teacher import TeacherError

    with _explained(RunUnreadable):
        sizes_of, run = read_run(config) if config else (ModelConfig(), FitConfig())
    run = _changed(run, seed=seed, sizes=sizes, crops=crops, val_groups=val_groups)
    with _explained(ClipSetError, TeacherError, ValueError):
        fit_teacher(data, out, trunk, crop_margin=sizes_of.crop_margin, config=run, init=init)
    typer.echo(f"written to {out}")
    return 0


def _changed(run: FitConfig, **given: int | str | None) -> FitConfig:
    """Change a run as the command line says: numbers and names with commas between them, or None."""
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        for name in changes.keys() & {"sizes", "crops"}:
            changes[name] = tuple(map(int, changes[name].split(",")))
        if "val_groups" in changes:
            changes["val_groups"] = tuple(filter(None, changes["val_groups"].split(",")))
        return replace(run, **changes)
    except ValueError as error:
        raise UserMistake(f"{error}; give sizes and crops as numbers with commas between") from error


@train.command()
def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Prepared clips, or a data set of videos.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory for the report.")],
    model: Annotated[
        Path | None, typer.Option(help="A checkpoint or an exported model.", show_default="the bundled model")
    ] = None,
    split: Annotated[
        Literal["auto", "train", "val", "test", "all"], typer.Option(help="The side to measure on.")
    ] = "auto",
    groups: Annotated[
        str | None, typer.Option(help="Measure on these groups only, with commas.", show_default="all")
    ] = None,
    layout: Annotated[Layout, typer.Option(help="How a data set of videos is laid out.")] = "auto",
    compression: Annotated[
        Literal["raw", "c23", "c40"], typer.Option(help="Which of FaceForensics++.")
    ] = "c23",
    robustness: Annotated[bool, typer.Option("--robustness", help="Measure on damaged clips too.")] = False,
    engine: Engine = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes.", show_default="one per core")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the intervals.")] = 0,
    record: Annotated[
        bool, typer.Option("--record", help="Write the figures into the manifest of the exported model.")
    ] = False,
) -> int:
    """Measure a model on labelled videos and write a report."""
    from runtime.model.bundle import MANIFEST
    from train.data.clip_set import ClipSetError
    from train.data.shards import PrepareError
    from train.data.videos import LayoutError
    from train.evaluation.evaluate import evaluate as measure
    from train.evaluation.report import ReportError
    from train.fitting.calibration import CalibrationError

    if record and (model is None or not (model / MANIFEST).is_file()):
        raise UserMistake("--record writes into an exported model; name one with --model")
    errors: list[type[Exception]] = [PrepareError, LayoutError, ClipSetError, ReportError, CalibrationError]
    if model is not None and (model / "config.json").is_file():
        # Of a bundle nothing is asked that needs PyTorch.
        from train.models.detector import CheckpointError

        errors.append(CheckpointError)
    with _explained(*errors):
        found = measure(
            model,
            data,
            out,
            split=split,
            groups=None if groups is None else set(filter(None, groups.split(","))),
            layout=layout,
            compression=compression,
            robustness=robustness,
            engine=engine,
            workers=workers,
            seed=seed,
        )
    if record and model is not None:
        from train.evaluation.record import record as write_record

        write_record(model, found)
    typer.echo(f"written to {out / 'report.md'}")
    return 0


@app.command()
def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT|BUNDLE", help="What `unmask train fit` wrote, or what this command wrote."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="BUNDLE", help="Directory to write a checkpoint to.", show_default=False),
    ] = None,
    weights: Annotated[
        Literal["int8", "float16", "float32"], typer.Option(help="How the weights are stored.")
    ] = "int8",
    crops: Annotated[
        Path | None,
        typer.Option(
            help="Face crops: half fit the rounding, half prove it; all are checked.",
            show_default="a portrait",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the model calls itself.", show_default="the checkpoint's name")
    ] = None,
    tensorrt: Annotated[
        bool, typer.Option("--tensorrt", help="Build the TensorRT engines ahead of time, into the cache.")
    ] = False,
    precision: Annotated[Literal["fp16", "fp32"], typer.Option(help="Of the TensorRT engines.")] = "fp16",
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="TensorRT engines for all GPUs from Ampere on.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Compare every engine with PyTorch and print the table.")
    ] = False,
    answers: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Answers of an engine that ran elsewhere, to check.", show_default=False
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Leave the checked crops for such an engine.", show_default=False),
    ] = None,
    json_out: Annotated[
        Path | None,
        typer.Option("--json", metavar="OUT", help="Write the figures to a file.", show_default=False),
    ] = None,
) -> int:
    """Write a checkpoint as the ONNX model that `monitor` and `scan` take, if it passes the parity gates.

    An exported model can be given instead, with `--tensorrt` to build its engines for this machine's GPU
    ahead of time, and with `--check` to compare what PyTorch, onnxruntime and TensorRT answer.
    """
    from export.commands import ExportOptions, run_export

    return run_export(
        ExportOptions(
            source=source,
            out=out,
            weights=weights,
            crops=crops,
            name=name,
            tensorrt=tensorrt,
            precision=precision,
            hardware_compatible=hardware_compatible,
            check=check,
            answers=tuple(answers or ()),
            save=save,
            json_out=json_out,
        ),
        say=typer.echo,
        step=lambda what: typer.echo(what, err=True),
    )


@bench.command()
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
    """Measure what a verdict costs, stage by stage, one frame after the other."""
    from benchmarks.suites.latency import run_latency

    return run_latency(
        source,
        samples=samples,
        warmup=warmup,
        repeats=repeats,
        model=model,
        engine=engine,
        json_out=json_out,
        compare=compare,
    )


@bench.command()
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
            metavar="HZ", help="Verdicts a second and face.", show_default="the model's sample rate"
        ),
    ] = None,
    heights: Annotated[
        str, typer.Option(help="Heights in pixels to send a file at.", show_default="480,720,1080")
    ] = "",
    seconds: Annotated[float, typer.Option(min=1, help="Length of each step.")] = 10.0,
    warmup: Annotated[float, typer.Option(min=0, help="Seconds before each step.")] = 3.0,
    bound: Annotated[
        float, typer.Option(metavar="MS", min=1, help="How late 1 % of the verdicts may be.")
    ] = 250.0,
    most: Annotated[int, typer.Option(min=1, help="Streams to try at most.")] = 32,
    repeats: Repeats = 2,
    model: Model = None,
    engine: Engine = "auto",
    json_out: JsonOut = None,
    compare: Compare = None,
) -> int:
    """Find how many live streams this machine sustains without a drop, and what stops it there."""
    from benchmarks.suites.throughput import run_throughput

    return run_throughput(
        source,
        rate_hz=rate,
        heights=_whole_numbers("--heights", heights) if heights else (),
        seconds=seconds,
        warmup_s=warmup,
        bound_ms=bound,
        most=most,
        repeats=repeats,
        model=model,
        engine=engine,
        json_out=json_out,
        compare=compare,
    )


@bench.command()
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
    from benchmarks.suites.baseline import run_baseline

    return run_baseline(
        video,
        repeats=repeats,
        compiled=compiled,
        model=model,
        engine=engine,
        json_out=json_out,
        compare=compare,
    )


@bench.command()
def roofline(
    batch: Annotated[str, typer.Option(help="Crops a call.")] = "1,2,4,8",
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
    """Hold the backbone against the arithmetic and the memory of this machine."""
    from benchmarks.suites.roofline import run_roofline

    return run_roofline(
        batches=_whole_numbers("--batch", batch),
        engines=engine or ["auto"],
        threads=threads,
        repeats=repeats,
        model=model,
        json_out=json_out,
        compare=compare,
    )


@bench.command()
def fanout(
    subscribers: Annotated[str, typer.Option(help="Numbers of fast subscribers.")] = "1,10,100",
    slow: Annotated[int, typer.Option(min=0, help="Slow readers beside them.")] = 5,
    rate: Annotated[float, typer.Option(metavar="HZ", min=0.1, help="Verdicts a second and stream.")] = 8.0,
    streams: Annotated[int, typer.Option(min=1, help="Streams with verdicts.")] = 4,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each run.")] = 6.0,
    repeats: Repeats = 3,
    json_out: JsonOut = None,
    compare: Compare = None,
) -> int:
    """Measure how fast a message reaches all subscribers, slow readers among them."""
    from benchmarks.suites.fanout import run_fanout

    return run_fanout(
        subscribers=_whole_numbers("--subscribers", subscribers),
        slow=slow,
        rate_hz=rate,
        streams=streams,
        seconds=seconds,
        repeats=repeats,
        json_out=json_out,
        compare=compare,
    )


@bench.command()
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
    batch: Annotated[str, typer.Option(help="Crops a call.")] = "1,8,32,64",
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
    from benchmarks.suites.gpu import run_gpu

    return run_gpu(
        crops=crops,
        tensorrt_python=tensorrt_python,
        batches=_whole_numbers("--batch", batch),
        seconds=seconds,
        compiled=compiled,
        model=model,
        json_out=json_out,
        compare=compare,
    )


def _whole_numbers(option: str, text: str) -> list[int]:
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise UserMistake(f"{option} {text}: give whole numbers from 1 on, with commas between")
    return numbers


def _parsed(texts: list[str], rtsp_transport: Literal["tcp", "udp"]) -> list[Source]:
    """Read the sources; of several, one that cannot be meant is told and left out."""
    from streams.errors import SourceError
    from streams.input.source import parse_source

    sources, mistakes = [], []
    for text in texts:
        try:
            sources.append(parse_source(text, rtsp_transport=rtsp_transport))
        except SourceError as error:
            mistakes.append(str(error))
    if not sources:
        raise UserMistake(*mistakes)
    for mistake in mistakes:
        _complain(mistake)
    return sources


@contextmanager
def _explained(*errors: type[Exception]) -> Iterator[None]:
    """Turn errors that say what to do into a line for the user."""
    try:
        yield
    except errors as error:
        raise UserMistake(str(error)) from error


def _checked(origins: list[str]) -> list[str]:
    from runtime.serving.access import Access

    try:
        Access(origins)
    except ValueError as error:
        raise UserMistake(f"--allow-origin: {error}") from error
    return origins


def __getattr__(name: str) -> Any:
    # Whoever only runs the command need not load the client.
    if name == "watch":
        from runtime.client import watch

        return watch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> NoReturn:
    """Run the command with the arguments of the process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command.

    Args:
        arguments: What follows `unmask` on the command line.

    Returns:
        The exit code: 0 on success, 2 on a user's mistake, which is told in one line on standard error.
    """
    try:
        code = app(arguments, prog_name="unmask", standalone_mode=False)
    except USAGE_ERROR as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "unmask")
        what = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        return _complain(f"{what}; see `{command} --help`")
    except UserMistake as mistake:
        for line in mistake.args:
            _complain(line)
        return 2
    except _known_errors() as error:
        return _complain(str(error))
    except ModuleNotFoundError as error:
        # Only a command that trains or measures may lack something: the rest is in the base installation.
        if arguments[0] not in EXTRAS:
            raise
        return _complain(
            f"`unmask {arguments[0]}` needs {_library(error.name)}, which is not installed; "
            f"install unmask with its extra: pip install '.[{arguments[0]}]' where its sources are"
        )
    return code if isinstance(code, int) else 0


def _known_errors() -> tuple[type[Exception], ...]:
    # Python asks for this only once there is an error.
    from runtime.errors import UnmaskError
    from streams.errors import StreamError

    return (UnmaskError, StreamError)


def _library(module: str | None) -> str:
    package = (module or "a library").partition(".")[0]
    return {"torch": "PyTorch", "sklearn": "scikit-learn"}.get(package, package)


def _complain(text: str) -> int:
    print("unmask:", " ".join(text.split()), file=sys.stderr)  # noqa: T201
    return 2


if __name__ == "__main__":
    main()
