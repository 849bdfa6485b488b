"""Command `unmask export` and its options; `run.py` runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT|BUNDLE",
            help="Checkpoint from `unmask train fit`, or bundle from this command.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE", help="Directory of the bundle to write from a checkpoint.", show_default=False
        ),
    ] = None,
    weights: Annotated[
        Literal["int8", "float16", "float32"] | None,
        typer.Option(help="Stored type of the weights.", show_default="int8"),
    ] = None,
    crops: Annotated[
        Path | None,
        typer.Option(
            help="Face crops: half to fit the rounding, half for the parity gates; all for --check.",
            show_default="a portrait",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the exported model.", show_default="the checkpoint's name")
    ] = None,
    tensorrt: Annotated[
        bool,
        typer.Option("--tensorrt", help="Build the TensorRT engines and store them in the engine cache."),
    ] = False,
    precision: Annotated[
        Literal["fp16", "fp32"] | None,
        typer.Option(help="Precision of the TensorRT engines.", show_default="fp16"),
    ] = None,
    hardware_compatible: Annotated[
        bool,
        typer.Option("--hardware-compatible", help="Build TensorRT engines for all GPUs from Ampere on."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Compare every engine with PyTorch and print a table.")
    ] = False,
    recorded: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Outputs recorded elsewhere, to compare in --check.", show_default=False
        ),
    ] = None,
    save_crops: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the crops of --check, to record outputs elsewhere.",
            show_default=False,
        ),
    ] = None,
    json_out: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="OUT", help="Write the results of --check as JSON.", show_default=False
        ),
    ] = None,
) -> int:
    """Export a checkpoint as a model bundle for `monitor` and `scan`, if it passes the parity gates.

    With a bundle instead of a checkpoint, `--tensorrt` builds its engines for this machine's GPU, and
    `--check` compares the outputs of PyTorch, onnxruntime and TensorRT.
    """
    from export.run import ExportOptions, run_export

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
            recorded=tuple(recorded or ()),
            save_crops=save_crops,
            json_out=json_out,
        ),
        report_result=typer.echo,
        report_step=lambda step: typer.echo(step, err=True),
    )
