"""Which unmask this is."""

from __future__ import annotations

import importlib.metadata


def version() -> str:
    """Give the installed package's version; `unknown` where a checkout is run without being installed."""
    try:
        return importlib.metadata.version("unmask")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
