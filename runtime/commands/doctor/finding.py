"""One line of `unmask doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "optional", "problem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Result of one check.

    Args:
        subject: What was checked, such as `screen`.
        level: `ok`; `optional` if a part that not everyone needs is missing; `problem` if unmask cannot work.
        text: What was found.
        advice: What to do; for an `ok` finding how to use it.
    """

    subject: str
    level: Level
    text: str
    advice: str
