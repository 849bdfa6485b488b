"""Options of `unmask monitor`, ready to run: sources with their secrets, tokens, certificate and outputs.

    options = MonitorSetup(file=Path("unmask.toml"), given=given_settings(context)).load("create")

`load` may be called again while the program runs, to read the files again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.commands.options import UserError
from runtime.commands.setup.outputs import make_outputs
from runtime.commands.setup.places import Places
from runtime.commands.setup.security import TokenFile, make_security
from runtime.config.model import MonitorConfig
from runtime.config.reading import Settings, make_config, merge, read_settings
from runtime.config.sources import WatchedSource, make_sources
from runtime.errors import ConfigInvalid, VideoNotWritten
from runtime.outputs.options import OutputOptions
from runtime.serving.server import Security

NEEDS = (
    ("--jsonl-max-mb", ("outputs", "jsonl", "max_mb"), "--jsonl", ("outputs", "jsonl", "path")),
    (
        "--webhook-secret-file",
        ("outputs", "webhook", "secret_file"),
        "--webhook",
        ("outputs", "webhook", "url"),
    ),
    ("--mqtt-password-file", ("outputs", "mqtt", "password_file"), "--mqtt", ("outputs", "mqtt", "url")),
    ("--evidence-control", ("evidence", "control"), "--evidence", ("evidence", "folder")),
)
"""Options without an effect unless another one is given too."""


@dataclass(frozen=True, kw_only=True)
class MonitorOptions:
    """Options of `unmask monitor`.

    Args:
        config: The configuration that they were made from.
        sources: Sources to watch, with unique names.
        security: Tokens, proxy and TLS of the server.
        outputs: Outputs beside the WebSocket.
        left_out: Why sources of the command line cannot be used; the others are watched.
        places: Places of the settings, for errors.
    """

    config: MonitorConfig
    sources: tuple[WatchedSource, ...]
    security: Security
    outputs: OutputOptions
    left_out: tuple[str, ...] = ()
    places: Places

    def place(self, source: WatchedSource, key: str) -> str:
        """Return the place of a setting that holds for a source: its own, or that of all sources.

        Args:
            source: One of the sources.
            key: Key that both may have: `rate` or `thresholds`.
        """
        if source.index is not None and getattr(self.config.sources[source.index], key) is not None:
            return self.places.of("sources", source.index, key)
        return self.places.of(key)


@dataclass(frozen=True, kw_only=True)
class MonitorSetup:
    """Where the options of a run come from.

    Args:
        file: Configuration file, or None.
        given: Settings of the command line, which count before those of the file.
    """

    file: Path | None
    given: Settings

    def load(self, token_file: TokenFile) -> MonitorOptions:
        """Read the files and return the options.

        Args:
            token_file: What to do about a token file that does not exist: `create` it and print its token,
                `skip` it, as a check does, or report it as an error, because it is `needed`.

        Raises:
            ConfigInvalid: Names or values of the configuration are wrong.
            UserError: A value cannot be used, or there is no source.
            UnmaskError: A file that a setting names cannot be used.
        """
        read = Settings(values={}) if self.file is None else read_settings(self.file)
        settings = merge(read, self.given)
        _check_needs(self.given.values, settings.values)
        config, places = make_config(settings), Places(settings)
        sources, left_out = _make_sources(config, places, from_file=len(read.values.get("sources", ())))
        if not config.sources and not config.server.scan_uploads and self.file is None:
            raise UserError("missing argument 'SOURCE...'; see `unmask monitor --help`")
        outputs = make_outputs(config, places)
        if outputs.annotate is not None and len(config.sources) != 1:
            raise VideoNotWritten(outputs.annotate, "there are several sources; watch one of them")
        return MonitorOptions(
            config=config,
            sources=tuple(sources),
            security=make_security(config.server, places, token_file),
            outputs=outputs,
            left_out=tuple(left_out),
            places=places,
        )


def _make_sources(
    config: MonitorConfig, places: Places, *, from_file: int
) -> tuple[list[WatchedSource], list[str]]:
    """Return the sources, and why some of the command line are left out; each of a file must be right."""
    sources, problems = make_sources(config)
    wrong = [
        f"{places.of('sources', index, 'address')}: {reason}"
        for index, reason in problems
        if index < from_file
    ]
    if wrong:
        raise ConfigInvalid(wrong)
    left_out = [reason for _, reason in problems]
    if left_out and not sources:
        raise UserError(*left_out)
    return sources, left_out


def _check_needs(given: Mapping[str, Any], merged: Mapping[str, Any]) -> None:
    for option, path, needed, needed_path in NEEDS:
        if _has(given, path) and not _has(merged, needed_path):
            raise UserError(f"{option} has no effect without {needed}; give both")


def _has(values: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    table: Any = values
    for key in path:
        if not isinstance(table, Mapping) or key not in table:
            return False
        table = table[key]
    return True
