"""Benchmark of one or more models on labelled whole videos.

    results = benchmark([Path("live.csv"), Path("webcams.csv")], Path("report"), BenchmarkConfig())
    print(results["models"]["unmask-160"]["pooled"]["auc"])

It writes `benchmark.html`, `benchmark.json`, and `records.jsonl` with the scores, from which an interrupted
run continues.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from runtime.errors import os_reason
from runtime.files import write_atomically
from runtime.version import version
from train.data.splits import Split
from train.errors import ConfigInvalid
from train.evaluation.measure import to_json
from train.evaluation.report import ReportError
from train.footage.charts import reliability_chart, risk_coverage_chart, roc_chart, score_chart
from train.footage.figures import HOUR_S, ScannedFootage, auc_difference, measure_footage, set_figures
from train.footage.labelled import LabelledVideo, read_manifests
from train.footage.page import benchmark_page
from train.footage.scanning import BenchmarkModel, code_digest, scan_videos, transcode_videos
from train.footage.transcoding import Transcoding, TranscodingFailed
from train.footage.video_record import VideoRecord, unreadable
from train.scoring.bootstrap import BootstrapConfig

# Bootstrap draws of each figure after a transcoding, of which there are many.
REPLICATES_OF_CONDITIONS = 200


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Settings of a benchmark.

    Args:
        models: Directories of bundles to compare; None stands for the bundled model. The first one is the
            reference of the comparison.
        split: Split to take; see `read_manifests`.
        transcodings: Transcodings after which everything is measured again.
        cache: Folder for the transcoded videos; None for one in the folder of the results.
        network_alone: Whether to measure each model also without its temporal classifier.
        engine: `auto`, `onnxruntime`, `openvino` or `tensorrt`.
        jobs: Number of processes.
        bootstrap: Number and seed of the bootstrap draws.

    Raises:
        ConfigInvalid: There is no model, or `jobs` is below 1.
    """

    models: Sequence[Path | None] = (None,)
    split: Literal[Split, "auto", "all"] = "auto"
    transcodings: Sequence[Transcoding] = ()
    cache: Path | None = None
    network_alone: bool = False
    engine: str = "auto"
    jobs: int = 1
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigInvalid("there must be at least one model")
        if self.jobs < 1:
            raise ConfigInvalid(f"jobs must be at least 1, not {self.jobs}")


def benchmark(
    manifests: Sequence[Path], out: Path, config: BenchmarkConfig, *, console: Console | None = None
) -> dict[str, Any]:
    """Measure the models and write the results.

    Args:
        manifests: CSV files of labelled videos; see `read_manifests`.
        out: Directory of the results, created if missing.
        config: Settings.
        console: Console of the progress bars; standard error by default.

    Returns:
        The content of `benchmark.json`.

    Raises:
        LayoutError: A manifest cannot be read or has no video of the split.
        BundleError: A bundle cannot be used.
        EngineError: The engine cannot run, or failed.
        ReportError: `out` cannot be written.
    """
    console = console or Console(stderr=True)
    videos = read_manifests(manifests, config.split)
    models = _models(config)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"{out} cannot be written: {os_reason(error)}; give another --out") from error
    paths = [video.path for video in videos]
    copies = {
        transcoding.name: transcode_videos(
            paths, transcoding, config.cache or out / "transcoded", jobs=config.jobs, console=console
        )
        for transcoding in config.transcodings
    }
    footage = {model.name: _scan(model, videos, out, config.jobs, console) for model in models}
    conditions = {
        model.name: {
            name: _scan(model, videos, out, config.jobs, console, copies=copies[name]) for name in copies
        }
        for model in models
    }
    results: dict[str, Any] = to_json(_results(footage, conditions, videos, config))
    write_atomically(out / "benchmark.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    charts = [
        (f"scores of {name}", score_chart(scanned, f"Scores of {name}")) for name, scanned in footage.items()
    ]
    charts += [
        (f"risk and coverage of {name}", risk_coverage_chart(scanned, f"Risk and coverage of {name}"))
        for name, scanned in footage.items()
    ]
    charts += [("ROC", roc_chart(footage)), ("reliability", reliability_chart(footage))]
    write_atomically(out / "benchmark.html", benchmark_page(results, charts))
    return results


