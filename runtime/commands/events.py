"""The commands `unmask events`: checking the evidence that `unmask monitor --evidence` has kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtime.commands.options import UserError
from runtime.errors import os_reason

app = typer.Typer(help="Check the evidence that `unmask monitor --evidence` has kept.", no_args_is_help=True)


@app.callback()
def events() -> None:
    """Check the evidence that `unmask monitor --evidence` has kept."""


@app.command()
def verify(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR", help="Folder of one event, or of all events.", show_default=False),
    ],
) -> int:
    """Compare the files of events with the SHA-256 in their manifests.

    Prints one line for each event; the exit code is 2 if one was changed, damaged or is incomplete. The hash
    of each manifest is printed too: compare it with the one in the log of the time, because whoever can
    change the files can change the manifest.
    """
    from runtime.outputs.evidence.manifest import MANIFEST, check_folder, file_sha256
    from streams.text import printable

    damaged = 0
    for folder in _event_folders(folders):
        differences = list(check_folder(folder))
        damaged += bool(differences)
        name = printable(folder.resolve().name)
        if not differences:
            typer.echo(f"{name}: unchanged, manifest SHA-256 {file_sha256(folder / MANIFEST)}")
        for difference in differences:
            typer.echo(f"{name}: {printable(difference)}")
    return 2 if damaged else 0


def _event_folders(folders: list[Path]) -> list[Path]:
    """Return the folders of events among the given ones and directly below them."""
    from runtime.outputs.evidence.manifest import EVENT_ID, MANIFEST

    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: not a folder")
        if (folder / MANIFEST).exists() or EVENT_ID.fullmatch(folder.resolve().name):
            found.append(folder)
            continue
        try:
            below = sorted(path for path in folder.iterdir() if EVENT_ID.fullmatch(path.name))
        except OSError as error:
            raise UserError(f"{folder}: {os_reason(error)}") from error
        if not below:
            raise UserError(f"{folder}: no events in this folder; give one that --evidence has written to")
        found += below
    return found
