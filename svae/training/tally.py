"""What an epoch has given so far, kept where it was computed."""

import torch
from torch import Tensor

from svae.compilation import Values

__all__ = ["NonFiniteLoss", "Tally"]


class NonFiniteLoss(FloatingPointError):
    """A term of the loss is NaN or infinite."""


class Tally:
    """Sums of the values of an epoch, and the first step at which one was not finite.

    Both stay on the device of the values, so that adding never waits for it.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._total: Tensor | None = None
        self._count = 0
        self._first: Tensor | None = None  # step, batch and values of the first that is not finite

    def add(self, values: Values, step: int, batch: int) -> None:
        """Counts the values of one step."""
        vector = torch.stack([value.detach().float() for value in values.values()])
        # Filled, not copied: a copy from the host would wait for the device.
        places = [vector.new_full((1,), place) for place in (step, batch)]
        place = torch.cat(places)
        if self._total is None:
            self.names, self._total = list(values), torch.zeros_like(vector)
            self._first = torch.cat([-torch.ones_like(place), vector])
        assert self._first is not None
        bad = ~vector.sum().isfinite() & (self._first[0] < 0)
        self._first = torch.where(bad, torch.cat([place, vector]), self._first)
        self._total += vector
        self._count += 1

    def means(self) -> Values:
        """Mean of every value over the steps."""
        if self._total is None:
            return {}
        return dict(zip(self.names, (self._total / self._count).unbind(), strict=True))

    def first_not_finite(self) -> tuple[Values, int, int] | None:
        """Values, step and batch of the first step with a value that is not finite."""
        if self._first is None or float(self._first[0]) < 0:
            return None
        step, batch, *values = self._first.cpu().unbind()
        return dict(zip(self.names, values, strict=True)), int(step), int(batch)
