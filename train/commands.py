"""Commands `unmask train ...`. Each imports what it needs when it runs, so that `unmask --help` is fast."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from runtime.commands.options import Engine, UserError, whole_numbers

if TYPE_CHECKING:
    from train.fitting.config import FitConfig
    from train.models.config import ModelConfig

app = typer.Typer(help="Train a model on your own data, and measure it.", no_args_is_help=True)

Layout = Literal["auto", "folder", "manifest", "ffpp", "celeb-df", "dfdc"]
Sets = Annotated[list[Path], typer.Argument(metavar="DATA", help="Sets of prepared clips or crops.")]
RunConfig = Annotated[
    Path | None,
    typer.Option(metavar="JSON", help="Settings of an earlier run (its config.json).", show_default=False),
]
Sizes = Annotated[
    str | None, typer.Option(help="Crop size in pixels of each training stage.", show_default="96,160")
]
Crops = Annotated[
    str | None, typer.Option(help="Number of crops of each training stage.", show_default="100000,100000")
]
ValGroups = Annotated[
    str | None, typer.Option(help="Validation groups of sets without a split.", show_default=False)
]
Manifests = Annotated[
    list[Path],
    typer.Argument(
        metavar="MANIFEST", help="CSV files of videos: path,label,group,split.", show_default=False
    ),
]
VideoFolder = Annotated[
    Path, typer.Option(metavar="DIR", help="Directory of the videos; an interrupted run is resumed.")
]
MAX_SEED = 2**32 - 1
RunSeed = Annotated[int | None, typer.Option(min=0, max=MAX_SEED, help="Random seed.", show_default="0")]


@app.command()
def prepare(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Data set of videos, or a CSV file that lists them.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory for the clips; an interrupted run is resumed.")
    ],
    layout: Annotated[Layout, typer.Option(help="Layout of the data set.")] = "auto",
    split: Annotated[
        Literal["official", "group"], typer.Option(help="Split of the data set, or a new split by groups.")
    ] = "official",
    compression: Annotated[
        Literal["raw", "c23", "c40"], typer.Option(help="Compression of FaceForensics++.")
    ] = "c23",
    size: Annotated[int, typer.Option(min=16, help="Side of the crops in pixels.")] = 224,
    margin: Annotated[
        float, typer.Option(min=0.5, max=4, help="Side of the crops as a multiple of the face height.")
    ] = 1.3,
    sample_hz: Annotated[float, typer.Option(min=1, max=120, help="Crops per second.")] = 8.0,
    frames: Annotated[int, typer.Option(min=1, max=100, help="Crops per clip.")] = 16,
    per_video: Annotated[int, typer.Option(min=1, help="Maximum number of clips per video.")] = 4,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes.", show_default="one per core")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Random seed of the order and of a new split.")
    ] = 0,
) -> int:
    """Extract face clips from a data set of videos, for training and evaluation.

    After an interruption, run the same command again to resume.
    """
    from train.data.clip_cutter import ClipSpec
    from train.data.prepare import prepare as prepare_clips

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
    if not prepared.clips:
        raise UserError(
            f"{prepared.folder}: none of {prepared.videos} videos has a clip; "
            f"see {prepared.folder / 'skipped.csv'} for the reasons, or give other videos"
        )
    typer.echo(
        f"{prepared.folder}: {prepared.clips} clips of {prepared.videos} videos, {prepared.skipped} skipped"
    )
    for note in prepared.notes:
        typer.echo(f"note: {note}")
    return 0


@app.command()
def fit(
    data: Sets,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory for the checkpoint; an interrupted run is resumed.")
    ],
    config: RunConfig = None,
    sizes: Sizes = None,
    crops: Crops = None,
    val_groups: ValGroups = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Initial weights: a checkpoint, a bundle or torchvision weights.", show_default="random"
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Teacher for distillation, from `unmask train teacher`.", show_default="none"
        ),
    ] = None,
    seed: RunSeed = None,
    devices: Annotated[
        int | None, typer.Option(min=0, help="Accelerators per node; 0 for all.", show_default="1")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Number of nodes started by torchrun.", show_default="1")
    ] = None,
) -> int:
    """Train a model on prepared clips and write a checkpoint."""
    _require_torch()
    model_config, run = _configs(
        config, seed=seed, devices=devices, nodes=nodes, sizes=sizes, crops=crops, val_groups=val_groups
    )
    _check_inputs(data, init=init, teacher=teacher)
    from msgspec.structs import replace

    from train.fitting.run import fit as run_fit

    if sizes is not None:
        model_config = replace(model_config, input_size=run.sampling.sizes[-1])
    run_fit(data, out, model_config=model_config, config=run, init=init, teacher=teacher)
    _report_written(out)
    return 0


@app.command()
def temporal(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A checkpoint or an exported model.")],
    data: Sets,
    val_groups: ValGroups = None,
    name: Annotated[
        str | None, typer.Option(help="New name of an exported model.", show_default="as before")
    ] = None,
    seed: RunSeed = None,
) -> int:
    """Fit the temporal classifier and the calibration of a trained model to other clips.

    The network is not changed. `unmask train fit` ends with this step too.
    """
    from runtime.model.manifest import MANIFEST_FILE

    if name is not None and not (model / MANIFEST_FILE).is_file():
        raise UserError("--name is for an exported model; the name of a checkpoint is that of its directory")
    if name == "":
        raise UserError("--name is empty; give the model a name or leave --name out")
    _require_torch()
    if not any((model / file).is_file() for file in (MANIFEST_FILE, "config.json")):
        reason = "contains no model" if model.is_dir() else "no such directory"
        raise UserError(
            f"{model}: {reason}; give a checkpoint of `unmask train fit`, or a model of `unmask export`"
        )
    _check_inputs(data)
    from train.fitting.calibrate import refit_temporal

    refit_temporal(model, data, val_groups=_names(val_groups or ""), seed=seed or 0, name=name)
    typer.echo(f"written to {model}")
    return 0


@app.command()
def teacher(
    data: Sets,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory for the teacher; an interrupted run is resumed.")
    ],
    init: Annotated[
        Path | None,
        typer.Option(
            help="Initial weights: a state dict of the network, or another teacher.",
            show_default="random",
        ),
    ] = None,
    backbone: Annotated[str, typer.Option(help="Name of the network in timm.")] = "tf_efficientnet_lite0",
    config: RunConfig = None,
    sizes: Sizes = None,
    crops: Crops = None,
    val_groups: ValGroups = None,
    seed: RunSeed = None,
) -> int:
    """Train a teacher: a network of another architecture, for `unmask train fit --teacher`."""
    _require_torch()
    model_config, run = _configs(config, seed=seed, sizes=sizes, crops=crops, val_groups=val_groups)
    _check_inputs(data, init=init)
    from train.fitting.run import fit_teacher

    fit_teacher(data, out, backbone, crop_margin=model_config.crop_margin, config=run, init=init)
    _report_written(out)
    return 0


def _report_written(out: Path) -> None:
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    # A distributed run executes the whole command in every process.
    rank_zero_only(typer.echo)(f"written to {out}")


def _require_torch() -> None:
    """Report a missing torch before anything else, without the seconds that its import takes."""
    if find_spec("torch") is None:
        raise ModuleNotFoundError("no module named 'torch'", name="torch")


def _check_inputs(data: Sequence[Path], *, init: Path | None = None, teacher: Path | None = None) -> None:
    """Raise an error about a path that does not exist, before the seconds that the imports take."""
    from train.data.clip_set import index_of

    for folder in data:
        index_of(folder)
    for option, path, advice in (
        ("--init", init, "check the path"),
        ("--teacher", teacher, "give the directory that `unmask train teacher` wrote"),
    ):
        if path is not None and not path.exists():
            raise UserError(f"{option} {path}: no such file or directory; {advice}")


def _configs(config: Path | None, **options: int | str | None) -> tuple[ModelConfig, FitConfig]:
    """Return the settings of a run: the defaults or a file's, changed by the options that are not None."""
    from msgspec.structs import replace

    from train.fitting.config import FitConfig, read_run
    from train.models.config import ModelConfig

    model_config, run = read_run(config) if config else (ModelConfig(), FitConfig())
    changes: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    stages: dict[str, Any] = {}
    for name in changes.keys() & {"sizes", "crops"}:
        stages[name] = tuple(whole_numbers(f"--{name}", changes.pop(name)))
    if "val_groups" in changes:
        changes["val_groups"] = _names(changes["val_groups"])
    return model_config, replace(run, sampling=replace(run.sampling, **stages), **changes)


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.split(","))))


