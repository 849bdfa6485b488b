"""Base of settings that are checked by their types, whether a program or a file states them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from runtime.config.reading import plain_message
from train.errors import ConfigInvalid

# Limits also keep out infinity, with which nothing can be computed.
Positive = Annotated[float, Meta(gt=0, le=1e9)]
NotNegative = Annotated[float, Meta(ge=0, le=1e9)]
Share = Annotated[float, Meta(ge=0, le=1)]
ShareBelowOne = Annotated[float, Meta(ge=0, lt=1)]
Count = Annotated[int, Meta(ge=0, le=10**9)]
PositiveCount = Annotated[int, Meta(ge=1, le=10**9)]
Seed = Annotated[int, Meta(ge=0, lt=2**32)]
CropSize = Annotated[int, Meta(ge=32, le=4096)]


class CheckedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings whose fields are checked by their types.

    Raises:
        ConfigInvalid: A value has another type, or is out of its range.
    """

    def __post_init__(self) -> None:
        for item in msgspec.structs.fields(self):
            try:
                msgspec.convert(getattr(self, item.name), item.type)
            except msgspec.ValidationError as error:
                raise ConfigInvalid(f"{item.name}: {plain_message(str(error), item.type)}") from None
