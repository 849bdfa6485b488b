"""Options of the commands of the runtime, which the modules of this folder run."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer

import runtime.commands.config
import runtime.commands.events
from runtime.commands.options import Engine, Model
from runtime.commands.scan.arguments import ScanCommand
from runtime.commands.stopping import stopped_by_signals


def add_commands(app: typer.Typer) -> None:
    """Add the commands of the runtime to the program."""
    app.command()(monitor)
    app.command(cls=ScanCommand)(scan)
    app.command()(fleet)
    app.command()(calibrate)
    app.command()(doctor)
    app.add_typer(runtime.commands.events.app, name="events")
    app.add_typer(runtime.commands.config.app, name="config")


def monitor(
    context: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="rtsp://..., webcam, screen, a video file, - (standard input), a URL, or demo; NAME=SOURCE "
            "sets its name. See docs/sources.md.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML file with sources and settings; options override it. SIGHUP reads it again. See "
            "docs/configuration.md.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Name of a stream; the first one is for the first source. Repeatable.",
            show_default="host of an address, name of a file",
        ),
    ] = None,
    model: Model = None,
    engine: Engine = "auto",
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Share the sources between N processes, for more cameras than one can watch. "
            "See docs/operations.md.",
        ),
    ] = 1,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="HZ",
            help="Verdicts per second for each face, at least 0.5.",
            show_default="the model's sample rate",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")
    ] = 8765,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Accept web pages of this origin (https://example.org, null, *). Repeatable.",
            show_default=False,
        ),
    ] = None,
    max_clients: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Maximum number of WebSocket clients; further ones get HTTP 503.",
            show_default="1000, or what the limit on open files allows",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Require a token of this file; created, and its token printed, if it does not exist.",
            show_default=False,
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen on an address that others can reach, without a token.")
    ] = False,
    cert: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM",
            help="Serve HTTPS with this certificate chain; read again when renewed.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Key of the certificate.", show_default="in --cert")
    ] = None,
    base_path: Annotated[
        str, typer.Option(metavar="/PATH", help="Path under which a reverse proxy serves unmask.")
    ] = "",
    proxy_header: Annotated[
        str | None,
        typer.Option(
            metavar="HEADER",
            help="Header in which the proxy states the client's address, such as X-Forwarded-For.",
            show_default=False,
        ),
    ] = None,
    proxy_address: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address or network of the proxy. Repeatable.",
            show_default="this machine",
        ),
    ] = None,
    rtsp_transport: Annotated[Literal["tcp", "udp"], typer.Option(help="Transport of RTSP video.")] = "tcp",
    hwaccel: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE",
            help="Hardware to decode with, such as cuda; what it cannot decode, the CPU does.",
            show_default="the CPU",
        ),
    ] = None,
    stun: Annotated[
        list[str] | None,
        typer.Option(
            metavar="stun:HOST:PORT",
            help="STUN server for senders to browser and whip:KEY. Repeatable.",
            show_default="none is asked",
        ),
    ] = None,
    jsonl: Annotated[
        str | None,
        typer.Option(metavar="PATH|-", help="Write each message as a line of JSON.", show_default=False),
    ] = None,
    jsonl_max_mb: Annotated[
        float | None,
        typer.Option(
            metavar="MB", help="Rename the file of --jsonl to PATH.1 at this size.", show_default="never"
        ),
    ] = None,
    jsonl_keep: Annotated[int, typer.Option(metavar="N", help="Renamed files to keep.")] = 5,
    webhook: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Send each change of state by POST.", show_default=False),
    ] = None,
    webhook_secret_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Sign the requests with this secret.", show_default=False),
    ] = None,
    mqtt: Annotated[
        str | None,
        typer.Option(
            metavar="mqtt://[USER@]HOST[:PORT][/TOPIC]",
            help="Publish states and changes; Home Assistant finds them. Needs the extra mqtt.",
            show_default=False,
        ),
    ] = None,
    mqtt_password_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with the password of the MQTT user.", show_default=False),
    ] = None,
    evidence: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep crops, frame, verdicts and a clip when a face turns fake: biometric data of people.",
            show_default=False,
        ),
    ] = None,
    evidence_control: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Share of the time without a fake to keep at random, 0..1."),
    ] = 0.0,
    evidence_max_gb: Annotated[
        float, typer.Option(metavar="GB", help="Delete the oldest evidence beyond this size.")
    ] = 10.0,
    evidence_days: Annotated[
        float, typer.Option(metavar="DAYS", help="Delete evidence beyond this age.")
    ] = 30.0,
    annotate: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.mp4",
            help="Write the scored frames of one source with boxes, states and curves.",
            show_default=False,
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Stop after this time.", show_default="run until Ctrl-C"),
    ] = None,
    scan_uploads: Annotated[
        bool,
        typer.Option(
            "--scan-uploads", help="Scan videos that are dropped on the page /scan; needs no SOURCE."
        ),
    ] = False,
) -> int:
    """Watch live video and serve verdicts: a dashboard, an overlay for OBS, a WebSocket.

    A file is played at its own frame rate and ends with its last frame. Without a terminal each change is
    logged as one line.
    """
    _ignore_hang_up_while_loading()
    with suppress(KeyboardInterrupt), stopped_by_signals():
        from runtime.commands.monitor.command import run_monitor
        from runtime.commands.setup.arguments import given_settings
        from runtime.commands.setup.options import MonitorSetup

        return run_monitor(MonitorSetup(file=config, given=given_settings(context)))
    return 0


def _ignore_hang_up_while_loading() -> None:
    # The SIGHUP of a log rotation.
    if sys.platform != "win32":
        on_terminal = os.isatty(2)

        def hang_up(number: int, frame: FrameType | None) -> None:
            if on_terminal and not os.isatty(2):
                signal.default_int_handler(number, frame)  # the terminal is gone

        signal.signal(signal.SIGHUP, hang_up)


def scan(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="Videos, and directories that are searched for videos.", show_default=False
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each file.")] = False,
    report: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Write a report: .html is one page with images, .json has all scores. Repeatable.",
            show_default=False,
        ),
    ] = None,
    annotate: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.mp4",
            help="Write the scored frames of one video with boxes, states and curves.",
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    engine: Engine = "auto",
    jobs: Annotated[
        int, typer.Option(min=1, metavar="N", help="Scan N videos at a time, in processes of this machine.")
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:PORT|auto|local]",
            help="Scan on a Ray cluster; default: that of this machine, else a new one. See docs/fleet.md.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.jsonl",
            help="Leave out the videos that have a line in this file, and append the other lines to it.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Score whole videos without dropping frames.

    The score of a video is that of its most suspicious face of any size, among those in view for at least
    half as long as the face in view longest. Still images have none. If a file cannot be read the others
    are still scored, and the exit code is 2.
    """
    # Where a signal stops it, it prints the results so far.
    with suppress(KeyboardInterrupt), stopped_by_signals():
        if ray is not None and jobs == 1:
            from runtime.fleet.cluster import begin_search

            begin_search(ray or None)
        from runtime.commands.scan.command import run_scan
        from runtime.commands.scan.outcome import ScanOptions

        return run_scan(
            ScanOptions(
                paths=files,
                as_json=as_json,
                reports=report or (),
                annotate=annotate,
                model=model,
                engine=engine,
                jobs=jobs,
                ray=ray,
                resume=resume,
            )
        )
    return 0