@app.command()
def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Prepared clips, or a data set of videos.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory for the report.")],
    model: Annotated[
        Path | None, typer.Option(help="A checkpoint or an exported model.", show_default="the bundled model")
    ] = None,
    split: Annotated[
        Literal["auto", "train", "val", "test", "all"], typer.Option(help="Split to evaluate on.")
    ] = "auto",
    groups: Annotated[
        str | None, typer.Option(help="Comma-separated groups to evaluate on.", show_default="all")
    ] = None,
    layout: Annotated[Layout, typer.Option(help="Layout of a data set of videos.")] = "auto",
    compression: Annotated[
        Literal["raw", "c23", "c40"], typer.Option(help="Compression of FaceForensics++.")
    ] = "c23",
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Evaluate on corrupted clips too.")
    ] = False,
    engine: Engine = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes.", show_default="one per core")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Random seed of the intervals.")] = 0,
    record: Annotated[
        bool, typer.Option("--record", help="Write the metrics into the manifest of the exported model.")
    ] = False,
) -> int:
    """Evaluate a model on labelled videos and write a report."""
    from runtime.model.manifest import MANIFEST_FILE
    from train.evaluation.evaluate import EvaluationConfig
    from train.evaluation.evaluate import evaluate as run_evaluation
    from train.scoring.bootstrap import BootstrapConfig

    if record and (model is None or not (model / MANIFEST_FILE).is_file()):
        raise UserError("--record writes into an exported model; name one with --model")
    metrics = run_evaluation(
        model,
        data,
        out,
        EvaluationConfig(
            split=split,
            groups=None if groups is None else set(_names(groups)),
            layout=layout,
            compression=compression,
            robustness=robustness,
            engine=engine,
            workers=workers,
            bootstrap=BootstrapConfig(seed=seed),
        ),
    )
    if record and model is not None:
        from train.evaluation.record import record as write_record

        write_record(model, metrics)
    typer.echo(f"written to {out / 'report.md'}")
    return 0


