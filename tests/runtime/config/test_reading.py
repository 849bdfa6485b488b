"""Configuration files: what they may contain, and one line with its place for everything that is wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from runtime.config.lines import KeyPath, find_lines
from runtime.config.model import JsonlConfig, MonitorConfig, ServerConfig, SourceConfig, ThresholdsConfig
from runtime.config.reading import Settings, make_config, merge, read_settings
from runtime.errors import ConfigInvalid

COMPLETE = """\
engine = "onnxruntime"
rate = 4  # verdicts per second
thresholds = { fake = 0.7 }

[server]
host = "0.0.0.0"
token_file = "/etc/unmask/tokens"
allow_origin = [
  "https://desk.example",   # the desk
  "null",
]

[[sources]]
name = "door"
address = "rtsp://10.0.0.7/cam"
user = "ada"
password_env = "DOOR_PASSWORD"
transport = "udp"
hwaccel = "cuda"
thresholds.real = 0.2

[[sources]]
address = "demo"
rate = 2.5

[outputs]
jsonl = { path = "verdicts.jsonl", max_mb = 100 }

[outputs.webhook]
url_env = "HOOK"
secret_file = "/run/secrets/hook"

[evidence]
folder = "evidence"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "unmask.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, text: str) -> list[str]:
    """Return the problems of a file, without its path."""
    path = write(folder, text)
    with pytest.raises(ConfigInvalid) as raised:
        make_config(read_settings(path))
    assert all(problem.startswith(str(path)) for problem in raised.value.problems)
    return [problem.removeprefix(str(path)).lstrip(":") for problem in raised.value.problems]


def test_a_complete_file(tmp_path: Path) -> None:
    """Every kind of table and value arrives where it belongs."""
    config = make_config(read_settings(write(tmp_path, COMPLETE)))
    assert (config.engine, config.rate, config.thresholds) == ("onnxruntime", 4.0, ThresholdsConfig(fake=0.7))
    door, demo = config.sources
    assert (door.name, door.transport, door.hwaccel, door.user) == ("door", "udp", "cuda", "ada")
    assert door.password_env == "DOOR_PASSWORD"
    assert door.thresholds == ThresholdsConfig(real=0.2)
    assert demo == SourceConfig(address="demo", rate=2.5)
    assert config.server.allow_origin == ("https://desk.example", "null")
    assert config.server.token_file == Path("/etc/unmask/tokens")
    assert config.outputs.jsonl == JsonlConfig(path="verdicts.jsonl", max_mb=100)
    assert config.evidence is not None
    assert config.evidence.folder == Path("evidence")


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    """Every key has a default."""
    assert make_config(read_settings(write(tmp_path, ""))) == MonitorConfig()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\nprot = 1\n", "2: server.prot: unknown key; did you mean port?"),
        ("[server]\ntoken-file = 'x'", "2: server.token-file: unknown key; did you mean token_file?"),
        ("port = 1", "1: port: unknown key; did you mean server.port?"),
        (
            "[[sources]]\naddress = 'demo'\n\n[[source]]\naddress = 'demo'",
            "4: source: unknown key; did you mean sources?",
        ),
        ("[server]\nport = '1'", "2: server.port: expected a whole number, got text"),
        ("[server]\nport = 70000", "2: server.port: expected a whole number <= 65535"),
        ("[server]\nport = true", "2: server.port: expected a whole number, got true or false"),
        ("\n\nrate = 0.49", "3: rate: expected a number >= 0.5"),
        ("duration = 0", "1: duration: expected a number > 0.0"),
        ("rate = nan", "1: rate: expected a number"),
        ("duration = inf", "1: duration: expected a number <= 1000000000.0"),
        ("[outputs.jsonl]\npath = '-'\nmax_mb = inf", "3: outputs.jsonl.max_mb: expected a number <= "),
        ("[outputs.jsonl]\npath = '-'\nmax_mb = 1e308", "3: outputs.jsonl.max_mb: expected a number <= "),
        ("server = 3", "1: server: expected a table"),
        ("sources = 3", "1: sources: expected an array, got a whole number"),
        ("sources = [3]", "1: sources[0]: expected a table"),
        ("[sources]\naddress = 'demo'", "1: sources: expected an array, got a table"),
        ("[[sources]]\nname = 'door'", "1: sources[0]: the key address is missing"),
        ("[[sources]]\naddress = ''", "2: sources[0].address: expected text of length >= 1"),
        (
            "[[sources]]\naddress = 'demo'\ntransport = 'tpc'",
            "3: sources[0].transport: expected one of tcp, udp",
        ),
        (
            "[[sources]]\naddress = 'demo'\nhwaccel = 'gpu'",
            "1: sources[0]: hwaccel must be one of ",
        ),
        (
            "[[sources]]\naddress = 'demo'\npassword = 'x'",
            "3: sources[0].password: unknown key; did you mean password_",
        ),
        ("[[sources]]\naddress = 'demo'\npassword_file = 'x'", "1: sources[0]: a password needs a user"),
        (
            "[[sources]]\naddress = 'demo'\naddress_env = 'X'",
            "1: sources[0]: address and address_env exclude",
        ),
        (
            "[[sources]]\nname = 'a'\naddress = 'demo'\n[[sources]]\naddress = 'demo'\nname = 'a'",
            "6: sources[1].name: 'a' is also the name in ",
        ),
        (
            "[[sources]]\nname = 'a'\naddress = 'demo'\n[[sources]]\naddress = 'a=demo'",
            "5: sources[1].address: 'a' is also the name in ",
        ),
        ("thresholds = { real = 0.8, fake = 0.4 }", "1: thresholds: thresholds.real (0.8) is above"),
        ("[outputs.jsonl]\nmax_mb = 1", "1: outputs.jsonl: the key path is missing"),
        ("[evidence]\nfolder = 3", "2: evidence.folder: expected the path of a file"),
        ("[server]\nkey = 'key.pem'", "1: server: a key needs a certificate"),
        ("a = 1\na = 2", "2: a: cannot overwrite a value; check the TOML syntax"),
        ("[server\nport = 1", "1: expected ']' at the end of a table declaration; check the TOML syntax"),
        ("x = 'abc\n", "check the TOML syntax"),
        ("x = ", "1: x: invalid value; check the TOML syntax"),
    ],
)
def test_each_mistake_names_its_line_and_key(tmp_path: Path, text: str, expected: str) -> None:
    """one line names the place, which key, and what to do."""
    found = problems(tmp_path, text)
    assert len(found) == 1, found
    assert found[0].startswith(expected) or expected in found[0]
    assert "\n" not in found[0]


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    """A user need not start the program once for each."""
    text = "engin = 'auto'\n[server]\nport = 'x'\nhots = ''\n[[sources]]\nname = ''\n"
    assert [line.partition(":")[0] for line in problems(tmp_path, text)] == ["1", "3", "4", "6"]


