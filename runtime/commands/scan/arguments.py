"""Command line of `unmask scan`, in which the address after `--ray` may be left out."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import typer.core

_ADDRESS = re.compile(r"(auto|local|[a-z]+://.*|(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5})")


class ScanCommand(typer.core.TyperCommand):
    """Command with an option `--ray [ADDRESS]`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of the command line."""
        return super().parse_args(ctx, with_ray_value(args))


def with_ray_value(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with an empty value for a `--ray` that no address follows.

    Args:
        arguments: Arguments; a file of the form of an address is a file.
    """
    changed: list[str] = []
    options = True
    for number, argument in enumerate(arguments):
        options = options and argument != "--"
        following = arguments[number + 1] if number + 1 < len(arguments) else ""
        is_address = _ADDRESS.fullmatch(following) and not os.path.lexists(following)
        changed.append("--ray=" if options and argument == "--ray" and not is_address else argument)
    return changed
