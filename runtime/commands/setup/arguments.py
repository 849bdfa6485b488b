"""Settings given on the command line of `unmask monitor`, by the keys that they have in a file."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import typer

from runtime.commands.options import UserError
from runtime.config.lines import KeyPath
from runtime.config.reading import Settings
from streams.input.devices.hwaccel import check_hwaccel

KEYS: Mapping[str, KeyPath] = {
    "model": ("model",),
    "engine": ("engine",),
    "jobs": ("jobs",),
    "rate": ("rate",),
    "duration": ("duration",),
    "host": ("server", "host"),
    "port": ("server", "port"),
    "allow_origin": ("server", "allow_origin"),
    "max_clients": ("server", "max_clients"),
    "token_file": ("server", "token_file"),
    "insecure": ("server", "insecure"),
    "cert": ("server", "cert"),
    "key": ("server", "key"),
    "base_path": ("server", "base_path"),
    "proxy_header": ("server", "proxy_header"),
    "proxy_address": ("server", "proxy_addresses"),
    "stun": ("server", "stun"),
    "scan_uploads": ("server", "scan_uploads"),
    "jsonl": ("outputs", "jsonl", "path"),
    "jsonl_max_mb": ("outputs", "jsonl", "max_mb"),
    "jsonl_keep": ("outputs", "jsonl", "keep"),
    "webhook": ("outputs", "webhook", "url"),
    "webhook_secret_file": ("outputs", "webhook", "secret_file"),
    "mqtt": ("outputs", "mqtt", "url"),
    "mqtt_password_file": ("outputs", "mqtt", "password_file"),
    "annotate": ("outputs", "annotate"),
    "evidence": ("evidence", "folder"),
    "evidence_control": ("evidence", "control"),
    "evidence_max_gb": ("evidence", "max_gb"),
    "evidence_days": ("evidence", "days"),
}
"""Key of each option, by the name of its parameter."""


def given_settings(context: typer.Context) -> Settings:
    """Return the settings that the user has given on the command line; defaults are left out.

    Args:
        context: Context of the command.

    Raises:
        UserError: There are more names than sources, the hardware is unknown, or an option applies to sources
            of the command line and there is none.
    """
    values: dict[str, Any] = {}
    places: dict[KeyPath, str] = {}
    for parameter, path in KEYS.items():
        if not _is_given(context, parameter):
            continue
        value = context.params[parameter]
        table = values
        for key in path[:-1]:
            table = table.setdefault(str(key), {})
        table[str(path[-1])] = _plain(value)
        option = option_of(parameter)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        places[path] = f"{option} {value:g}" if is_number else option
    sources = _sources(context)
    if sources:
        values["sources"] = sources
        for index in range(len(sources)):
            places["sources", index] = "SOURCE"
            places["sources", index, "name"] = "--name"
    return Settings(values=values, places=places, origin="the command line")


def option_of(parameter: str) -> str:
    """Return the option of a parameter, such as `--token-file`."""
    return f"--{parameter.replace('_', '-')}"


def _sources(context: typer.Context) -> list[dict[str, str]]:
    texts, names = context.params["sources"] or [], context.params["name"] or []
    if len(names) > len(texts):
        raise UserError(f"--name: {len(names)} names for {len(texts)} sources; give one for each source")
    if not texts:
        for parameter, key in (("rtsp_transport", "transport"), ("hwaccel", "hwaccel")):
            if _is_given(context, parameter):
                raise UserError(
                    f"{option_of(parameter)} applies to sources of the command line, and there is none; "
                    f"in a configuration write {key} below a source"
                )
    device = context.params["hwaccel"]
    if device is not None:
        try:
            check_hwaccel(device)
        except ValueError as error:
            raise UserError(f"--{error}") from None
    sources = []
    for text, name in zip_longest(texts, names):
        source = {"address": text, "transport": context.params["rtsp_transport"]}
        if device is not None:
            source["hwaccel"] = device
        sources.append(source if name is None else {**source, "name": name})
    return sources


def _is_given(context: typer.Context, parameter: str) -> bool:
    """Return whether the user has given an option."""
    source = context.get_parameter_source(parameter)
    # Compared by name, because typer does not export the enumeration.
    return source is not None and source.name != "DEFAULT"


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, list | tuple) else value
