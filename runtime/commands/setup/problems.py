"""Errors of independent checks, reported together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runtime.commands.options import UserError
from runtime.errors import ConfigInvalid, UnmaskError


class Problems:
    """Errors of independent checks."""

    def __init__(self) -> None:
        self._errors: list[UserError | UnmaskError] = []

    def __bool__(self) -> bool:
        """Return whether a check has failed."""
        return bool(self._errors)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the error of a check, and go on after it."""
        try:
            yield
        except (UserError, UnmaskError) as error:
            self._errors.append(error)

    def raise_all(self) -> None:
        """Raise the only error, or one with the lines of all; return if every check has passed.

        Raises:
            ConfigInvalid: There are several.
            UserError, UnmaskError: There is one.
        """
        # Several checks may find the same mistake, such as a rate of all sources.
        lines = dict.fromkeys(line for error in self._errors for line in _lines(error))
        if len(self._errors) == 1 or len(lines) == 1:
            raise self._errors[0]
        if lines:
            raise ConfigInvalid(list(lines))


def _lines(error: UserError | UnmaskError) -> list[str]:
    if isinstance(error, UserError):
        return [str(line) for line in error.args]
    return list(error.problems) if isinstance(error, ConfigInvalid) else [str(error)]
