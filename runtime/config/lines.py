"""Line numbers of the keys of a TOML document, which `tomllib` does not tell."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any, TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]
"""Keys from the outermost table inwards; a number is the index in an array."""


def find_lines(text: str) -> dict[KeyPath, int]:
    """Return the line on which each key and table of a valid document begins.

    Args:
        text: A document that `tomllib` has parsed without an error.
    """
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    for number, statement in _statements(text):
        content = tomllib.loads(statement)
        if not statement.lstrip().startswith("["):
            for path in _paths(content):
                lines.setdefault((*table, *path), number)
            continue
        keys = _header_keys(content)
        table = _in_last_elements(keys[:-1], counts)
        if statement.lstrip().startswith("[["):
            array = (*table, keys[-1])
            counts[array] = counts.get(array, 0) + 1
            table = (*array, counts[array] - 1)
        else:
            table = _in_last_elements(keys, counts)
        for length in range(1, len(table) + 1):
            lines.setdefault(table[:length], number)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield the first line and the text of each header and each key with its value."""
    pending, first = "", 0
    for number, line in enumerate(text.split("\n"), start=1):
        if not pending and not line.strip():
            continue
        first = first if pending else number
        pending += f"{line}\n"
        try:
            content = tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            continue  # the value continues on the next line
        if content:
            yield first, pending
        pending = ""


def _header_keys(content: dict[str, Any]) -> list[str]:
    keys = []
    inner: Any = content
    while inner:
        if isinstance(inner, list):
            inner = inner[0]
            continue
        (key,) = inner
        keys.append(key)
        inner = inner[key]
    return keys


def _in_last_elements(keys: list[str], counts: dict[KeyPath, int]) -> KeyPath:
    """Return the path of a header, in which the name of an array stands for its last element."""
    path: KeyPath = ()
    for key in keys:
        path = (*path, key)
        if path in counts:
            path = (*path, counts[path] - 1)
    return path


def _paths(value: Any, prefix: KeyPath = ()) -> Iterator[KeyPath]:
    if prefix:
        yield prefix
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, (*prefix, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, (*prefix, index))
