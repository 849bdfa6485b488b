"""Configuration from a file and from options, checked the same way; every problem names its place.

config = make_config(merge(read_settings(Path("unmask.toml")), settings_of_the_command_line))
"""

from __future__ import annotations

import difflib
import re
import tomllib
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from runtime.config.lines import KeyPath, find_lines
from runtime.config.model import MonitorConfig
from runtime.errors import ConfigInvalid, os_reason
from streams.input.source import split_name

S = TypeVar("S", bound=msgspec.Struct)

MAX_BYTES = 1024 * 1024
TYPES: Mapping[str, str] = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "an array",
    "object": "a table",
}
"""Types as messages of msgspec name them, in words."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings before they are checked, and where each comes from.

    Args:
        values: Nested tables, as `tomllib` returns them.
        places: Place of a setting by its path, such as `unmask.toml:7` or `--port`.
        origin: Place of settings that are not in `places`, such as the name of the file.
    """

    values: Mapping[str, Any]
    places: Mapping[KeyPath, str] = field(default_factory=dict)
    origin: str = "configuration"

    def place(self, path: KeyPath) -> str:
        """Return the place of a setting, or else of one inside it, or of the nearest table around it."""
        if path not in self.places:
            for inner, place in self.places.items():
                if inner[: len(path)] == path:
                    return place
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.origin

    def problem(self, path: KeyPath, text: str) -> str:
        """Return a line about a setting; an option of the command line stands for its key."""
        place = self.place(path)
        return (
            f"{place}: {text}" if place.startswith("--") else f"{place}: {dotted(path) or 'settings'}: {text}"
        )


