"""How fast and in which phases a supervised VAE is optimised."""

import math
from dataclasses import dataclass

__all__ = ["Recipe", "one_cycle"]


@dataclass(frozen=True)
class Recipe:
    """How an SVAE is optimised.

    Args:
        learning_rate: Peak of the one-cycle schedule of model and guide.
        flow_learning_rate: The same for the style flow.
        weight_decay: Of AdamW.
        flow_share: Share of all steps that fit the style flow alone, after model and guide.
        flow_batch_size: Codes per step of that second phase, which are cheap; over all processes.
        joint: Whether the flow is the prior of the first phase too, trained with model and guide.
        mean_share: Share of the codes that the flow is fitted to, in the second phase, at the
            posterior mean instead of a posterior sample. It trades leakage of samples for leakage
            of means: what is noise in one class need not be noise in another.

    Raises:
        ValueError: If a number is out of range.
    """

    learning_rate: float = 2e-3
    flow_learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    flow_share: float = 0.5
    flow_batch_size: int = 512
    joint: bool = False
    mean_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.flow_share < 1 or not 0 <= self.mean_share <= 1:
            raise ValueError(
                "flow_share must be at least 0 and below 1 and mean_share between 0 and 1, got "
                f"{self.flow_share} and {self.mean_share}"
            )
        if min(self.learning_rate, self.flow_learning_rate) <= 0 or self.weight_decay < 0:
            raise ValueError(
                "learning rates must be positive and weight_decay at least 0, got "
                f"{self.learning_rate}, {self.flow_learning_rate} and {self.weight_decay}"
            )
        if self.flow_batch_size < 2:
            raise ValueError(f"flow_batch_size must be at least 2, got {self.flow_batch_size}")


def one_cycle(t: float, rise: float = 0.2) -> float:
    """Cosine from 1/25 up to 1 at ``rise`` and down to 1e-4; constant ends outside [0, 1].

    References:
        Super-Convergence (Smith & Topin, 2018), https://arxiv.org/abs/1708.07120
    """
    t = min(max(t, 0.0), 1.0)
    first, last, part = (
        (1 / 25, 1.0, t / rise) if t < rise else (1.0, 1e-4, (t - rise) / (1 - rise))
    )
    return last + (first - last) * (1 + math.cos(math.pi * part)) / 2
