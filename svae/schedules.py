r"""Weights that change with the training step: warm-up, cycles, and targets that grow.

A schedule is a function of the step. The objective evaluates it outside of the compiled graph and
hands the number in, so a change needs no new graph.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

__all__ = ["Cyclical", "Schedule", "WarmUp", "value_at"]


class Schedule(ABC):
    """A number for every training step."""

    @property
    @abstractmethod
    def final(self) -> float:
        """The number that validation uses: the one that training ends with."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The number at a step, from 0 on."""


@dataclass(frozen=True)
class WarmUp(Schedule):
    """Linear from ``start`` to ``end`` over ``steps``, constant afterwards.

    References:
        Ladder Variational Autoencoders (Sønderby et al., 2016), https://arxiv.org/abs/1602.02282

    Args:
        end: The number from then on.
        steps: Length of the rise.
        start: The number at step 0.

    Raises:
        ValueError: If ``steps`` is less than 1 or a number negative.

    Example:
        >>> [WarmUp(2.0, steps=4)(step) for step in (0, 1, 4, 9)]
        [0.0, 0.5, 2.0, 2.0]
    """

    end: float
    steps: int
    start: float = 0.0

    def __post_init__(self) -> None:
        _check(self.steps, self.start, self.end)

    @property
    def final(self) -> float:
        return self.end

    def __call__(self, step: int) -> float:
        return self.start + (self.end - self.start) * min(1.0, step / self.steps)


@dataclass(frozen=True)
class Cyclical(Schedule):
    """Rises from 0 to ``end`` again and again, and stays there for the rest of each cycle.

    References:
        Cyclical Annealing Schedule: A Simple Approach to Mitigating KL Vanishing (Fu et al.,
        2019), https://arxiv.org/abs/1903.10145

    Args:
        end: The number at the top.
        period: Steps of one cycle.
        rise: Share of a cycle that rises.

    Raises:
        ValueError: If ``period`` is less than 1, ``rise`` not in (0, 1] or ``end`` negative.

    Example:
        >>> [Cyclical(1.0, period=4)(step) for step in range(6)]
        [0.0, 0.5, 1.0, 1.0, 0.0, 0.5]
    """

    end: float
    period: int
    rise: float = 0.5

    def __post_init__(self) -> None:
        _check(self.period, self.end)
        if not 0 < self.rise <= 1:
            raise ValueError(f"rise is a share of the cycle in (0, 1], got {self.rise}")

    @property
    def final(self) -> float:
        return self.end

    def __call__(self, step: int) -> float:
        return self.end * min(1.0, step % self.period / (self.rise * self.period))


def value_at(schedule: float | Schedule, step: int | None) -> float:
    """The number at a step, the final one if None; a number is its own schedule."""
    if not isinstance(schedule, Schedule):
        return float(schedule)
    return schedule.final if step is None else schedule(step)


def _check(steps: int, *numbers: float) -> None:
    if steps < 1:
        raise ValueError(f"a schedule needs 1 or more steps, got {steps}")
    if not all(number >= 0 for number in numbers):
        raise ValueError(f"weights and capacities are at least 0, got {numbers}")