def test_a_value_that_may_be_secret_is_not_shown(tmp_path: Path) -> None:
    """Neither a wrong type nor a syntax error shows a value."""
    for text in ("[[sources]]\naddress = ['s3cr3t-value']", "[[sources]]\naddress = 's3cr3t-value"):
        assert "s3cr3t" not in str(problems(tmp_path, text))


def test_unreadable_files(tmp_path: Path) -> None:
    """A missing file, a directory, binary data and a huge file are one line each."""
    (tmp_path / "binary").write_bytes(b"a = 1\n\xff\xfe")
    (tmp_path / "huge").write_bytes(b"#" * 2_000_000)
    for name, reason in (
        ("none", "no such file"),
        (".", "is a directory"),
        ("binary", ":2: not UTF-8 text"),
        ("huge", "larger than 1 MiB"),
    ):
        with pytest.raises(ConfigInvalid, match=reason):
            read_settings(tmp_path / name)


def test_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    """Editors write both."""
    path = tmp_path / "unmask.toml"
    path.write_bytes(b"\xef\xbb\xbf[server]\r\nport = 1\r\n\r\n[[sources]]\r\naddress = 'demo'\r\n")
    assert make_config(read_settings(path)).server.port == 1


def test_the_line_of_every_key() -> None:
    """Multi-line values, quoted and dotted keys, nested arrays and comments do not disturb the count."""
    text = '''# comment
a.b = 1
"quoted key" = """
[server]
x = 1
"""
list = [
  { c = 1 },

  { d = [2, 3] },
]
[server]   # comment
port = 1
[[sources]]
name = "a"
[sources.thresholds]
real = 0.1
[[sources]]
name = "b"
[[sources.inner]]
x = 1
'''
    assert tomllib.loads(text)
    lines = find_lines(text)
    assert lines["a", "b"] == 2
    assert lines[("quoted key",)] == 3
    assert lines["list", 1, "d", 0] == 7
    assert lines["server", "port"] == 13
    assert lines["sources", 0] == 14
    assert lines["sources", 0, "thresholds", "real"] == 17
    assert lines["sources", 1, "name"] == 19
    assert lines["sources", 1, "inner", 0, "x"] == 21


def test_options_count_before_the_file(tmp_path: Path) -> None:
    """An option replaces the value of the file; its sources come after those of the file."""
    options: dict[str, Any] = {"server": {"port": 1}, "sources": [{"address": "-"}], "rate": 8}
    places: dict[KeyPath, str] = {("server", "port"): "--port", ("sources", 0): "SOURCE"}
    given = Settings(values=options, places=places)
    config = make_config(merge(read_settings(write(tmp_path, COMPLETE)), given))
    assert (config.server.host, config.server.port, config.rate) == ("0.0.0.0", 1, 8)
    assert [source.address for source in config.sources] == ["rtsp://10.0.0.7/cam", "demo", "-"]
    assert make_config(given).server == ServerConfig(port=1)


def test_a_wrong_option_names_the_option(tmp_path: Path) -> None:
    """The same check applies to both, and each problem names where the value comes from."""
    given = Settings(
        values={"server": {"port": -1}, "sources": [{"address": ""}]},
        places={("server", "port"): "--port", ("sources", 0): "SOURCE"},
    )
    path = write(tmp_path, "[[sources]]\naddress = 'demo'\nrate = 0\n")
    with pytest.raises(ConfigInvalid) as raised:
        make_config(merge(read_settings(path), given))
    assert raised.value.problems == (
        f"{path}:3: sources[0].rate: expected a number >= 0.5",
        "SOURCE: sources[1].address: expected text of length >= 1",
        "--port: expected a whole number >= 0",
    )
