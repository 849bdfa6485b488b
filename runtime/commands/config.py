"""The command `unmask config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Check a configuration file of `unmask monitor`.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Check a configuration file of `unmask monitor`."""


@app.command()
def check(file: Annotated[Path, typer.Argument(metavar="FILE", help="TOML file.")]) -> int:
    """Check a file, with the model, secrets, tokens and certificates that it names; open no source.

    Each problem is one line with file, line and key; the exit code is then 2.
    """
    from runtime.commands.options import UserError
    from runtime.commands.setup.options import MonitorSetup
    from runtime.commands.setup.sources import check_sources, load_model
    from runtime.config.reading import Settings
    from runtime.errors import ConfigInvalid

    try:
        options = MonitorSetup(file=file, given=Settings(values={})).load("skip")
        check_sources(options, load_model(options))
    except ConfigInvalid as error:
        raise UserError(*error.problems) from None
    names = ", ".join(source.source.name for source in options.sources)
    typer.echo(f"{file}: valid; sources: {names or 'none'}")
    return 0
