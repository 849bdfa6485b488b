"""Options of the outputs: every mistake is one line that names the option, and no secret is repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime.commands.options import UserError
from runtime.commands.output_options import OutputArguments, make_outputs
from runtime.outputs.options import OutputOptions
from unmask import run

NOTHING = OutputArguments(
    jsonl=None,
    jsonl_max_mb=None,
    jsonl_keep=5,
    webhook=None,
    webhook_secret_file=None,
    mqtt=None,
    mqtt_password_file=None,
    evidence=None,
    evidence_control=0.0,
    evidence_max_gb=10.0,
    evidence_days=30.0,
    annotate=None,
)


def arguments(**changes: Any) -> OutputArguments:
    return OutputArguments(**{**vars(NOTHING), **changes})


def test_everything_is_off_by_default() -> None:
    """Nothing is stored or sent unless asked for."""
    assert make_outputs(NOTHING) == OutputOptions()


def test_secrets_come_from_files(tmp_path: Path) -> None:
    """White space around them does not count."""
    secret, password = tmp_path / "secret", tmp_path / "password"
    secret.write_text("0123456789abcdef\n")
    password.write_text("a password\n")
    options = make_outputs(
        arguments(
            webhook="https://example.org/x",
            webhook_secret_file=secret,
            mqtt="mqtt://user@broker/attic",
            mqtt_password_file=password,
        )
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
        ({"jsonl": "x", "jsonl_max_mb": 1.0, "jsonl_keep": 0}, "--jsonl-max-mb"),
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
    paths = {name: Path(value) for name, value in changes.items() if name.endswith("_file")}
    with pytest.raises(UserError) as caught:
        make_outputs(arguments(**{**changes, **paths}))
    assert option in str(caught.value)
    assert "hush" not in str(caught.value)


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
