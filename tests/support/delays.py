"""Scenarios of messages whose sender and receiver have clocks that disagree, for Python and JavaScript."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass


def none(_: float) -> float:
    """Return no deviation and no delay."""
    return 0.0


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Messages every `interval_s`, a clock of the sender that deviates, and a delay of the messages.

    Args:
        name: What happens.
        clock: Deviation of the sender's clock in seconds, by the true time in seconds.
        delay: Delay of a message in seconds, by the true time of sending.
        duration_s: Length of the scenario.
        interval_s: Time between two messages.
        max_s: Maximum of the measured delays.
        last_s: Measured delay of the last message.
    """

    name: str
    clock: Callable[[float], float] = none
    delay: Callable[[float], float] = none
    duration_s: float = 120.0
    interval_s: float = 0.125
    max_s: float = 0.2
    last_s: float = 0.0

    def messages(self) -> Iterator[tuple[float, float]]:
        """Yield the time of sending by the sender's clock and that of receipt by the receiver's."""
        for index in range(int(self.duration_s / self.interval_s)):
            now_s = index * self.interval_s
            yield 1.7e9 + now_s + self.clock(now_s), 50.0 + now_s + self.delay(now_s)


SCENARIOS = (
    Scenario(name="clocks that agree"),
    Scenario(name="a step back by 4 s", clock=lambda now: -4.0 if now > 60 else 0.0),
    Scenario(name="a step back by 0.5 s", clock=lambda now: -0.5 if now > 60 else 0.0),
    Scenario(name="a step back by an hour", clock=lambda now: -3600.0 if now > 60 else 0.0),
    Scenario(name="a step forward by 4 s", clock=lambda now: 4.0 if now > 60 else 0.0),
    Scenario(name="steps to and fro", clock=lambda now: 10.0 if 40 < now < 80 else 0.0),
    Scenario(name="a step back every 10 s", clock=lambda now: -3.0 * (now // 10)),
    Scenario(name="20 ppm for a day", clock=lambda now: -2e-5 * now, duration_s=86400.0, interval_s=5.0),
    Scenario(name="500 ppm for an hour", clock=lambda now: -5e-4 * now, duration_s=3600.0, interval_s=1.0),
    Scenario(name="a fast clock for a day", clock=lambda now: 2e-4 * now, duration_s=86400.0, interval_s=5.0),
    Scenario(name="a network of 300 ms", delay=lambda _: 0.3),
    Scenario(name="a delay that grows", delay=lambda now: 0.1 * now, max_s=12.0, last_s=12.0),
    Scenario(name="one late message", delay=lambda now: 2.0 if now == 60 else 0.0, max_s=2.0),
    Scenario(name="a delay that stays", delay=lambda now: 4.0 if now > 60 else 0.0, max_s=4.0, last_s=4.0),
)
