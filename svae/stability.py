"""Which findings recur when everything but the data is drawn anew."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from svae.factorization import Factorization
from svae.metrics.estimate import Estimate, mean
from svae.nuisances import FREE, free_shares, name_nuisances
from svae.sketches.looks import Measure, measures_for

__all__ = ["Recurrence", "recurrences"]


@dataclass(frozen=True)
class Recurrence:
    """One finding over several fits.

    Args:
        name: Of a measure.
        free: Share of its variance that the class part leaves open, with the interval over fits.
        values: Of each fit.
        ignored_in: Fits that say it is ignored.
        named_in: Fits with a nuisance dim of that name.
    """

    name: str
    free: Estimate
    values: tuple[float, ...]
    ignored_in: int
    named_in: int

    @property
    def stable(self) -> bool:
        """Whether all fits agree on what is ignored."""
        return self.ignored_in in (0, len(self.values))


@torch.no_grad()
def recurrences(
    fits: Sequence[Factorization],
    x: Float[Tensor, "n_images *event"],
    readers: Mapping[str, Measure] | None = None,
    n_images: int = 32,
    seed: int = 0,
) -> list[Recurrence]:
    """What several fits, of other seeds on one backbone, say of the same inputs.

    The fits that agree say nothing of what all of them get wrong alike.

    Args:
        fits: At least two factorizations, such as bridges of other seeds.
        x: Inputs.
        readers: Further measures by name, beside those of the inputs' shape.
        n_images: Inputs that each dim is walked from.
        seed: Of the draws, one for all fits.

    Returns:
        One for each measure, those that are ignored the most first.

    Raises:
        ValueError: If there are fewer than two fits.
    """
    if len(fits) < 2:
        raise ValueError(f"what recurs takes at least 2 fits, got {len(fits)}")
    measures = measures_for(x.shape[1:]) | dict(readers or {})
    shares: dict[str, list[float]] = {}
    named: Counter[str] = Counter()
    for one in fits:
        generator = torch.Generator().manual_seed(seed)
        for name, share in free_shares(one, x, measures, generator=generator).items():
            shares.setdefault(name, []).append(share.value)
        found = name_nuisances(one, x, readers, n_images=n_images, generator=generator)
        named.update({direction.name for direction in found.directions})
    whole = {name: values for name, values in shares.items() if len(values) == len(fits)}
    rows = [
        Recurrence(
            name,
            mean(torch.tensor(values)),
            tuple(values),
            sum(value >= FREE for value in values),
            named[name],
        )
        for name, values in whole.items()
    ]
    return sorted(rows, key=lambda one: -one.free.value)
