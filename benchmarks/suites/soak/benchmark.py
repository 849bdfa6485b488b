"""A long run of the real program on RTSP cameras, with a fault at regular intervals, and limits to keep.

The program runs as a command in a process of its own; GStreamer's RTSP server sends the demo's face from each
camera, through a link that can disturb it. Each fault affects one camera, or none: the others must continue.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from benchmarks.harness.benchmark_record import (
    Figure,
    Output,
    OutputConfig,
    distribution,
    new_record,
    new_table,
    quantity,
)
from benchmarks.harness.errors import HelperFailed, SettingInvalid
from benchmarks.helpers.rtsp_process import RtspProcess, missing_requirement
from benchmarks.suites.soak.clips import write_clips
from benchmarks.suites.soak.faults import FAULTS, Fault, Scene, SoakCamera
from benchmarks.suites.soak.faulty_link import FaultyLink
from benchmarks.suites.soak.monitored_process import MonitoredProcess
from benchmarks.suites.soak.summary import Check, Injection, Minute, as_json, checks
from benchmarks.suites.soak.verdict_log import VerdictLog, first_after, longest_gap_s, seconds_within

WARMUP_S = 120.0
LEAD_S = 2.0  # from the start of an interval to its fault


@dataclass(frozen=True, kw_only=True)
class SoakConfig(OutputConfig):
    """Settings of `unmask bench soak`.

    Args:
        minutes: Length of the run.
        cameras: Number of cameras, at least 2.
        every_s: Seconds from one fault to the next.
        max_gap_s: Longest time without a score that a camera without a fault may have.
        max_recovery_s: Longest time from the end of a fault to the next score.
        model: Directory of the bundle; None for the bundled model.
        json_out: File to write the record to; None for none.
        compare: Record of an earlier run to compare with; None for none.

    Raises:
        SettingInvalid: There are fewer than two cameras, or the run is shorter than one interval.
    """

    minutes: float = 30.0
    cameras: int = 4
    every_s: float = 60.0
    max_gap_s: float = 5.0
    max_recovery_s: float = 20.0
    model: Path | None = None

    def __post_init__(self) -> None:
        if self.cameras < 2:
            raise SettingInvalid("--cameras", self.cameras, "give at least 2, so that one has no fault")
        if self.minutes * 60 < self.every_s:
            raise SettingInvalid(
                "--minutes", self.minutes, f"give at least the {self.every_s:g} s of a fault"
            )


def run_soak(config: SoakConfig) -> int:
    """Run, print a line per fault and the limits, and write a record.

    Args:
        config: The settings.

    Returns:
        0 if all limits were kept, else 1.

    Raises:
        HelperFailed: A camera or the program did not start.
    """
    output = Output("soak", config)
    if problem := missing_requirement():
        raise HelperFailed("cameras", f"no gst-rtsp-server: {problem}", "see CONTRIBUTING.md")
    soak = Soak(config)
    with tempfile.TemporaryDirectory(prefix="unmask-soak-") as folder:
        soak.run(Path(folder))
    limits = soak.checks()
    record = new_record(
        "soak",
        settings={
            "minutes": config.minutes,
            "cameras": config.cameras,
            "every_s": config.every_s,
            "max_gap_s": config.max_gap_s,
            "max_recovery_s": config.max_recovery_s,
        },
        figures=soak.figures(),
        warmup="until every camera has a score",
        minutes=as_json(soak.minutes),
        faults=as_json(soak.injections),
        checks=as_json(limits),
    )
    output.finish(record, _check_table(limits))
    return 0 if all(check.passed for check in limits) else 1


@dataclass
class Soak:
    """One run, and what was measured in it.

    Args:
        config: The settings.
    """

    config: SoakConfig
    minutes: list[Minute] = field(default_factory=list)
    injections: list[Injection] = field(default_factory=list)
    _end: tuple[int, int, float] = (0, 0, 0.0)

    def run(self, folder: Path) -> None:
        """Start everything, inject the faults and stop.

        Args:
            folder: Empty folder for videos, logs and the recording.
        """
        clips = write_clips(folder)
        with ExitStack() as stack:
            cameras = []
            for number in range(self.config.cameras):
                process = RtspProcess(clips.h264, folder / f"camera-{number}.log")
                stack.callback(process.kill)
                link = stack.enter_context(FaultyLink(process.port, seed=number))
                cameras.append(SoakCamera(name=f"cam{number + 1}", process=process, link=link, clips=clips))
            model = [] if self.config.model is None else ["--model", str(self.config.model)]
            monitor = stack.enter_context(
                MonitoredProcess([*(camera.source for camera in cameras), *model], folder)
            )
            with VerdictLog(monitor.address) as log:
                self._inject_all(cameras, monitor, log)
            monitor.stop()
        assert monitor.exit_code is not None
        assert monitor.stopped_s is not None
        self._end = monitor.tracebacks(), monitor.exit_code, monitor.stopped_s

    def checks(self) -> list[Check]:
        """Return the limits, each with the measured value."""
        tracebacks, exit_code, stopped_s = self._end
        return checks(
            self.minutes,
            self.injections,
            max_gap_s=self.config.max_gap_s,
            max_recovery_s=self.config.max_recovery_s,
            tracebacks=tracebacks,
            exit_code=exit_code,
            stopped_s=stopped_s,
        )

    def figures(self) -> dict[str, Figure]:
        """Return the figures of the record."""
        recoveries = [each.recovery_s for each in self.injections if each.recovery_s is not None]
        figures = {
            "memory": distribution([[minute.usage.memory_mib for minute in self.minutes]], "MiB"),
            "threads": quantity([minute.usage.threads for minute in self.minutes], "threads"),
            "files": quantity([minute.usage.files for minute in self.minutes], "descriptors"),
            "scores": quantity([minute.scores_hz for minute in self.minutes], "1/s", better="higher"),
            "gap": distribution([[minute.gap_s for minute in self.minutes]], "s"),
        }
        return {**figures, "recovery": distribution([recoveries], "s")} if recoveries else figures

    def _inject_all(self, cameras: list[SoakCamera], monitor: MonitoredProcess, log: VerdictLog) -> None:
        address = urlsplit(monitor.address)
        assert address.hostname is not None
        assert address.port is not None
        scene = Scene(
            camera=cameras[0], cameras=cameras, monitor=monitor, server=(address.hostname, address.port)
        )
        deadline = time.monotonic() + WARMUP_S
        while not all(log.times(camera.name) for camera in cameras):
            if time.monotonic() > deadline or not monitor.running:
                raise HelperFailed(
                    "monitor", "not every camera had a score within two minutes", "stop other programs"
                )
            time.sleep(0.2)
        console = Console(highlight=False, markup=False, soft_wrap=True)
        started = time.monotonic()
        for number in range(int(self.config.minutes * 60 / self.config.every_s)):
            scene.camera = cameras[number % len(cameras)]
            self._inject(FAULTS[number % len(FAULTS)], scene, log, started)
            console.print(self._line())
            if not monitor.running:
                return

    def _inject(self, fault: Fault, scene: Scene, log: VerdictLog, started: float) -> None:
        """Inject one fault, wait for the end of the interval and measure."""
        begin = time.monotonic()
        until = begin + self.config.every_s
        time.sleep(LEAD_S)
        fault.start(scene)
        time.sleep(min(fault.seconds, self.config.every_s / 2))
        fault.stop(scene)
        stopped = time.monotonic()
        time.sleep(max(0.0, until - time.monotonic()))
        until = time.monotonic()
        affected = {
            "one": [scene.camera.name],
            "all": [camera.name for camera in scene.cameras],
            "none": [],
        }[fault.affects]
        times = {camera.name: log.times(camera.name) for camera in scene.cameras}
        recoveries = [first_after(times[name], stopped) for name in affected]
        known = [recovery for recovery in recoveries if recovery is not None]
        self.injections.append(
            Injection(
                at_s=round(begin + LEAD_S - started, 1),
                fault=fault.name,
                camera=" ".join(affected) if fault.affects == "one" else fault.affects,
                affects=fault.affects,
                states=list(
                    itertools.chain(*(log.states(begin, until).get(name, ()) for name in affected[:1]))
                ),
                recovery_s=round(max(known), 2) if known and len(known) == len(recoveries) else None,
            )
        )
        counted = [sum(begin <= at < until for at in each) for each in times.values()]
        overloads = {name: log.overloads(name, until) for name in times}
        gaps = [
            longest_gap_s(times[name], begin, until, excused=overloads[name])
            for name in times
            if name not in affected
        ]
        overloaded_s = sum(seconds_within(spans, begin, until) for spans in overloads.values())
        self.minutes.append(
            Minute(
                end_s=round(until - started, 1),
                usage=scene.monitor.usage(),
                scores_hz=round(sum(counted) / len(counted) / (until - begin), 2),
                gap_s=round(max(gaps, default=0.0), 2),
                overloaded=round(overloaded_s / len(times) / (until - begin), 3),
                load=round(os.getloadavg()[0], 1),
            )
        )

    def _line(self) -> str:
        minute, injection = self.minutes[-1], self.injections[-1]
        recovery = "-" if injection.recovery_s is None else f"{injection.recovery_s:.1f} s"
        seen = f"{injection.camera}: {' '.join(injection.states)}" if injection.states else injection.camera
        parts = (
            f"{minute.end_s / 60:5.1f} min",
            f"{minute.usage.memory_mib:4.0f} MiB",
            f"{minute.usage.threads:3} threads",
            f"{minute.usage.files:3} files",
            f"load {minute.load:4.1f}",
            f"{minute.scores_hz:4.1f} scores/s",
            f"overloaded {minute.overloaded:4.0%}",
            f"others' gap {minute.gap_s:4.1f} s",
            f"recovery {recovery:>6}",
            f"{injection.fault} ({seen})",
        )
        return "  ".join(parts)


def _check_table(limits: list[Check]) -> Table:
    table = new_table("limit", ("measured", "at most", ""))
    for check in limits:
        table.add_row(check.name, f"{check.value:g}", f"{check.limit:g}", "ok" if check.passed else "FAILED")
    return table
