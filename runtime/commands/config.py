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
    from runtime.commands.setup.problems import Problems
    from runtime.commands.setup.sources import check_sources, load_model
    from runtime.config.reading import Settings
    from runtime.errors import ConfigInvalid

    try:
        options = MonitorSetup(file=file, given=Settings(values={})).load("skip")
        problems = Problems()
        if options.config.jobs > 1:
            # Only here, because it loads what the processes need.
            from runtime.commands.monitor.processes import find_jobs_problems

            with problems.noted():
                if lines := find_jobs_problems(options):
                    raise UserError(*lines)
        with problems.noted():
            check_sources(options, load_model(options))
        problems.raise_all()
    except ConfigInvalid as error:
        raise UserError(*error.problems) from None
    names = ", ".join(source.source.name for source in options.sources)
    typer.echo(f"{file}: valid; sources: {names or 'none'}")
    return 0
