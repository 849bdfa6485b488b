"""Places of settings in errors that only appear when a setting is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runtime.commands.options import UserError
from runtime.config.reading import Settings, dotted


class Places:
    """Places of the settings of one run.

    Args:
        settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def of(self, *path: str | int) -> str:
        """Return the place of a setting: its option, or file, line and key."""
        place = self._settings.place(path)
        return place if place.startswith("-") else f"{place}: {dotted(path)}"

    @contextmanager
    def naming(self, *path: str | int) -> Iterator[None]:
        """Turn a ValueError into the user's mistake, with the place of a setting.

        Raises:
            UserError: The block has raised a ValueError.
        """
        try:
            yield
        except ValueError as error:
            raise UserError(f"{self.of(*path)}: {error}") from None