def fleet(
    file: Annotated[
        Path, typer.Argument(metavar="CAMERAS.toml", help="Configuration file, as for `monitor`.")
    ],
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT|auto|local",
            help="Ray cluster.",
            show_default="that of the file, else of this machine, else a new one",
        ),
    ] = None,
) -> int:
    """Watch the sources of a file on a Ray cluster and serve the verdicts as `monitor` does.

    Workers on all machines watch the cameras, and take over those of a worker or machine that fails. See
    docs/fleet.md.
    """
    _ignore_hang_up_while_loading()
    with suppress(KeyboardInterrupt), stopped_by_signals():
        from runtime.commands.monitor.fleet import run_fleet

        return run_fleet(file, address)
    return 0


def calibrate(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="As for `monitor`, or with --config a name in that file."),
    ],
    seconds: Annotated[
        float, typer.Option(min=15, max=86400, help="Time to watch, of which 10 need a face.")
    ] = 60.0,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Configuration file with the source.", show_default=False),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Directory of a model that `unmask export` wrote.",
            show_default="that of the configuration, else the bundled one",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="auto|onnxruntime|openvino|tensorrt",
            help="Inference engine.",
            show_default="that of the configuration, else auto",
        ),
    ] = None,
) -> int:
    """Print thresholds for a camera whose people are known to be genuine, for the configuration file.

    Sit in front of the camera as in a call. Both thresholds are raised by what this camera adds to the scores
    of real people; see docs/configuration.md.
    """
    # Where a signal stops it, it uses the scores so far.
    with suppress(KeyboardInterrupt), stopped_by_signals():
        from runtime.commands.calibrate import CalibrateOptions, run_calibrate

        return run_calibrate(
            CalibrateOptions(source=source, seconds=seconds, config=config, model=model, engine=engine)
        )
    return 0


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each finding.")] = False,
    host: Annotated[str, typer.Option(help="Address on which `monitor` would listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to check.")] = 8765,
) -> int:
    """Report what this machine can do: FFmpeg, cameras, screens, CPU, GPU, engine, port, installed extras.

    Each line says what to do. The exit code is 2 if unmask cannot work here.
    """
    from runtime.commands.doctor.command import run_doctor

    return run_doctor(host, port, as_json=as_json)
