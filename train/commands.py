"""Commands `unmask train ...`: their options. What they need is imported when they run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from runtime.commands.options import Engine, UserError, explained

if TYPE_CHECKING:
    from train.fitting.config import FitConfig

app = typer.Typer(help="Train a model on your own data, and measure it.")

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


@app.command()
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

    with explained(PrepareError, LayoutError):
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


@app.command()
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
    from train.fitting.config import FitConfig, RunUnreadable, read_run
    from train.fitting.run import fit as run_fit
    from train.models.checkpoint import CheckpointError
    from train.models.config import ModelConfig
    from train.models.initial_weights import InitialWeightsError
    from train.models.teacher import TeacherError

    with explained(RunUnreadable):
        sizes_of, run = read_run(config) if config else (ModelConfig(), FitConfig())
    run = _changed(
        run, seed=seed, devices=devices, nodes=nodes, sizes=sizes, crops=crops, val_groups=val_groups
    )
    if sizes is not None:
        with explained(ValueError):
            sizes_of = replace(sizes_of, input_size=run.sampling.sizes[-1])

    with explained(ClipSetError, CheckpointError, InitialWeightsError, TeacherError, UnmaskError, ValueError):
        run_fit(data, out, model_config=sizes_of, config=run, init=init, teacher=teacher)
    _say_written(out)
    return 0


@app.command()
def temporal(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A checkpoint or an exported model.")],
    data: Sets,
    val_groups: ValGroups = None,
    name: Annotated[
        str | None, typer.Option(help="What an exported model calls itself then.", show_default="as before")
    ] = None,
    seed: RunSeed = None,
) -> int:
    """Fit the temporal classifier and the calibration of a trained model to other clips.

    The network stays as it is. `unmask train fit` ends with this step too.
    """
    from runtime.model.manifest import MANIFEST_FILE
    from train.data.clip_set import ClipSetError
    from train.models.checkpoint import CheckpointError

    if name is not None and not (model / MANIFEST_FILE).is_file():
        raise UserError("--name is for an exported model; a checkpoint is called by its directory")
    if name == "":
        raise UserError("--name is empty; give the model a name or leave --name out")

    # Imported after torch, so that the error of a machine without it names torch.
    from train.fitting.calibrate import refit_temporal
    from train.fitting.platt_scaling import CalibrationError

    groups = tuple(filter(None, (val_groups or "").split(",")))
    with explained(ClipSetError, CheckpointError, CalibrationError, OSError):
        refit_temporal(model, data, val_groups=groups, seed=seed or 0, name=name)
    typer.echo(f"written to {model}")
    return 0


@app.command()
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
    from train.fitting.config import FitConfig, RunUnreadable, read_run
    from train.fitting.run import fit_teacher
    from train.models.config import ModelConfig
    from train.models.teacher import TeacherError

    with explained(RunUnreadable):
        sizes_of, run = read_run(config) if config else (ModelConfig(), FitConfig())
    run = _changed(run, seed=seed, sizes=sizes, crops=crops, val_groups=val_groups)
    with explained(ClipSetError, TeacherError, ValueError):
        fit_teacher(data, out, trunk, crop_margin=sizes_of.crop_margin, config=run, init=init)
    _say_written(out)
    return 0


def _say_written(out: Path) -> None:
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    # A distributed run executes the whole command in every process.
    rank_zero_only(typer.echo)(f"written to {out}")


def _changed(run: FitConfig, **given: int | str | None) -> FitConfig:
    """Change a run as the command line says: numbers and names with commas between them, or None."""
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    stages: dict[str, Any] = {}
    for name in changes.keys() & {"sizes", "crops"}:
        try:
            stages[name] = tuple(map(int, changes.pop(name).split(",")))
        except ValueError as error:
            raise UserError(f"--{name}: {error}; give numbers with commas between") from error
    if "val_groups" in changes:
        changes["val_groups"] = tuple(filter(None, changes["val_groups"].split(",")))
    with explained(ValueError):
        return replace(run, sampling=replace(run.sampling, **stages), **changes)


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
        str | None, typer.Option(help="Groups to evaluate on, separated by commas.", show_default="all")
    ] = None,
    layout: Annotated[Layout, typer.Option(help="How a data set of videos is laid out.")] = "auto",
    compression: Annotated[
        Literal["raw", "c23", "c40"], typer.Option(help="Which of FaceForensics++.")
    ] = "c23",
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Evaluate on corrupted clips too.")
    ] = False,
    engine: Engine = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes.", show_default="one per core")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the intervals.")] = 0,
    record: Annotated[
        bool, typer.Option("--record", help="Write the metrics into the manifest of the exported model.")
    ] = False,
) -> int:
    """Evaluate a model on labelled videos and write a report."""
    from runtime.model.manifest import MANIFEST_FILE
    from train.data.clip_set import ClipSetError
    from train.data.shards import PrepareError
    from train.data.videos import LayoutError
    from train.evaluation.evaluate import EvaluationConfig
    from train.evaluation.evaluate import evaluate as run_evaluation
    from train.evaluation.report import ReportError
    from train.scoring.bootstrap import BootstrapConfig

    if record and (model is None or not (model / MANIFEST_FILE).is_file()):
        raise UserError("--record writes into an exported model; name one with --model")
    errors: list[type[Exception]] = [PrepareError, LayoutError, ClipSetError, ReportError]
    if model is not None and (model / "config.json").is_file():
        # A bundle is evaluated without torch.
        from train.models.checkpoint import CheckpointError

        errors.append(CheckpointError)
    with explained(*errors):
        metrics = run_evaluation(
            model,
            data,
            out,
            EvaluationConfig(
                split=split,
                groups=None if groups is None else set(filter(None, groups.split(","))),
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