def _models(config: BenchmarkConfig) -> list[BenchmarkModel]:
    """Return the models with unique names; all bundles are checked before the first scan."""
    models: list[BenchmarkModel] = []
    for path in dict.fromkeys(config.models):
        name = BenchmarkModel(name="", path=path).load().name
        if any(model.name == name for model in models):
            name = f"{name} ({path or 'bundled'})"
        models.append(BenchmarkModel(name=name, path=path, engine=config.engine))
        if config.network_alone:
            alone = f"{name}, network alone"
            models.append(BenchmarkModel(name=alone, path=path, network_alone=True, engine=config.engine))
    return models


def _scan(
    model: BenchmarkModel,
    videos: Sequence[LabelledVideo],
    folder: Path,
    jobs: int,
    console: Console,
    *,
    copies: Mapping[Path, Path | TranscodingFailed] | None = None,
) -> ScannedFootage:
    """Scan the videos, or copies of them, with one model."""
    scanned = {video.path: video.path if copies is None else copies[video.path] for video in videos}
    paths = [path for path in scanned.values() if isinstance(path, Path)]
    records = scan_videos(paths, model, folder, jobs=jobs, console=console)

    def record_of(video: LabelledVideo) -> VideoRecord:
        path = scanned[video.path]
        return records[path] if isinstance(path, Path) else unreadable(str(path))

    return ScannedFootage(
        videos=videos,
        records=[record_of(video) for video in videos],
        calibration=model.load().calibration,
    )


def _results(
    footage: Mapping[str, ScannedFootage],
    conditions: Mapping[str, Mapping[str, ScannedFootage]],
    videos: Sequence[LabelledVideo],
    config: BenchmarkConfig,
) -> dict[str, Any]:
    reference = next(iter(footage.values()))
    real_s = sum(r.seconds for v, r in zip(videos, reference.records, strict=True) if not v.fake)
    models: dict[str, Any] = {}
    for name, scanned in footage.items():
        models[name] = {
            "threshold_fake": scanned.calibration.threshold_fake,
            "threshold_real": scanned.calibration.threshold_real,
            **measure_footage(scanned, config.bootstrap),
            "conditions": _conditions(conditions[name], config.bootstrap),
            "videos": [_row(*row) for row in zip(videos, scanned.records, strict=True)],
        }
        if scanned is not reference:
            models[name]["auc_difference"] = auc_difference(scanned, reference, config.bootstrap)
    return {
        "version": version(),
        "code": code_digest(),
        "seed": config.bootstrap.seed,
        "replicates": config.bootstrap.replicates,
        "data": {
            "split": config.split,
            "videos": len(videos),
            "real": sum(not video.fake for video in videos),
            "fake": sum(video.fake for video in videos),
            "groups": len({video.group for video in videos}),
            "real_hours": real_s / HOUR_S,
        },
        "models": models,
    }


def _conditions(conditions: Mapping[str, ScannedFootage], config: BootstrapConfig) -> dict[str, Any]:
    """Return the figures after each transcoding, pooled and by data set."""
    fewer = replace(config, replicates=min(config.replicates, REPLICATES_OF_CONDITIONS))
    measured = {}
    for name, scanned in conditions.items():
        names = sorted({video.data_set for video in scanned.videos})
        sets = {
            data_set: set_figures(
                scanned.select(lambda video, _, data_set=data_set: video.data_set == data_set),  # type: ignore[misc]
                fewer,
            )
            for data_set in names
        }
        measured[name] = {"pooled": set_figures(scanned, fewer), "data_sets": sets}
    return measured


def _row(video: LabelledVideo, record: VideoRecord) -> dict[str, Any]:
    return {
        "data_set": video.data_set,
        "name": video.path.name,
        "fake": video.fake,
        "group": video.group,
        "method": video.method,
        "state": record.state,
        "p_fake": record.p_fake,
        "seconds": record.seconds,
        "alarms": record.alarms,
        "first_alarm_s": record.first_alarm_s,
        "reasons": record.reasons,
        "luma": record.luma,
        "tone_angle": record.tone_angle,
        "error": record.error,
    }
