"""The command `unmask calibrate`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import NoReturn

import pytest

from runtime.commands.calibrate import CalibrateOptions, run_calibrate
from runtime.commands.options import UserError
from runtime.errors import ConfigInvalid, EngineUnknown
from runtime.model import camera_calibration
from runtime.model.bundle import Bundle
from runtime.pipeline.monitor import Monitor
from tests.support.wire import verdict
from unmask import run

CONFIG = """
[[sources]]
name = "desk"
address = "demo"
thresholds = { real = 0.1, fake = 0.99 }
"""


def options(source: str, *, config: Path | None = None, seconds: float = 4.0) -> CalibrateOptions:
    return CalibrateOptions(source=source, seconds=seconds, config=config, model=None, engine=None)


def publish_scores(times: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the source by scores of two faces at given media times."""

    def publish(monitor: Monitor, timeout_s: float | None = None) -> None:
        for pts_s in times:
            for face in (1, 2):
                monitor._publish(verdict(face=face, state="real", p_fake=0.1, pts_s=pts_s))

    monkeypatch.setattr(Monitor, "wait", publish)
    monkeypatch.setattr(Monitor, "add", lambda *_: None)


def test_a_source_of_the_configuration(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line that is printed is a valid key of that source; its earlier thresholds have no influence."""
    monkeypatch.setattr(camera_calibration, "MIN_FACE_S", 0.25)
    config = tmp_path / "unmask.toml"
    config.write_text(CONFIG)
    assert run_calibrate(options("desk", config=config)) == 0
    printed = capfd.readouterr().out
    assert re.match(r"# desk: \d+ s with a face, mean p_fake 0\.\d\d, model unmask-160", printed)
    found = tomllib.loads(printed)["thresholds"]
    assert 0.2 < found["real"] < found["fake"] < 0.9


def test_too_short_a_stretch_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    """One line says what is missing, and nothing is printed on standard output."""
    assert run_calibrate(options("demo", seconds=1.0)) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert re.fullmatch(
        r"unmask: demo: a face was scored for \d\.\d s only, 10 s are needed; .*\n", printed.err
    )


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        pytest.param([n / 8 for n in range(40)], "5.0", id="samples at the rate of the model"),
        pytest.param([n / 5 for n in range(40)], "7.9", id="a slow camera"),
        pytest.param(
            [n / 10 for n in range(99)], "9.9", id="a camera that is a little faster than the model"
        ),
        pytest.param([n / 8 + 60 * (n // 20) for n in range(40)], "5.0", id="a minute without a face"),
        pytest.param([n % 20 / 8 for n in range(40)], "5.0", id="a connection whose times start again"),
        pytest.param([], "0.0", id="no face"),
    ],
)
def test_seconds_are_those_with_a_face_not_those_of_each(
    times: list[float], seconds: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two faces at the same time count once, and each sample for the time since the last one."""
    publish_scores(times, monkeypatch)
    assert run_calibrate(options("demo")) == 2
    assert f"a face was scored for {seconds} s only" in capfd.readouterr().err


def test_a_slow_camera_needs_no_more_time(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty-one samples at five a second cover ten seconds."""
    publish_scores([sample / 5 for sample in range(51)], monkeypatch)
    assert run_calibrate(options("demo")) == 0
    assert capfd.readouterr().out.startswith("# demo: 10 s with a face")


@pytest.mark.parametrize("source", ["browser", "whip:studio"])
def test_a_sender_has_no_server(source: str, tmp_path: Path) -> None:
    """Sources that only a server receives are refused at once, also those of a configuration."""
    config = tmp_path / "unmask.toml"
    config.write_text(f'[[sources]]\nname = "desk"\naddress = "{source}"\n')
    for asked in (options(source), options("desk", config=config)):
        with pytest.raises(UserError, match=r"`unmask calibrate` runs none; connect this camera here"):
            run_calibrate(asked)


def test_a_stretch_that_must_fail_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    """Less than the shortest stretch with a face, after the source has been opened, is not watched at all."""
    shortest_s = camera_calibration.MIN_WATCHED_S
    assert shortest_s > camera_calibration.MIN_FACE_S
    assert run(["calibrate", "demo", "--seconds", f"{shortest_s - 1:g}"]) == 2
    assert f"than or equal to {shortest_s:g}" in capfd.readouterr().err


@pytest.mark.parametrize("seconds", ["inf", "1e300"])
def test_a_time_that_never_ends_is_refused(seconds: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Numbers with which nothing can wait are refused in one line."""
    assert run(["calibrate", "demo", "--seconds", seconds]) == 2
    assert "'--seconds'" in capfd.readouterr().err


def test_the_engine_of_the_configuration_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the engine by which `monitor` would score the same source."""

    def refuse(bundle: Bundle, choice: str) -> NoReturn:
        raise EngineUnknown(choice, ())

    monkeypatch.setattr("runtime.commands.calibrate.open_engine", refuse)
    config = tmp_path / "unmask.toml"
    config.write_text(f'engine = "tensorrt"\n{CONFIG}')
    with pytest.raises(EngineUnknown, match="tensorrt"):
        run_calibrate(options("desk", config=config))


def test_the_model_of_the_configuration_has_its_place(tmp_path: Path) -> None:
    """A model that cannot be used is named with file, line and key."""
    config = tmp_path / "unmask.toml"
    config.write_text(f'model = "none"\n{CONFIG}')
    with pytest.raises(ConfigInvalid, match=r"unmask\.toml:1: model: none: no such directory"):
        run_calibrate(options("desk", config=config))


def test_an_unknown_name_is_an_error(tmp_path: Path) -> None:
    """The error names the sources that there are."""
    config = tmp_path / "unmask.toml"
    config.write_text(CONFIG)
    with pytest.raises(UserError, match=r"there is no source named 'door'; it has desk"):
        run_calibrate(options("door", config=config))
