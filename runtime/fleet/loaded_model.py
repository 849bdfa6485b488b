"""Model and engine of a worker: the same as where the command was started, or a refusal."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.engines.factory import detector_infer, open_engine
from runtime.engines.interface import Engine
from runtime.errors import UnmaskError
from runtime.model.bundle import Bundle, load_bundle
from runtime.pipeline.batcher import Batcher
from runtime.version import version
from streams.faces.detector import Infer


@dataclass(frozen=True, kw_only=True)
class ModelSetup:
    """Model and engine that every worker loads; sent to other processes and machines.

    Args:
        folder: Working directory to which relative paths refer.
        model: Directory of the bundle; None for the bundled model.
        digest: SHA-256 of the manifest of the bundle where the command was started.
        version: Version of unmask there.
        engine: As for `open_engine`.
        gpu: Whether `auto` may use a GPU.
        threads: CPU threads of the engine; None for all cores.
        niceness: Niceness of the command.
    """

    folder: Path
    model: Path | None
    digest: str
    version: str
    engine: str
    gpu: bool = True
    threads: int | None
    niceness: int = 0


class WorkerRefused(Exception):
    """A worker that cannot work here.

    Args:
        reason: Cause and advice in one line.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class LoadedModel:
    """Model, engine, batcher and inference of the face detector of one process."""

    bundle: Bundle
    engine: Engine
    batcher: Batcher
    infer: Infer


def load_model(setup: ModelSetup, stack: ExitStack) -> LoadedModel:
    """Change to the folder of the command and load its model.

    Args:
        setup: What to load.
        stack: Closes the engine and the batcher.

    Raises:
        WorkerRefused: The model or the engine cannot be used here, or another version is installed.
    """
    # Elsewhere the folder exists only on shared storage; without it no relative path does either.
    with suppress(OSError):
        os.chdir(setup.folder)
    if version() != setup.version:
        raise WorkerRefused(
            f"unmask {version()} is installed here, and {setup.version} where the command was started; "
            "install the same version on every machine"
        )
    try:
        bundle = load_bundle(setup.model)
        if bundle.digest != setup.digest:
            raise WorkerRefused(
                "the model differs from that where the command was started; "
                "copy the same directory everywhere"
            )
        infer = detector_infer(setup.engine)
        engine = stack.enter_context(open_engine(bundle, setup.engine, threads=setup.threads, gpu=setup.gpu))
        return LoadedModel(bundle, engine, stack.enter_context(Batcher(engine.features)), infer)
    except UnmaskError as error:
        raise WorkerRefused(str(error)) from error
