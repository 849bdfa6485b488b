"""Options of the outputs: every mistake is one line that names the option, and no secret is repeated."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.commands.options import UserError
from runtime.commands.setup.arguments import KEYS
from runtime.commands.setup.options import NEEDS, MonitorSetup
from runtime.config.reading import Settings
from runtime.errors import ConfigInvalid
from runtime.outputs.options import OutputOptions
from unmask import run


def make_outputs(**given: Any) -> OutputOptions:
    """Return the outputs for options of the command line, by the names of their parameters."""
    values: dict[str, Any] = {"sources": [{"address": "demo"}]}
    for parameter, value in given.items():
        table = values
        *tables, key = [str(part) for part in KEYS[parameter]]
        for name in tables:
            table = table.setdefault(name, {})
        table[key] = value
    places = {KEYS[parameter]: f"--{parameter.replace('_', '-')}" for parameter in given}
    return MonitorSetup(file=None, given=Settings(values=values, places=places)).load("skip").outputs


def test_everything_is_off_by_default() -> None:
    """Nothing is stored or sent unless asked for."""
    assert make_outputs() == OutputOptions()


def test_secrets_come_from_files(tmp_path: Path) -> None:
    """White space around them does not count."""
    secret, password = tmp_path / "secret", tmp_path / "password"
    secret.write_text("0123456789abcdef\n")
    password.write_text("a password\n")
    options = make_outputs(
        webhook="https://example.org/x",
        webhook_secret_file=str(secret),
        mqtt="mqtt://user@broker/attic",
        mqtt_password_file=str(password),
    )
    assert options.webhook is not None
    assert options.webhook.secret == b"0123456789abcdef"
    assert options.mqtt is not None
    assert (options.mqtt.password, options.mqtt.topic) == ("a password", "attic")


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"webhook": "nowhere"}, "--webhook:"),
        (
            {"webhook": "http://h/", "webhook_secret_file": "missing"},
            "--webhook-secret-file: missing: no such",
        ),
        (
            {"webhook": "http://h/", "webhook_secret_file": "empty"},
            "--webhook-secret-file: empty: it is empty",
        ),
        ({"webhook": "http://h/", "webhook_secret_file": "binary"}, "--webhook-secret-file"),
        ({"webhook": "http://h/", "webhook_secret_file": "short"}, "--webhook: the secret is shorter"),
        ({"webhook": "http://h/", "webhook_secret_file": "."}, "--webhook-secret-file"),
        ({"mqtt": "broker"}, "--mqtt:"),
        ({"mqtt": "mqtt://h", "mqtt_password_file": "long"}, "--mqtt-password-file"),
        ({"jsonl": "x", "jsonl_max_mb": 0.0}, "--jsonl-max-mb"),
        ({"jsonl": "x", "jsonl_max_mb": float("inf")}, "--jsonl-max-mb"),
        ({"jsonl": "x", "jsonl_max_mb": 1.0, "jsonl_keep": 0}, "--jsonl-keep"),
        ({"jsonl_max_mb": 1.0}, "--jsonl"),
        ({"webhook_secret_file": "short"}, "--webhook"),
        ({"mqtt_password_file": "short"}, "--mqtt"),
        ({"mqtt": "mqtt://h", "mqtt_password_file": "short"}, "user name"),
        ({"evidence_control": 0.5}, "--evidence"),
        ({"evidence": "x", "evidence_control": 1.5}, "--evidence-control"),
        ({"evidence": "x", "evidence_days": 0.0}, "--evidence-days"),
        ({"evidence": "x", "evidence_max_gb": -1.0}, "--evidence-max-gb"),
    ],
)
def test_a_mistake_names_its_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], option: str
) -> None:
    """And contains nothing of the secret."""
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text(" \n")
    Path("binary").write_bytes(b"\xff\xfe")
    Path("short").write_text("hush")
    Path("long").write_text("x" * 10_000)
    with pytest.raises((UserError, ConfigInvalid)) as caught:
        make_outputs(**changes)
    assert option in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        (["--jsonl-keep", "3"], "--jsonl"),
        (["--jsonl-max-mb", "3"], "--jsonl"),
        (["--jsonl", "x", "--jsonl-keep", "3"], "--jsonl-max-mb"),
        (["--evidence-days", "3"], "--evidence"),
        (["--evidence-max-gb", "3"], "--evidence"),
        (["--evidence-control", "0.5"], "--evidence"),
        (["--webhook-secret-file", "x"], "--webhook"),
        (["--mqtt-password-file", "x"], "--mqtt"),
        (["--key", "x"], "--cert"),
        (["--proxy-address", "10.0.0.1"], "--proxy-header"),
    ],
)
def test_an_option_that_needs_another(
    options: list[str], needed: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The line names both options, not the keys of a file."""
    assert run(["monitor", "demo", *options]) == 2
    assert capfd.readouterr().err == f"unmask: {options[-2]} has no effect without {needed}; give both\n"


