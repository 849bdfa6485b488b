"""Options of `unmask monitor`, ready to run: sources with their secrets, tokens, certificate and outputs.

    options = MonitorSetup(file=Path("unmask.toml"), given=given_settings(context)).load("skip")

`load` may be called again while the program runs, to read the files again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.commands.options import UserError
from runtime.commands.setup.arguments import KEYS, option_of
from runtime.commands.setup.outputs import check_output_files, make_outputs
from runtime.commands.setup.places import Places
from runtime.commands.setup.problems import Problems
from runtime.commands.setup.security import TokenFile, make_security
from runtime.config.lines import KeyPath
from runtime.config.model import MonitorConfig
from runtime.config.reading import Settings, make_config, merge, read_settings
from runtime.config.sources import WatchedSource, make_sources
from runtime.errors import ConfigInvalid
from runtime.outputs.options import OutputOptions
from runtime.serving.server import Security

NEEDS = (
    ("key", "cert"),
    ("proxy_address", "proxy_header"),
    ("jsonl_max_mb", "jsonl"),
    ("jsonl_keep", "jsonl"),
    ("jsonl_keep", "jsonl_max_mb"),
    ("webhook_secret_file", "webhook"),
    ("mqtt_password_file", "mqtt"),
    ("evidence_control", "evidence"),
    ("evidence_max_gb", "evidence"),
    ("evidence_days", "evidence"),
)
"""Options without an effect unless another one is given too, by the names of their parameters."""


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
        """Read the files and return the options; the mistakes of independent settings are reported together.

        Args:
            token_file: What to do about a token file that does not exist: `skip` it, because a run creates it
                before it serves, or report it as an error, because it is `needed`.

        Raises:
            ConfigInvalid: Names or values of the configuration are wrong.
            UserError: A value cannot be used, or there is no source.
            UnmaskError: A file that a setting names cannot be used.
        """
        read = Settings(values={}) if self.file is None else read_settings(self.file)
        settings = merge(read, self.given)
        _check_needs(self.given.values, settings.values)
        config, places = make_config(settings), Places(settings)
        problems = Problems()
        sources: list[WatchedSource] = []
        left_out: list[str] = []
        with problems.noted():
            sources, left_out = _make_sources(config, places, from_file=len(read.values.get("sources", ())))
        if not config.sources and not config.server.scan_uploads and self.file is None:
            raise UserError("missing argument 'SOURCE...'; see `unmask monitor --help`")
        with problems.noted():
            outputs = make_outputs(config, places)
        with problems.noted():
            check_output_files(config, places, [source.source for source in sources])
        with problems.noted():
            security = make_security(config.server, places, token_file)
        problems.raise_all()
        return MonitorOptions(
            config=config,
            sources=tuple(sources),
            security=security,
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
        f"{places.of('sources', problem.index, problem.key)}: {problem.reason}"
        for problem in problems
        if problem.index < from_file
    ]
    if wrong:
        raise ConfigInvalid(wrong)
    left_out = [problem.reason for problem in problems]
    if left_out and not sources:
        raise UserError(*left_out)
    return sources, left_out


def _check_needs(given: Mapping[str, Any], merged: Mapping[str, Any]) -> None:
    missing = {
        option: needed
        for option, needed in reversed(NEEDS)
        if _has(given, KEYS[option]) and not _has(merged, KEYS[needed])
    }
    if missing:
        lines = [
            f"{option_of(option)} has no effect without {option_of(needed)}; give both"
            for option, needed in reversed(missing.items())
        ]
        raise UserError(*lines)


def _has(values: Mapping[str, Any], path: KeyPath) -> bool:
    """Return whether a setting is given, itself or by the name of a file or an environment variable."""
    *tables, last = path
    table: Any = values
    for key in tables:
        table = table.get(key) if isinstance(table, Mapping) else None
    return isinstance(table, Mapping) and any(key in table for key in (last, f"{last}_env", f"{last}_file"))
