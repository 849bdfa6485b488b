"""Secrets from files and environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from runtime.errors import os_reason

MAX_SECRET_BYTES = 4096


def read_secret(path: Path) -> str:
    """Return the secret in a file, without white space around it.

    Args:
        path: Text file of at most `MAX_SECRET_BYTES`.

    Raises:
        ValueError: It cannot be read, is empty, too long or not text; the message contains nothing of it.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path}: {os_reason(error)}") from error
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: it is not text") from None
    if not text or len(content) > MAX_SECRET_BYTES:
        raise ValueError(f"{path}: it is {'empty' if not text else 'longer than a secret'}")
    return text


def find_secret(
    variable: str | None, path: Path | None, environment: Mapping[str, str] = os.environ
) -> str | None:
    """Return the secret in an environment variable or a file; None if neither is given.

    Args:
        variable: Name of the environment variable, or None.
        path: The file, or None.
        environment: Environment variables.

    Raises:
        ValueError: The variable is not set or empty, or the file cannot be used.
    """
    if variable is not None:
        text = environment.get(variable, "").strip()
        if not text:
            raise ValueError(f"the environment variable {variable} is not set")
        return text
    return None if path is None else read_secret(path)
