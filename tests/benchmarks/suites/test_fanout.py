"""Real subscribers on a real server: fast ones receive everything, slow ones lose messages."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.errors import HelperFailed, SettingInvalid
from benchmarks.helpers.subscribers import Received, Subscribers
from benchmarks.suites.fanout import Delivery, FanoutConfig, deliver, run_fanout


def array(*rows: tuple[int, float]) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, 2)


def test_delays_and_losses() -> None:
    """Messages are matched by number; those before the measurement, and lost ones, have no delay."""
    delivery = Delivery(
        published=array((5, 10.0), (6, 11.0), (7, 12.0), (8, 13.0)),
        received=Received(
            fast=[array((4, 9.0), (5, 10.25), (6, 11.0), (7, 12.5), (8, 13.0)), array((5, 10.5), (6, 11.0))],
            slow=[array((8, 20.0))],
            cpu_s=0.0,
        ),
        server_cores=0.0,
        client_cores=0.0,
    )
    assert delivery.delays_ms(repeats=2) == [[250.0, 0.0, 500.0, 0.0], [500.0, 0.0]]
    assert delivery.delays_ms(repeats=1, slow=True) == [[7000.0]]
    assert delivery.lost() == 0.25
    assert delivery.lost(slow=True) == 0.75


def test_only_a_slow_reader_loses_messages() -> None:
    """Of four subscribers only the one that reads half of the messages loses some."""
    delivery = deliver(fast=3, slow=1, rate_hz=25.0, streams=4, seconds=2.0)
    assert len(delivery.published) == 200
    assert delivery.lost() == 0.0
    assert len(delivery.received.fast) == 3
    (delays,) = delivery.delays_ms(repeats=1)
    assert len(delays) == 600
    assert min(delays) > 0
    assert 0.0 < delivery.lost(slow=True) < 1.0
    (slow,) = delivery.received.slow
    assert (np.diff(slow[:, 0]) > 0).all()


def test_record_has_all_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each number of subscribers has its figures, by repetition."""
    out = tmp_path / "fanout.json"
    assert (
        run_fanout(
            FanoutConfig(subscribers=[1, 2], slow=0, rate_hz=20.0, seconds=1.0, repeats=2, json_out=out)
        )
        == 0
    )
    record = json.loads(out.read_text())
    figure = record["figures"]["2: delivery"]
    assert figure["n"] == 2 * 80
    assert len(figure["repeats"]["p99"]) == 2
    assert 0 < figure["p50"] <= figure["p99"] <= figure["max"]
    assert record["figures"]["2: lost"]["value"] == 0.0
    assert "subscribers" in capsys.readouterr().out


def test_a_missing_server_is_an_error() -> None:
    """The error is raised at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        pytest.raises(HelperFailed, match="the benchmark's subscribers failed"),
        Subscribers(f"ws://127.0.0.1:{port}/ws", fast=0, slow=1),
    ):
        pass


def test_numbers_below_one_are_refused() -> None:
    """Numbers below 1 are an error."""
    with pytest.raises(SettingInvalid, match="--subscribers 0"):
        run_fanout(FanoutConfig(subscribers=[0]))
