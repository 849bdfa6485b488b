"""The command with a configuration file: as a user starts it, changes it by SIGHUP, and by a client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.aio import TIMEOUT_S
from tests.support.aio import run as run_async
from tests.support.videos import write_video
from tests.support.wire import validate
from unmask import run

DEMO = '[[sources]]\nname = "{}"\naddress = "demo"\n'


class Program:
    """Running `unmask monitor`, with its standard error as lines."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "unmask", "monitor", "--port", "0", *map(str, arguments)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.lines: list[str] = []
        # Ends a wait in vain for a line.
        self._watchdog = threading.Timer(TIMEOUT_S, self.process.kill)
        self._watchdog.start()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read lines until one matches."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            if match := re.search(pattern, line):
                return match
        raise AssertionError("\n".join(self.lines))

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        self._watchdog.cancel()
        self.process.terminate()
        assert self.process.stderr is not None
        with self.process.stderr as rest:
            self.lines += rest.read().splitlines()
        assert self.process.wait() == 0, "\n".join(self.lines)


async def command(connection: ClientConnection, **fields: Any) -> str | None:
    """Send a command and return the error of its result."""
    await connection.send(json.dumps({"id": "1", **fields}))
    while True:
        message = json.loads(await connection.recv())
        validate(message)
        if message["type"] == "result":
            assert message["id"] == "1"
            error: str | None = message["error"]
            return error


async def wait_for_state(connection: ClientConnection, stream: str, state: str) -> dict[str, Any]:
    while True:
        message: dict[str, Any] = json.loads(await connection.recv())
        if message["type"] == "stream" and (message["stream"], message["state"]) == (stream, state):
            return message


def test_sources_change_by_sighup_and_by_commands(tmp_path: Path) -> None:
    """A new file adds, renames and removes streams, a wrong one changes nothing, a client does the same."""
    path, tokens = tmp_path / "unmask.toml", tmp_path / "tokens"
    head = f'[server]\ntoken_file = "{tokens}"\n'
    path.write_text(head + DEMO.format("first") + DEMO.format("second"))
    program = Program("--config", path)
    try:
        token = program.wait_for(r"this token, .*: (\S+)$")[1]
        url = program.wait_for(r"WebSocket: (\S+)")[1]
        assert oct(tokens.stat().st_mode & 0o777) == "0o600"
        run_async(lambda: _change_sources(program, path, head, url, token))
        # A wrong file is reported in one line and changes nothing.
        path.write_text(head + "rat = 3\n" + DEMO.format("only"))
        program.hang_up()
        program.wait_for(
            r"unmask\.toml:3: server\.rat: unknown key; .*; the configuration before it stays in use"
        )
        # So is a token file that has disappeared: nobody loses the token.
        path.write_text(head + DEMO.format("first"))
        tokens.rename(tmp_path / "elsewhere")
        program.hang_up()
        program.wait_for(r"tokens: no such file or directory; .*; the configuration before it stays in use")
        # A token that is removed from the file ends its connections; a limit needs a restart.
        path.write_text(head + "max_clients = 7\n" + DEMO.format("fourth"))
        tokens.write_text("another-token-0123456789 read\n")
        run_async(lambda: _lose_token(program, url, token))
        program.wait_for(r"server\.max_clients has changed; restart unmask to use it")
    finally:
        program.stop()
    assert token not in "\n".join(program.lines[1:])
    assert not any("Traceback" in line for line in program.lines)


def test_a_changed_source_does_not_end_the_program(tmp_path: Path) -> None:
    """The only other source has failed, so for a moment nothing is watched."""
    path, broken = tmp_path / "unmask.toml", tmp_path / "notes.mp4"
    broken.write_text("no video at all\n" * 50)
    text = f'[[sources]]\naddress = "{broken}"\n' + DEMO.format("cam")
    path.write_text(text)
    program = Program("--config", path)

    async def scenario() -> None:
        async with connect(program.wait_for(r"WebSocket: (\S+)")[1], proxy=None) as connection:
            states: dict[str, str] = {}
            while states != {"notes.mp4": "offline", "cam": "live"}:
                message = json.loads(await connection.recv())
                for stream in message.get("streams", [message]):
                    if stream.get("type", "stream") == "stream":
                        states[stream["stream"]] = stream["state"]
            path.write_text(text + "rate = 2\n")
            program.hang_up()
            await wait_for_state(connection, "cam", "removed")
            await wait_for_state(connection, "cam", "live")

    try:
        run_async(scenario)
        program.wait_for("again: 0 sources added, 0 removed, 0 renamed, 1 changed")
    finally:
        program.stop()


