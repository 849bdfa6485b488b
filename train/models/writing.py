"""Errors of writing a model: a folder without permission, a full disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from runtime.errors import PathError, UnmaskError, os_reason
from train.errors import TrainError


class ModelNotWritten(PathError, TrainError):
    """Model, teacher or state of a run that cannot be written."""

    advice = "make it writable, free some space, or give another directory"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the errors of the system and of torch in a block that writes a model into `ModelNotWritten`.

    Args:
        path: The directory or file that is written.

    Raises:
        ModelNotWritten: The block could not write.
    """
    try:
        yield
    except UnmaskError:
        raise
    except OSError as error:
        raise ModelNotWritten(path, f"cannot be written ({os_reason(error)})") from error
    except (RuntimeError, SafetensorError) as error:
        # torch and safetensors do not tell why.
        raise ModelNotWritten(path, "cannot be written in full") from error
