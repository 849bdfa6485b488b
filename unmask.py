"""Real-time deepfake detection on live video: the command `unmask`, and the client for other programs.

from unmask import watch

async for message in watch("127.0.0.1:8765"):
    print(message)
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

import benchmarks.commands
import export.commands
import runtime.commands.cli
import train.commands
from runtime.commands.options import UserError, complain
from runtime.outputs.standard_error import open_standard_streams

if TYPE_CHECKING:
    from runtime.client import watch as watch

__all__ = ["app", "main", "watch"]

app = typer.Typer(
    help="Tell, live, whether a face in a video is a deepfake.",
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
runtime.commands.cli.add_commands(app)
app.add_typer(train.commands.app, name="train")
app.command()(export.commands.export)
app.add_typer(benchmarks.commands.app, name="bench")

EXTRAS = ("train", "export", "bench")
"""Commands with an extra of the same name, which contains the libraries that they need."""
# Base class of the usage errors, which typer does not export.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]


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


def main() -> NoReturn:
    """Run the command with the arguments of the process."""
    open_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names may contain characters that the encoding of the terminal or file lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
        # A terminal is never full, and that of Windows is no file.
        if not sys.stdout.isatty():
            sys.stdout = _standard_output(sys.stdout)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command.

    Args:
        arguments: Command line without the name of the program.

    Returns:
        The exit code: 0 on success, 2 after a mistake of the user, 1 after a failure that a restart may end;
        either is one line on standard error.
    """
    try:
        code = app(arguments, prog_name="unmask", standalone_mode=False)
    except _USAGE_ERROR as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "unmask")
        reason = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        if not reason:
            return 2  # a group without a command, whose help is already shown
        return complain(f"{reason}; see `{command} --help`")
    except UserError as mistake:
        for line in mistake.args:
            complain(line)
        return 2
    except _known_errors() as error:
        return complain(str(error), getattr(error, "exit_code", 2))
    except ModuleNotFoundError as error:
        # Other commands need only the base installation, so there it is a bug.
        if arguments[0] not in EXTRAS:
            raise
        return complain(
            f"`unmask {arguments[0]}` needs {_library(error.name)}, which is not installed; "
            f"install unmask with its extra: pip install '.[{arguments[0]}]' in its source directory"
        )
    return code if isinstance(code, int) else 0


class _StandardOutput(io.FileIO):
    """File of standard output that raises an error with one line once, and then drops what is written."""

    _failed = False

    def write(self, data: Any) -> int:
        if self._failed:  # Python writes once more on exit
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except BrokenPipeError:  # no failure: the reader, such as `head`, has read enough
            raise
        except OSError as error:
            from runtime.errors import OutputNotWritten

            self._failed = True
            raise OutputNotWritten(error) from error


def _standard_output(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(_StandardOutput(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering or stream.write_through,
    )


def _known_errors() -> tuple[type[Exception], ...]:
    # Called only after an error, so that starting a command stays fast.
    from runtime.errors import UnmaskError
    from streams.errors import StreamError

    return (UnmaskError, StreamError)


def _library(module: str | None) -> str:
    package = (module or "a library").partition(".")[0]
    return {"torch": "PyTorch", "sklearn": "scikit-learn"}.get(package, package)


def __getattr__(name: str) -> Any:
    # The client is loaded only by programs that use it.
    if name == "watch":
        from runtime.client import watch

        return watch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    main()