@pytest.mark.parametrize(
    ("sources", "reason"),
    [(["demo", "demo"], "there are several sources"), (["--scan-uploads"], "there is no source")],
)
def test_an_annotated_video_is_of_one_source(
    sources: list[str], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The line states which of both is wrong, and what to do about it."""
    assert run(["monitor", *sources, "--annotate", "out.mp4"]) == 2
    expected = f"unmask: cannot write the annotated video out.mp4: {reason}; watch exactly one\n"
    assert capfd.readouterr().err == expected


@pytest.mark.parametrize("option", ["--annotate", "--jsonl"])
@pytest.mark.parametrize("name", ["clip.mp4", "../watched/clip.mp4", "symbolic.mp4", "hard.mp4"])
def test_no_output_is_written_into_a_watched_file(
    tmp_path: Path,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    option: str,
    name: str,
) -> None:
    """Also under another name of the same file, and by a configuration."""
    folder = tmp_path / "watched"
    folder.mkdir()
    monkeypatch.chdir(folder)
    video = clip.read_bytes()
    Path("clip.mp4").write_bytes(video)
    Path("symbolic.mp4").symlink_to("clip.mp4")
    Path("hard.mp4").hardlink_to("clip.mp4")
    assert run(["monitor", "clip.mp4", option, name, "--port", "0", "--duration", "0.1"]) == 2
    err = capfd.readouterr().err
    assert "to watch; give another path" in err
    assert err.startswith("unmask: cannot write" if option == "--annotate" else "unmask: --jsonl: ")
    key = option.removeprefix("--")
    value = f'"{name}"' if key == "annotate" else f'{{ path = "{name}" }}'
    Path("unmask.toml").write_text(
        f'[outputs]\n{key} = {value}\n[[sources]]\naddress = "{folder}/clip.mp4"\n'
    )
    assert run(["config", "check", "unmask.toml"]) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"unmask: unmask.toml:2: outputs.{key}")
    assert "to watch; give another path" in err
    assert Path("clip.mp4").read_bytes() == video


def test_standard_input_is_a_watched_file_too(tmp_path: Path, clip: Path) -> None:
    """It may be a file that the shell has opened."""
    video = tmp_path / "clip.mp4"
    video.write_bytes(clip.read_bytes())
    with video.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "unmask", "monitor", "-", "--annotate", video, "--port", "0"],
            stdin=file,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, "it is the video to watch" in done.stderr) == (2, True)
    assert video.read_bytes() == clip.read_bytes()


def test_every_option_of_an_output_needs_the_output() -> None:
    """An option that is added to an output is added to those that need it."""
    outputs = {KEYS[name][:-1]: name for name in ("jsonl", "webhook", "mqtt", "evidence")}
    expected = {
        (name, outputs[path[:-1]])
        for name, path in KEYS.items()
        if path[:-1] in outputs and name != outputs[path[:-1]]
    }
    assert len(expected) >= 7
    assert expected <= set(NEEDS)


def test_an_address_from_the_environment_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option that needs an output has an effect, whichever way the file names the output."""
    monkeypatch.setenv("HOOK", "https://example.org/x")
    file, secret = tmp_path / "unmask.toml", tmp_path / "secret"
    file.write_text('[outputs.webhook]\nurl_env = "HOOK"\n')
    secret.write_text("0123456789abcdef")
    given = Settings(values={"outputs": {"webhook": {"secret_file": str(secret)}}})
    webhook = MonitorSetup(file=file, given=given).load("skip").outputs.webhook
    assert webhook is not None
    assert webhook.secret == b"0123456789abcdef"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--annotate", "x.avi"], "--annotate"),
        (["demo", "--annotate", "x.mp4"], "several sources"),
        (["--evidence", "/dev/null/x"], "--evidence"),
        (["--jsonl", "/missing/x"], "--jsonl"),
        (["--mqtt", "mqtt://u:hush@"], "--mqtt"),
    ],
)
def test_mistakes_of_the_whole_command(
    options: list[str], text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line on standard error and exit code 2, before anything is watched."""
    assert run(["monitor", "demo", "--port", "0", *options]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert text in lines[0]
    assert "hush" not in lines[0]
