"""Delay of messages: clocks that step and drift are no delay, and a delay is none of these."""

from __future__ import annotations

import pytest

from runtime.message_delay import MessageDelay
from tests.support.delays import SCENARIOS, Scenario


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_clock_errors_do_not_count_as_delay(scenario: Scenario) -> None:
    """The measured delay after each scenario is the true one, whatever the clocks did."""
    delay = MessageDelay()
    measured_s = [delay.measure(sent_s, received_s) for sent_s, received_s in scenario.messages()]
    assert min(measured_s) >= 0.0
    assert max(measured_s) <= scenario.max_s
    assert measured_s[-1] == pytest.approx(scenario.last_s, abs=0.15)