def read_settings(path: Path) -> Settings:
    """Read a file of settings.

    Args:
        path: TOML file.

    Raises:
        ConfigInvalid: It cannot be read or is not TOML; the message names the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigInvalid([f"{path}: {os_reason(error)}"]) from error
    if len(content) > MAX_BYTES:
        raise ConfigInvalid([f"{path}: it is larger than 1 MiB; give a configuration file"])
    try:
        # The mark that some editors write at the beginning is no part of TOML.
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
        values = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigInvalid([f"{path}:{line}: not UTF-8 text"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid([_syntax_problem(path, text, str(error))]) from None
    except (ValueError, RecursionError):
        raise ConfigInvalid([f"{path}: a number is too long, or values are nested too deeply"]) from None
    places = {key: f"{path}:{line}" for key, line in find_lines(text).items()}
    return Settings(values=values, places=places, origin=str(path))


def merge(first: Settings, second: Settings) -> Settings:
    """Return the settings of both; of one that both contain, the second counts, and arrays are joined.

    Args:
        first: Settings of a file.
        second: Settings of the command line.
    """
    places = dict(first.places)

    def merged(one: Mapping[str, Any], other: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
        values = dict(one)
        for key, value in other.items():
            here, before = (*path, key), values.get(key)
            offset = 0
            if isinstance(before, Mapping) and isinstance(value, Mapping):
                values[key] = merged(before, value, here)
                continue
            if isinstance(before, list) and isinstance(value, list):
                offset = len(before)
                value = [*before, *value]
            values[key] = value
            for place, text in second.places.items():
                if place[: len(here)] == here:
                    places[_shifted(place, len(here), offset)] = text
        return values

    return Settings(values=merged(first.values, second.values, ()), places=places, origin=first.origin)


def make_config(settings: Settings) -> MonitorConfig:
    """Check settings and return the configuration.

    Args:
        settings: The settings.

    Raises:
        ConfigInvalid: Names or values are wrong; the message has a line for each, with its place.
    """
    return decode(MonitorConfig, settings, _duplicate_names(settings))


def decode(kind: type[S], settings: Settings, problems: Iterable[str] = ()) -> S:
    """Check settings and return the struct that they describe.

    Args:
        kind: The struct.
        settings: The settings.
        problems: What else is wrong with them.

    Raises:
        ConfigInvalid: Names or values are wrong; the message has a line for each, with its place.
    """
    decoder = _Decoder(kind, settings)
    config = decoder.decode(kind, settings.values, ())
    decoder.problems += problems
    if decoder.problems:
        raise ConfigInvalid(decoder.problems)
    assert isinstance(config, kind)
    return config


class _Decoder:
    """Decoding of settings that collects all problems.

    Args:
        root: Struct of all settings.
        settings: The settings.
    """

    def __init__(self, root: type[msgspec.Struct], settings: Settings) -> None:
        self._root = root
        self._settings = settings
        self.problems: list[str] = []

    def decode(
        self, kind: type[msgspec.Struct], values: Mapping[str, Any], path: KeyPath
    ) -> msgspec.Struct | None:
        """Return the struct of a table, or None after adding its problems."""
        fields = {item.name: item for item in msgspec.structs.fields(kind)}
        before = len(self.problems)
        found: dict[str, Any] = {}
        for key, value in values.items():
            here = (*path, key)
            if key not in fields:
                self._add(here, f"unknown key; {_nearest(key, path, fields, self._root)}")
                continue
            found[key] = self._value(fields[key].type, value, here)
        for name, item in fields.items():
            if name not in values and item.required:
                self._add(path, f"the key {name} is missing")
        if len(self.problems) > before:
            return None
        try:
            return kind(**found)
        except ValueError as error:
            self._add(path, str(error))
            return None

    def _value(self, kind: Any, value: Any, path: KeyPath) -> Any:
        """Return the value of a key, or None after adding its problems."""
        section = _section_of(kind)
        if section is not None and isinstance(value, Mapping):
            return self.decode(section, value, path)
        if get_origin(kind) is tuple and _section_of(get_args(kind)[0]) and isinstance(value, list):
            inner = get_args(kind)[0]
            return tuple(self._value(inner, item, (*path, index)) for index, item in enumerate(value))
        try:
            if section is not None:
                keys = ", ".join(item.name for item in msgspec.structs.fields(section))
                raise msgspec.ValidationError(f"expected a table with keys of {keys}")
            return msgspec.convert(value, kind, dec_hook=_path_from)
        except msgspec.ValidationError as error:
            self._add(path, plain_message(str(error), kind))
            return None

    def _add(self, path: KeyPath, text: str) -> None:
        self.problems.append(self._settings.problem(path, text))


def _path_from(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    raise msgspec.ValidationError("Expected the path of a file")


def _section_of(kind: Any) -> type[msgspec.Struct] | None:
    """Return the struct in a type, which may be optional; None if there is none."""
    members = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    for member in members:
        if isinstance(member, type) and issubclass(member, msgspec.Struct):
            return member
    return None


def table_of(kind: Any) -> type[msgspec.Struct] | None:
    """Return the struct of a table or of an array of tables; None if a type is neither."""
    return _section_of(get_args(kind)[0] if get_origin(kind) is tuple else kind)


def _duplicate_names(settings: Settings) -> Iterator[str]:
    sources = settings.values.get("sources")
    first: dict[str, str] = {}
    for index, source in enumerate(sources if isinstance(sources, list) else ()):
        if not isinstance(source, Mapping):
            continue
        name, address, key = source.get("name"), source.get("address"), "name"
        if name is None and isinstance(address, str):
            (name, _), key = split_name(address), "address"
        if not isinstance(name, str):
            continue
        path = ("sources", index, key)
        if name in first:
            yield settings.problem(path, f"{name!r} is also the name in {first[name]}; give another one")
        first.setdefault(name, settings.place(path))


def _nearest(key: str, path: KeyPath, fields: Mapping[str, Any], root: type[msgspec.Struct]) -> str:
    normal = key.lower().replace("-", "_")
    secret = [name for name in fields if name.startswith((f"{normal}_env", f"{normal}_file"))]
    if secret and normal not in fields:
        return f"did you mean {' or '.join(secret)}?"
    if close := difflib.get_close_matches(normal, fields, n=1, cutoff=0.6):
        return f"did you mean {close[0]}?"
    elsewhere = [found for found in _all_keys(root) if found[-1] == normal]
    if elsewhere:
        return f"did you mean {dotted(elsewhere[0])}?"
    return f"the keys here are {', '.join(fields)}"


def _all_keys(kind: type[msgspec.Struct], path: KeyPath = ()) -> Iterator[KeyPath]:
    for item in msgspec.structs.fields(kind):
        here = (*path, item.name)
        yield here
        inner = table_of(item.type)
        if inner is not None:
            yield from _all_keys(inner, here)


def _syntax_problem(path: Path, text: str, message: str) -> str:
    reason, _, position = message.rpartition(" (at ")
    match = re.match(r"line (\d+)", position)
    line = int(match[1]) if match else text.count("\n") + 1
    key = _key_on(text, line)
    return f"{path}:{line}: {f'{key}: ' if key else ''}{(reason or message).lower()}; check the TOML syntax"


def _key_on(text: str, line: int) -> str | None:
    """Return the key on a line, whose value may be a secret."""
    lines = text.split("\n")
    match = re.match(r"\s*([A-Za-z0-9_.-]+)\s*=", lines[line - 1] if line <= len(lines) else "")
    return match[1] if match else None


def _shifted(path: KeyPath, depth: int, offset: int) -> KeyPath:
    if len(path) > depth and isinstance(index := path[depth], int):
        return (*path[:depth], index + offset, *path[depth + 1 :])
    return path


def dotted(path: KeyPath) -> str:
    """Return a path as in a file, such as `sources[0].name`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def plain_message(message: str, kind: Any) -> str:
    """Return the message of a `ValidationError` in plain words.

    Args:
        message: The message.
        kind: Type that the value should have.
    """
    if "matching regex" in message:
        examples = [part.examples for part in _parts(kind) if isinstance(part, msgspec.Meta)]
        message = f"expected {', '.join(example for group in examples for example in group or ())}"
    elif message.startswith("Invalid enum value"):
        choices = [get_args(part) for part in _parts(kind) if get_origin(part) is Literal]
        given = message.partition(" - at ")[0].removeprefix("Invalid enum value ")
        message = f"expected one of {', '.join(choice for group in choices for choice in group)}, not {given}"
    text = re.sub(r"`(.*?)`", lambda found: _in_words(found[1]), message.partition(" - at ")[0])
    return text[0].lower() + text[1:]


def _parts(kind: Any) -> Iterator[Any]:
    """Yield a type and everything inside it."""
    yield kind
    for inner in get_args(kind):
        yield from _parts(inner)


def _in_words(kind: str) -> str:
    """Return the name of a type; a key that may be left out has no other value for that."""
    return re.sub(r"\w+", lambda found: TYPES.get(found[0], found[0]), kind.removesuffix(" | null"))
