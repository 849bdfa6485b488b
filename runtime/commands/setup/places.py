"""Places of settings in errors that only appear when a setting is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runtime.commands.options import UserError
from runtime.config.reading import Settings, dotted
from runtime.errors import ConfigInvalid, UnmaskError


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

    @contextmanager
    def naming_errors(self, *path: str | int) -> Iterator[None]:
        """Add the place of a setting of a file to an error of what it names; an option is named by the error.

        Raises:
            ConfigInvalid: The block has raised an UnmaskError about a setting of a file.
        """
        try:
            yield
        except UnmaskError as error:
            place = self.of(*path)
            if place.startswith("-"):
                raise
            raise ConfigInvalid([f"{place}: {error}"]) from error
