"""The command line: output, streams and exit codes, above all for user mistakes."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import av
import pytest
import typer

import benchmarks.commands
import train.commands
import unmask
from runtime.errors import DeviceLost
from runtime.model.bundle import DEFAULT_BUNDLE
from runtime.pipeline.batcher import Batcher

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 60.0
SCORED = {"real", "uncertain", "fake"}


class Outcome:
    """Exit code and output lines of a run of the command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out.splitlines()
        self.err = err.splitlines()


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Return a function that runs the command in this process: `run("monitor", ...)`."""

    def run(*arguments: object) -> Outcome:
        code = unmask.run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start the command in its own process."""
    return subprocess.Popen(
        [sys.executable, "-m", "unmask", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def mistake(outcome: Outcome, *words: str) -> None:
    """Check that a mistake is reported in one line that names it, with exit code 2."""
    assert outcome.code == 2
    assert outcome.out == []
    (line,) = outcome.err
    for word in words:
        assert word in line


def commands(group: Any) -> Iterator[Any]:
    """Return the commands of a group and of the groups in it."""
    for command in group.commands.values():
        yield from commands(command) if hasattr(command, "commands") else [command]


def test_decimal_options_are_limited(run: Callable[..., Outcome]) -> None:
    """Training and benchmarks accept no infinite time; options of the runtime are checked as settings."""
    unlimited = [
        f"{command.name} {option.opts[0]}"
        for group in (train.commands.app, benchmarks.commands.app)
        for command in commands(typer.main.get_command(group))
        for option in command.params
        if option.type_descriptor.annotation is float and None in (option.min, option.max)
    ]
    assert unlimited == []
    for number in ("inf", "nan"):
        mistake(
            run("bench", "throughput", "--warmup", number), "--warmup", "86400", "bench throughput --help"
        )


def test_seeds_are_limited() -> None:
    """The generators of random numbers take no negative seed, and torch none of more than 64 bits."""
    limits = {
        (option.min, option.max)
        for group in (train.commands.app, benchmarks.commands.app)
        for command in commands(typer.main.get_command(group))
        for option in command.params
        if option.name == "seed"
    }
    assert limits == {(0, 2**32 - 1)}


@pytest.fixture
def model_copy(tmp_path: Path) -> Path:
    """Copy of the bundled model that a test may damage."""
    return Path(shutil.copytree(DEFAULT_BUNDLE, tmp_path / "model"))


@pytest.fixture
def sound(make_video: Callable[..., Path], tmp_path: Path) -> Path:
    """Media file with an audio track and no video."""
    both, path = make_video(tmp_path / "both.mp4", audio=True), tmp_path / "sound.m4a"
    with av.open(str(both)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return path


@pytest.fixture
def busy_port() -> Iterator[int]:
    """Port on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


# Without errors


@pytest.mark.parametrize(
    "command",
    [
        "",
        "monitor",
        "scan",
        "train",
        "train prepare",
        "train evaluate",
        "train fit",
        "train temporal",
        "train teacher",
        "train swap",
        "train self-blend",
        "export",
        "bench",
        "bench latency",
        "bench throughput",
        "bench baseline",
        "bench roofline",
        "bench fanout",
        "bench gpu",
    ],
)
def test_help(run: Callable[..., Outcome], command: str) -> None:
    """Every command has a help page with its purpose and options."""
    outcome = run(*command.split(), "--help")
    assert outcome.code == 0
    assert outcome.err == []
    text = "\n".join(outcome.out)
    assert f"Usage: unmask {command}".strip() in text
    assert "--help" in text


def test_without_arguments_commands_are_listed(run: Callable[..., Outcome]) -> None:
    """Without arguments the commands are listed."""
    outcome = run()
    assert outcome.code == 0
    text = "\n".join(outcome.out)
    for command in ("monitor", "scan", "train", "bench"):
        assert command in text


@pytest.mark.parametrize("group", ["train", "bench", "events", "config"])
def test_a_group_without_a_command_shows_its_help(run: Callable[..., Outcome], group: str) -> None:
    """The help is all that is printed; a script sees the mistake by the exit code."""
    outcome = run(group)
    assert outcome.code == 2
    assert f"Usage: unmask {group}" in "".join(outcome.out)
    assert outcome.err == []


def test_version(run: Callable[..., Outcome]) -> None:
    """`--version` prints the version of the package."""
    outcome = run("--version")
    assert outcome.code == 0
    assert outcome.out[0].startswith("unmask ")


def test_a_file_is_watched_to_its_end(run: Callable[..., Outcome], face_video: Path) -> None:
    """With `--jsonl -` standard output carries JSON only; addresses go to standard error."""
    outcome = run("monitor", face_video, "--port", 0, "--jsonl", "-")
    assert outcome.code == 0
    messages = [json.loads(line) for line in outcome.out]
    assert [message["seq"] for message in messages] == list(range(1, len(messages) + 1))
    assert {message["type"] for message in messages} == {"stream", "verdict", "heartbeat"}
    verdicts = [message for message in messages if message["type"] == "verdict"]
    assert len([verdict for verdict in verdicts if verdict["state"] in SCORED]) >= 10
    assert [message["state"] for message in messages if message["type"] == "stream"][-1] == "ended"
    links = "\n".join(outcome.err)
    assert "dashboard: http://127.0.0.1:" in links
    assert "overlay for OBS: http://127.0.0.1:" in links
    assert "WebSocket: ws://127.0.0.1:" in links


def test_an_engine_that_fails_is_no_mistake(
    run: Callable[..., Outcome], face_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is one after which a service manager starts the program again."""

    def fail(crops: object) -> NoReturn:
        raise DeviceLost("tensorrt", "it has fallen off the bus")

    monkeypatch.setattr("runtime.commands.monitor.command.Batcher", lambda features: Batcher(fail))
    outcome = run("monitor", face_video, "--port", 0)
    assert outcome.code == 1
    assert outcome.err[-1].startswith("unmask: the tensorrt engine failed: it has fallen off the bus")
    assert not any("Traceback" in line for line in outcome.err)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_no_mistake(run: Callable[..., Outcome], clip: Path) -> None:
    """Unlike a path that cannot be opened."""
    outcome = run("monitor", clip, "--port", 0, "--jsonl", "/dev/full")
    assert outcome.code == 1
    assert outcome.err[-1].startswith("unmask: cannot write to /dev/full: no space left on device")
    mistake(run("monitor", clip, "--port", 0, "--jsonl", "/no/such/folder/x"), "/no/such/folder/x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "command", [["--version"], ["scan", "--help"], ["doctor", "--json"], ["scan"], ["scan", "--json"]]
)
def test_a_full_disk_under_standard_output(command: list[str], clip: Path, tmp_path: Path) -> None:
    """One line, and the exit code of a failure; a report is written all the same."""
    report = tmp_path / "report.json"
    scan = [str(clip), "--report", str(report)] if command[0] == "scan" and "--help" not in command else []
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "unmask", *command, *scan],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    expected = (
        "cannot write to standard output: no space left on device; make room, or write it to another place"
    )
    assert (done.returncode, done.stderr) == (1, f"unmask: {expected}\n")
    assert report.exists() == bool(scan)


def test_a_closed_pipe_is_no_failure_to_report() -> None:
    """As with `unmask doctor | true`."""
    process = start("--help")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(TIMEOUT_S) == 1


def test_a_lower_rate_gives_fewer_verdicts(
    run: Callable[..., Outcome], face_video: Path, tmp_path: Path
) -> None:
    """`--rate` changes the rate of verdicts, not the sample rate of the model."""
    record = tmp_path / "record.jsonl"
    assert run("monitor", face_video, "--port", 0, "--rate", 2, "--jsonl", record).code == 0
    messages = [json.loads(line) for line in record.read_text().splitlines()]
    verdicts = [
        message for message in messages if message["type"] == "verdict" and message["state"] != "stale"
    ]
    assert 6 <= len(verdicts) <= 10


def test_duration_ends_the_run(run: Callable[..., Outcome], clip: Path) -> None:
    """`--duration` ends an endless run with exit code 0."""
    outcome = run("monitor", clip, "--port", 0, "--duration", 1.5, "--jsonl", "-")
    assert outcome.code == 0
    states = [message["state"] for message in map(json.loads, outcome.out) if message["type"] == "stream"]
    assert states == ["connecting", "no_face"]


def test_streams_are_named_in_their_order(run: Callable[..., Outcome], clip: Path) -> None:
    """`--name` and `NAME=SOURCE` name a stream; a name too many, or one for two sources, is a mistake."""
    arguments = ("--port", 0, "--duration", 1.5, "--jsonl", "-", "--name", "first")
    outcome = run("monitor", clip, f"second={clip}", clip, *arguments)
    assert outcome.code == 0
    names = {message["stream"] for message in map(json.loads, outcome.out) if message["type"] == "stream"}
    assert names == {"first", "second", clip.name}
    mistake(run("monitor", clip, "--name", "first", "--name", "second"), "--name", "2 names for 1 sources")
    mistake(run("monitor", f"cam={clip}", f"cam={clip}"), "sources[1]", "'cam' is also the name in SOURCE")
    mistake(
        run("monitor", "demo", f"cam={clip}", "--name", "cam"),
        "sources[1]",
        "'cam' is also the name in --name",
    )
    mistake(run("monitor", clip, "--hwaccel", "gpu"), "--hwaccel", "must be one of", "cuda")
    for option, value in (("--hwaccel", "cuda"), ("--rtsp-transport", "udp")):
        mistake(run("monitor", option, value), option, "there is none")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_program(
    number: signal.Signals, make_face_video: Callable[..., Path], tmp_path: Path
) -> None:
    """SIGINT and SIGTERM end the program at once, without an error message."""
    process = start("monitor", make_face_video(tmp_path / "long.mp4", seconds=30), "--port", 0)
    assert process.stderr is not None
    for line in process.stderr:
        if "WebSocket" in line:
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert out == ""
    assert "Traceback" not in err


def test_a_closed_standard_output_ends_the_program(
    make_face_video: Callable[..., Path], tmp_path: Path
) -> None:
    """A closed standard output, as in `... --jsonl - | head`, ends the run without an error."""
    process = start(
        "monitor", make_face_video(tmp_path / "long.mp4", seconds=30), "--port", 0, "--jsonl", "-"
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["type"] == "stream"
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(TIMEOUT_S) == 0
    process.stderr.close()
    assert "Traceback" not in err
    assert "Broken" not in err


def test_scan_prints_a_line_for_each_file(
    run: Callable[..., Outcome],
    face_video: Path,
    clip: Path,
    make_face_video: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """A video without a face or with too few frames is a result, not a failure."""
    three = make_face_video(tmp_path / "three.mp4", seconds=3 / 25)
    outcome = run("scan", "--json", face_video, clip, three)
    assert outcome.code == 0
    assert outcome.err == []
    lines = [json.loads(line) for line in outcome.out]
    assert [line["state"] for line in lines] == ["scored", "no_face", "too_short"]
    assert [line["p_fake"] is None for line in lines] == [False, True, True]


def test_scan_finds_the_videos_of_a_directory(
    run: Callable[..., Outcome], clip: Path, face_video: Path, tmp_path: Path
) -> None:
    """Files of other types in a directory are ignored."""
    shutil.copy(clip, tmp_path / "b.mp4")
    shutil.copy(face_video, tmp_path / "a.MP4")
    (tmp_path / "notes.txt").write_text("not a video")
    outcome = run("scan", tmp_path, "--json")
    assert outcome.code == 0
    assert [Path(json.loads(line)["file"]).name for line in outcome.out] == ["a.MP4", "b.mp4"]


# Errors for mistakes of the user


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["monitor"], ["SOURCE"]),
        (["scan"], ["FILE"]),
        (["watch"], ["watch"]),
        (["monitor", "demo", "--no-such-option"], ["--no-such-option"]),
        (["monitor", "foo://host/cam"], ["unknown scheme foo://"]),
        (["monitor", "no-such-file.mp4"], ["no-such-file.mp4", "no such file"]),
        (["monitor", "rtsp://"], ["no host"]),
        (["monitor", "demo", "--engine", "magic"], ["magic", "onnxruntime"]),
        (["monitor", "demo", "--engine", "tensorrt"], ["tensorrt"]),
        (["monitor", "demo", "--rate", "1000"], ["--rate 1000", "give a rate"]),
        (["monitor", "demo", "--rate", "0"], ["--rate 0"]),
        (["monitor", "demo", "--rate", "0.4"], ["--rate 0.4", ">= 0.5"]),
        (["monitor", "demo", "--rate", "nan"], ["--rate nan"]),
        (["monitor", "demo", "--duration", "-1"], ["--duration -1"]),
        (["monitor", "demo", "--port", "99999"], ["--port"]),
        (["monitor", "demo", "--host", "no.such.host.invalid"], ["no.such.host.invalid", "--host"]),
        (["monitor", "demo", "--rtsp-transport", "pigeon"], ["pigeon", "tcp"]),
        (["monitor", "demo", "--allow-origin", "nonsense"], ["--allow-origin", "nonsense"]),
        (["monitor", "demo", "--port", "0", "--jsonl", "no/such/place.jsonl"], ["no/such/place.jsonl"]),
        (["monitor", "demo", "--model", "no-such-model"], ["no-such-model", "unmask export"]),
        (["scan", "x.mp4", "--model", "no-such-model"], ["no-such-model"]),
        (["scan", "x.mp4", "--engine", "magic"], ["magic"]),
        (["bench", "latency", "no-such-file.mp4"], ["no-such-file.mp4"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_on_the_command_line(
    run: Callable[..., Outcome], arguments: list[str], words: list[str]
) -> None:
    """Each mistake is one line that names it, never a traceback."""
    mistake(run(*arguments), *words)


def test_a_missing_camera(run: Callable[..., Outcome]) -> None:
    """A missing webcam ends the program instead of being retried."""
    mistake(run("monitor", "webcam:97", "--port", 0), "webcam:97")


@pytest.mark.parametrize("content", [b"", b"no video at all\n" * 100], ids=["zero bytes", "text"])
def test_a_file_that_is_no_video(run: Callable[..., Outcome], tmp_path: Path, content: bytes) -> None:
    """`monitor` ends, `scan` reports the file; both with exit code 2."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    mistake(run("monitor", path, "--port", 0), "clip.mp4")
    outcome = run("scan", path, "--json")
    assert outcome.code == 2
    assert [json.loads(line)["state"] for line in outcome.out] == ["unreadable"]
    assert len(outcome.err) == 1


def test_an_audio_file(run: Callable[..., Outcome], sound: Path) -> None:
    """An audio file is distinguished from a video without a face."""
    mistake(run("monitor", sound, "--port", 0), "sound only")
    assert run("scan", sound).code == 2


def test_a_truncated_file(run: Callable[..., Outcome], face_video: Path, tmp_path: Path) -> None:
    """A truncated MP4 without its index cannot be read."""
    path = tmp_path / "cut.mp4"
    content = face_video.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    mistake(run("monitor", path, "--port", 0), "cut.mp4")
    outcome = run("scan", path, face_video, "--json")
    assert outcome.code == 2
    assert [json.loads(line)["state"] for line in outcome.out] == ["unreadable", "scored"]


def test_a_directory_without_videos(run: Callable[..., Outcome], tmp_path: Path) -> None:
    """Scanning no video at all is a mistake."""
    mistake(run("scan", tmp_path), "no video files")


def test_a_bundle_with_a_wrong_hash(run: Callable[..., Outcome], model_copy: Path) -> None:
    """A single changed byte in a model is detected."""
    head = model_copy / "head.onnx"
    head.write_bytes(head.read_bytes()[:-1] + b"?")
    mistake(run("monitor", "demo", "--model", model_copy), "head.onnx", "SHA-256")
    mistake(run("scan", "x.mp4", "--model", model_copy), "head.onnx")


def test_a_bundle_of_another_version(run: Callable[..., Outcome], model_copy: Path) -> None:
    """A newer bundle format is refused."""
    manifest = model_copy / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "format_version": 99}))
    mistake(run("monitor", "demo", "--model", model_copy), "99", "update unmask")


def test_a_busy_port(run: Callable[..., Outcome], busy_port: int, clip: Path) -> None:
    """The error names the port and the option for another one."""
    mistake(run("monitor", clip, "--port", busy_port), str(busy_port), "--port")


def test_one_bad_source_among_others(run: Callable[..., Outcome], clip: Path) -> None:
    """An invalid source is reported and the others are watched."""
    outcome = run("monitor", "foo://x", clip, "--port", 0, "--duration", 1, "--jsonl", "-")
    assert outcome.code == 0
    assert "unknown scheme" in outcome.err[0]
    assert {json.loads(line).get("stream") for line in outcome.out} >= {"clip.mp4"}


def test_only_bad_sources(run: Callable[..., Outcome]) -> None:
    """If all sources are invalid each gets a line."""
    outcome = run("monitor", "foo://x", "no-such-file.mp4")
    assert outcome.code == 2
    assert len(outcome.err) == 2


def test_a_host_that_does_not_answer(run: Callable[..., Outcome]) -> None:
    """An unreachable camera is retried with one warning, which contains no password."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        url = f"rtsp://ada:secret@127.0.0.1:{port}/cam"
        outcome = run("monitor", url, "--port", 0, "--duration", 2.5, "--jsonl", "-")
    assert outcome.code == 0
    assert len([line for line in outcome.err if "trying again" in line]) == 1
    states = [message["state"] for message in map(json.loads, outcome.out) if message["type"] == "stream"]
    assert states == ["connecting", "offline"]
    assert "secret" not in "\n".join(outcome.out + outcome.err)


def test_wrong_credentials(run: Callable[..., Outcome], rtsp_server: Callable[..., Any], clip: Path) -> None:
    """Wrong credentials are not retried: that could lock an account."""
    camera = rtsp_server(clip, auth="digest", user="ada", password="secret")
    outcome = run("monitor", camera.url(user="ada", password="guessed"), "--port", 0)
    mistake(outcome, "credentials")
    assert "guessed" not in outcome.err[0]


def test_a_wrong_path_on_a_camera(
    run: Callable[..., Outcome], rtsp_server: Callable[..., Any], clip: Path
) -> None:
    """A server without the requested path is reported."""
    mistake(run("monitor", rtsp_server(clip).url("/nothing"), "--port", 0), "404")


@pytest.mark.parametrize(
    "command",
    [
        ["train", "fit", "clips", "--out", "checkpoint"],
        ["train", "temporal", "bundle", "clips"],
        ["export", "checkpoint", "--out", "bundle"],
    ],
)
def test_missing_torch_is_reported_with_the_extra(command: list[str]) -> None:
    """Commands that need PyTorch name the extra to install."""
    script = "import sys; sys.modules['torch'] = None; import unmask; sys.exit(unmask.run(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    mistake(Outcome(done.returncode, done.stdout, done.stderr), "PyTorch", f"[{command[0]}]")
