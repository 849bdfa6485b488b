"""Options and errors that the commands of all stages share. Light to import: `unmask --help` loads this."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from runtime.outputs.standard_error import goes_to_journal, with_priority, write_line
from streams.text import printable

Model = Annotated[
    Path | None,
    typer.Option(help="Directory of a model that `unmask export` wrote.", show_default="the bundled one"),
]
Engine = Annotated[str, typer.Option(metavar="auto|onnxruntime|openvino|tensorrt", help="Inference engine.")]


class UserError(Exception):
    """Mistake of the user: each argument is printed as one line, and the program exits with code 2."""


def whole_numbers(option: str, text: str) -> list[int]:
    """Parse whole numbers of at least 1, separated by commas.

    Args:
        option: Name of the option, for the error.
        text: Its value.

    Raises:
        UserError: The text has another form.
    """
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise UserError(f"{option} {text}: give whole numbers from 1 on, separated by commas")
    return numbers


def complain(text: str, code: int = 2) -> int:
    """Print an error as one line on standard error and return the exit code; 2 is that of a mistake."""
    line = f"unmask: {printable(text, 2000)}"
    write_line(with_priority(line, logging.ERROR) if goes_to_journal() else line)
    return code
