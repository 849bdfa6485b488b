"""Version of the installed package."""

from __future__ import annotations

import importlib.metadata


def version() -> str:
    """Return the version of the installed package, or `unknown` for a checkout that is not installed."""
    try:
        return importlib.metadata.version("unmask")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