def test_a_hang_up_without_a_file_names_what_was_loaded(tmp_path: Path) -> None:
    """The tokens, and a source of the command line that exists only now, but no configuration."""
    tokens, late = tmp_path / "tokens", tmp_path / "late.mp4"
    program = Program("demo", late, "--token-file", tokens)
    try:
        program.wait_for(r"WebSocket: ")
        program.hang_up()
        program.wait_for("tokens loaded again")
        write_video(late)
        program.hang_up()
        program.wait_for("sources loaded again: 1 sources added, 0 removed, 0 renamed, 0 changed")
    finally:
        program.stop()
    assert not any("configuration" in line for line in program.lines)
    assert sum("sources loaded" in line for line in program.lines) == 1


async def _change_sources(program: Program, path: Path, head: str, url: str, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(url, proxy=None, additional_headers=headers) as connection:
        # `second` becomes `third`, `fourth` is new.
        path.write_text(head + DEMO.format("first") + DEMO.format("third") + DEMO.format("fourth"))
        program.hang_up()
        await wait_for_state(connection, "second", "removed")
        live = await wait_for_state(connection, "fourth", "live")
        assert live["thresholds"] is None
        await asyncio.to_thread(program.wait_for, "again: 1 sources added, 0 removed, 1 renamed, 0 changed")

        fifth: dict[str, Any] = {"type": "add_source", "address": "demo", "stream": "fifth", "rate_hz": 2}
        assert await command(connection, **fifth, threshold_fake=0.75) is None
        live = await wait_for_state(connection, "fifth", "live")
        assert live["thresholds"]["fake"] == 0.75
        assert await command(connection, type="rename_source", stream="fifth", name="sixth") is None
        assert await command(connection, type="remove_source", stream="sixth") is None
        for fields, reason in (
            ({"type": "remove_source", "stream": "sixth"}, "there is no stream 'sixth'"),
            ({"type": "rename_source", "stream": "first", "name": "third"}, "there is a stream 'third'"),
            ({"type": "add_source", "address": "demo", "stream": "first"}, "there is a stream 'first'"),
            ({"type": "add_source", "address": "/no/such/file"}, "no such file"),
            ({"type": "add_source", "address": "-"}, "standard input"),
            ({"type": "add_source", "address": "demo", "rate_hz": 1000}, "the model takes"),
            ({"type": "add_source", "address": "demo", "rate_hz": 0.4}, ">= 0.5"),
            ({"type": "add_source", "address": "demo", "threshold_real": 0.99}, "thresholds"),
            ({"type": "add_source", "address": "demo", "nmae": "x"}, "unknown field"),
            ({"type": "add_source", "address": ""}, "length"),
            ({"type": "no such message"}, "Invalid"),
        ):
            error = await command(connection, **fields)
            assert error is not None
            assert reason in error, error
            assert "\n" not in error


async def _lose_token(program: Program, url: str, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(url, proxy=None, additional_headers=headers) as connection:
        await connection.recv()
        program.hang_up()
        await connection.wait_closed()
        assert connection.close_code == 4403


@pytest.fixture
def outcome(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Function that runs the command in this process: `outcome("config", "check", ...)`."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_valid_file_is_confirmed(
    tmp_path: Path, outcome: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of the streams are shown; nothing is created and nothing secret is shown."""
    monkeypatch.setenv("CAMERA_PASSWORD", "s3cr3t")
    path = tmp_path / "unmask.toml"
    camera = (
        '[[sources]]\naddress = "rtsp://10.0.0.7/live/k3y"\nuser = "ada"\npassword_env = "CAMERA_PASSWORD"\n'
    )
    path.write_text(f'[server]\nhost = "0.0.0.0"\ntoken_file = "{tmp_path}/tokens"\n{camera}{camera}')
    assert outcome("config", "check", path) == (0, f"{path}: valid; sources: 10.0.0.7, 10.0.0.7-2\n", "")
    assert not (tmp_path / "tokens").exists()


@pytest.mark.parametrize("command", [("config", "check"), ("monitor", "--config")])
def test_every_mistake_is_one_line(
    tmp_path: Path, outcome: Callable[..., tuple[int, str, str]], command: tuple[str, str]
) -> None:
    """`config check` and `monitor` report the same, with exit code 2 and without a traceback."""
    path = tmp_path / "unmask.toml"
    path.write_text("[server]\nprot = 1\n[[sources]]\naddress = 7\n")
    code, out, err = outcome(*command, path)
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"unmask: {path}:2: server.prot: unknown key; did you mean port?",
        f"unmask: {path}:4: sources[0].address: expected text, got a whole number",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[[sources]]\naddress = "no/such/file.mp4"', ":2: sources[0].address: no/such/file.mp4: no such"),
        (
            '[[sources]]\naddress = "demo"\n[server]\nhost = "0.0.0.0"',
            ":4: server.host 0.0.0.0: others can reach this address; require a token with server.token_file, "
            "or accept everyone with server.insecure = true",
        ),
        ('[server]\nallow_origin = ["nonsense"]', ":2: server.allow_origin: 'nonsense' is not an origin"),
        ('[server]\nbase_path = "unmask"', ":2: server.base_path: 'unmask' is not a base path"),
        ('[server]\nproxy_addresses = ["proxy"]', ":2: server.proxy_addresses: 'proxy' is not the address"),
        ('[server]\ntoken_file = "tokens.toml"', "tokens.toml:1: the token is shorter than 16 characters"),
        ('[server]\ncert = "no.pem"', "no.pem: no such file or directory; give a PEM certificate"),
        (
            '[outputs]\nwebhook = { url = "https://h/", secret_file = "none" }',
            ":2: outputs.webhook.secret_file: none",
        ),
        ('[outputs]\nmqtt = { url = "broker" }', ":2: outputs.mqtt.url: not an address of a broker"),
        ('[evidence]\nfolder = "x"\ncontrol = 1.5', ":3: evidence.control: expected a number <= 1.0"),
        (
            'rate = 2\n[[sources]]\naddress = "demo"\nrate = 20',
            ":4: sources[0].rate: the model takes 8 samples",
        ),
        ('rate = 20\n[[sources]]\naddress = "demo"', ":1: rate: the model takes 8 samples a second"),
        (
            '[[sources]]\naddress = "demo"\nthresholds = { real = 0.9 }',
            ":3: sources[0].thresholds: real 0.9 is above fake 0.",
        ),
        (
            "thresholds = { real = 0.9, fake = 0.95 }\n[[sources]]\naddress = 'demo'\n"
            "thresholds = { fake = 0.5 }",
            ":4: sources[0].thresholds: thresholds.real (0.9) is above thresholds.fake (0.5)",
        ),
        (
            '[[sources]]\naddress = "rtsp://h"\nuser = "ada"\npassword_file = "none"',
            ":4: sources[0].password_file: none: no such file",
        ),
        ('[[sources]]\naddress_env = "NONE"', ":2: sources[0].address_env: the environment variable NONE is"),
        (
            '[[sources]]\naddress = "demo"\n[outputs]\nannotate = "x.txt"',
            ":4: outputs.annotate: cannot write the annotated video x.txt: its name does not end in .mp4",
        ),
        (
            'rate = 2\nmodel = "none"',
            ":2: model: none: no such directory; give the directory that `unmask export` wrote, or leave the "
            "model out to use the bundled one",
        ),
        ('engine = "cuda"', ":1: engine: expected one of auto, onnxruntime, openvino, tensorrt"),
        ('[server]\nstun = ["x"]', ":2: server.stun: expected stun:HOST:PORT"),
        (
            '[server]\nproxy_header = "X Y"',
            ":2: server.proxy_header: expected the name of a header, such as X-Forwarded-For",
        ),
        ('[outputs]\nmqtt = "mqtt://x"', ":2: outputs.mqtt: expected a table with keys of url, "),
        ('[[sources]]\npassword = "x"', ":2: sources[0].password: unknown key; did you mean password_env or"),
    ],
)
def test_values_that_cannot_be_used(
    tmp_path: Path,
    outcome: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    reason: str,
) -> None:
    """Also what only shows when a value is used names line and key."""
    monkeypatch.chdir(tmp_path)
    Path("tokens.toml").write_text("short\n")
    Path("unmask.toml").write_text(text)
    code, out, err = outcome("config", "check", "unmask.toml")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert reason in err


def test_independent_mistakes_are_reported_together(
    tmp_path: Path, outcome: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of server, outputs, sources and evidence has its line, and no token file is created meanwhile."""
    monkeypatch.chdir(tmp_path)
    Path("unmask.toml").write_text(
        '[server]\nhost = "0.0.0.0"\nbase_path = "x"\nproxy_addresses = ["proxy"]\ncert = "no.pem"\n'
        'allow_origin = ["nonsense"]\n'
        '[outputs]\nwebhook = { url = "nowhere" }\nmqtt = { url = "broker" }\n'
        '[[sources]]\naddress = "no/such/file.mp4"\n'
    )
    for command in (("config", "check"), ("monitor", "--config")):
        code, out, err = outcome(*command, "unmask.toml")
        assert (code, out) == (2, "")
        assert [line.split(": ")[1:3] for line in err.splitlines()] == [
            ["unmask.toml:11", "sources[0].address"],
            ["unmask.toml:8", "outputs.webhook.url"],
            ["unmask.toml:9", "outputs.mqtt.url"],
            ["unmask.toml:6", "server.allow_origin"],
            ["unmask.toml:3", "server.base_path"],
            ["unmask.toml:4", "server.proxy_addresses"],
            [
                "no.pem",
                "no such file or directory; give a PEM certificate chain with --cert and its key, "
                "without a passphrase, with --key",
            ],
            ["unmask.toml:2", "server.host 0.0.0.0"],
        ]
    Path("unmask.toml").write_text(
        '[server]\ntoken_file = "tokens"\nbase_path = "x"\n[[sources]]\naddress = "demo"\n'
    )
    assert outcome("monitor", "--config", "unmask.toml")[0] == 2
    assert not Path("tokens").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("-", "demo", "--jobs", "2"),
        ("demo", "--rate", "99"),
        ("demo", "--model", "none"),
        ("demo", "--engine", "none"),
        ("demo", "--jsonl", "none/x.jsonl"),
    ],
)
def test_a_run_that_cannot_begin_creates_no_token_file(
    tmp_path: Path,
    outcome: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:
    """Its token, which has every right, would be printed for nothing."""
    monkeypatch.chdir(tmp_path)
    code, _, err = outcome("monitor", *options, "--token-file", "tokens", "--port", "0")
    assert code == 2
    assert "created" not in err
    assert not Path("tokens").exists()


def test_a_run_creates_its_token_file(
    tmp_path: Path, outcome: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token in it is printed once; the next run reads the file."""
    monkeypatch.chdir(tmp_path)
    command = ("monitor", "demo", "--token-file", "tokens", "--port", "0", "--duration", "0.1")
    code, _, err = outcome(*command)
    assert code == 0
    (token,) = re.findall(r"created tokens; this token, .* has every right: (\S+)$", err, re.M)
    assert token in Path("tokens").read_text()
    code, _, err = outcome(*command)
    assert code == 0
    assert "created" not in err


def test_each_source_that_does_not_suit_the_model_is_reported(
    tmp_path: Path, outcome: Callable[..., tuple[int, str, str]]
) -> None:
    """One line for each, and one for a rate of all."""
    path = tmp_path / "unmask.toml"
    demo = '[[sources]]\naddress = "demo"\n'
    path.write_text(f"{demo}rate = 20\n{demo}thresholds = {{ real = 0.9 }}\n")
    _, _, err = outcome("config", "check", path)
    assert [line.split(": ")[1:3] for line in err.splitlines()] == [
        [f"{path}:3", "sources[0].rate"],
        [f"{path}:6", "sources[1].thresholds"],
    ]
    path.write_text(f"rate = 20\n{demo}{demo}")
    _, _, err = outcome("config", "check", path)
    assert len(err.splitlines()) == 1


def test_what_several_processes_cannot_do(
    tmp_path: Path, outcome: Callable[..., tuple[int, str, str]]
) -> None:
    """`config check` refuses what `monitor` refuses, with the same lines."""
    path = tmp_path / "unmask.toml"
    path.write_text(
        f'jobs = 2\n[[sources]]\naddress = "browser"\n[evidence]\nfolder = "{tmp_path}/evidence"\n'
    )
    checked = outcome("config", "check", path)
    assert checked == outcome("monitor", "--config", path, "--port", 0)
    assert checked[:2] == (2, "")
    assert [line.split(": ")[1] for line in checked[2].splitlines()] == ["browser", "evidence"]
    path.write_text(f'jobs = 2\nmodel = "none"\n{DEMO.format("a")}')
    code, _, err = outcome("monitor", "--config", path)
    assert code == 2
    assert f"{path}:2: model: none: no such directory" in err


def test_others_need_a_token(outcome: Callable[..., tuple[int, str, str]]) -> None:
    """An address that others can reach needs a token, unless the user accepts everyone."""
    code, _, err = outcome("monitor", "demo", "--host", "0.0.0.0", "--port", 0)
    assert code == 2
    assert err == (
        "unmask: --host 0.0.0.0: others can reach this address; require a token with --token-file FILE, or "
        "accept everyone with --insecure\n"
    )