@app.command()
def swap(
    manifests: Manifests,
    out: VideoFolder,
    split: Annotated[
        Literal["train", "val", "test", "all"],
        typer.Option(help="Split to use; with all, each has generators of its own."),
    ] = "train",
    generators: Annotated[
        int, typer.Option(min=1, max=8, help="Generators of each split, each of another design.")
    ] = 6,
    videos: Annotated[int, typer.Option(min=2, help="Forged videos of each generator.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Fitting steps of each generator.")] = 2400,
    seconds: Annotated[float, typer.Option(min=0.5, max=86400, help="Duration taken from each video.")] = 8.0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads.", show_default="one per core")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Random seed.")] = 0,
) -> int:
    """Make face swaps of real videos, for training: forged videos beside their re-encoded originals.

    Face-swap autoencoders are fitted to the real faces of the manifests.
    """
    from runtime.engines.cpu import usable_cores
    from train.face_swap.config import DESIGNS, SwapConfig
    from train.face_swap.run import make_swaps

    config = SwapConfig(
        designs=DESIGNS[:generators],
        videos=videos,
        steps=steps,
        seconds=seconds,
        threads=threads or usable_cores(),
        seed=seed,
    )
    made = make_swaps(manifests, out, config, split=split)
    typer.echo(f"{made.manifest}: {made.forged} forged videos and their originals, {made.skipped} skipped")
    return 0


@app.command("self-blend")
def self_blend(
    manifests: Manifests,
    out: VideoFolder,
    versions: Annotated[
        int, typer.Option(min=1, help="Forged videos of each real one, each perturbed in another way.")
    ] = 1,
    split: Annotated[Literal["train", "val", "test", "all"], typer.Option(help="Split to use.")] = "train",
    seconds: Annotated[float, typer.Option(min=1, max=86400, help="Duration taken from each video.")] = 6.0,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Random seed.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes.", show_default="one per core")
    ] = None,
) -> int:
    """Make self-blended videos of real ones, for training, beside their re-encoded originals.

    In every frame the face is blended with a perturbed copy of itself, so that it trembles and flickers.
    """
    from runtime.engines.cpu import usable_cores
    from train.self_blend.config import SelfBlendConfig
    from train.self_blend.run import make_self_blends

    config = SelfBlendConfig(versions=versions, seconds=seconds, workers=workers or usable_cores(), seed=seed)
    made = make_self_blends(manifests, out, config, split=split)
    typer.echo(f"{made.manifest}: {made.forged} forged videos and their originals, {made.skipped} skipped")
    return 0


@app.command()
def benchmark(
    manifests: Annotated[
        list[Path],
        typer.Argument(
            metavar="MANIFEST",
            help="CSV files of videos: path,label,group,split,method[,set].",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory of the results; an interrupted run is resumed.")
    ],
    model: Annotated[
        list[Path] | None,
        typer.Option(help="Exported model; several are compared.", show_default="the bundled model"),
    ] = None,
    split: Annotated[
        Literal["auto", "train", "val", "test", "all"], typer.Option(help="Split of each manifest.")
    ] = "auto",
    transcode: Annotated[
        str | None,
        typer.Option(
            metavar="all|NAME,...",
            help="Measure again after transcoding: h264-crf35, dark, 15fps, ...; see docs/training.md.",
            show_default="none",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for transcoded videos.", show_default="in the results"),
    ] = None,
    network_alone: Annotated[
        bool, typer.Option("--network-alone", help="Measure also without the temporal classifier.")
    ] = False,
    engine: Engine = "auto",
    jobs: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Random seed of the intervals.")] = 0,
) -> int:
    """Measure models on labelled whole videos through the path of `unmask scan`."""
    from train.footage.benchmark import BenchmarkConfig
    from train.footage.benchmark import benchmark as run_benchmark
    from train.footage.transcoding import choose_transcodings
    from train.scoring.bootstrap import BootstrapConfig

    run_benchmark(
        manifests,
        out,
        BenchmarkConfig(
            models=model or (None,),
            split=split,
            transcodings=choose_transcodings(_names(transcode or "")),
            cache=cache,
            network_alone=network_alone,
            engine=engine,
            jobs=jobs,
            bootstrap=BootstrapConfig(seed=seed),
        ),
    )
    typer.echo(f"written to {out / 'benchmark.html'}")
    return 0
