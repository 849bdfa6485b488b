"""Command `unmask export`: its options. The work is in `run.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    source: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT|BUNDLE", help="Output of `unmask train fit`, or of this command."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="BUNDLE", help="Directory to write a checkpoint to.", show_default=False),
    ] = None,
    weights: Annotated[
        Literal["int8", "float16", "float32"], typer.Option(help="Stored type of the weights.")
    ] = "int8",
    crops: Annotated[
        Path | None,
        typer.Option(
            help="Face crops: half for rounding, half for the parity gates; all for --check.",
            show_default="a portrait",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model.", show_default="the checkpoint's name")
    ] = None,
    tensorrt: Annotated[
        bool, typer.Option("--tensorrt", help="Build the TensorRT engines ahead of time, into the cache.")
    ] = False,
    precision: Annotated[
        Literal["fp16", "fp32"], typer.Option(help="Precision of the TensorRT engines.")
    ] = "fp16",
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="TensorRT engines for all GPUs from Ampere on.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Compare every engine with PyTorch and print the table.")
    ] = False,
    recorded: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Recorded outputs of an engine that ran elsewhere.", show_default=False
        ),
    ] = None,
    save_crops: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the checked crops for such an engine.", show_default=False),
    ] = None,
    json_out: Annotated[
        Path | None,
        typer.Option("--json", metavar="OUT", help="Write the figures to a file.", show_default=False),
    ] = None,
) -> int:
    """Write a checkpoint as the ONNX model that `monitor` and `scan` take, if it passes the parity gates.

    An exported model can be given instead, with `--tensorrt` to build its engines for this machine's GPU
    ahead of time, and with `--check` to compare the outputs of PyTorch, onnxruntime and TensorRT.
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
        say=typer.echo,
        step=lambda what: typer.echo(what, err=True),
    )
