"""What a model reacts to that has nothing to do with its task, ranked by how much.

Two ways to find it: change one thing in the inputs and look at the answers, or look whether a
known factor of the data moves the logits within a class.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from svae.factorization import in_batches
from svae.metrics.estimate import Estimate, bootstrap, mean, proportion
from svae.sketches.frames import Rotation, Shift, Size
from svae.sketches.operators import Blur, Operator, Slant, Thickness
from svae.sketches.tones import Brightness, Contrast, Hue, Saturation

__all__ = ["FactorEffect", "Reaction", "changes_for", "factor_effects", "reactions"]


@dataclass(frozen=True)
class Reaction:
    r"""How a model reacts to a change that should not matter.

    Args:
        name: Of what is changed.
        effect: :math:`\mathrm{KL}(p(\cdot \mid x) \,\|\, p(\cdot \mid O(x)))` in nats, the mean
            over inputs of the amount that moves each answer the most.
        flip_rate: Share of inputs whose answer another one replaces, at some amount.
    """

    name: str
    effect: Estimate
    flip_rate: Estimate


@dataclass(frozen=True)
class FactorEffect:
    """How much of the logits a factor of the data explains within a class.

    Args:
        name: Of the factor.
        share: Of the variance of the logits within classes, explained by the factor, a straight
            line and a parabola for each class.
        null: The same with the factor shuffled within each class.
    """

    name: str
    share: Estimate
    null: float

    @property
    def used(self) -> bool:
        """Whether the model surely reacts: the interval lies above what chance explains."""
        return self.share.low > self.null


@torch.no_grad()
def reactions(
    predict: Callable[[Tensor], Tensor],
    x: Float[Tensor, "n_images channels height width"],
    changes: Mapping[str, Sequence[Operator]] | None = None,
) -> list[Reaction]:
    """Changes of the inputs that a model reacts to, the strongest first.

    Args:
        predict: Pictures to logits, such as ``factorization.predict``.
        x: Pictures, at least two.
        changes: By name, operators of one kind; :func:`changes_for` the pictures by default.

    Raises:
        ValueError: If there are fewer than two pictures.
    """
    if len(x) < 2:
        raise ValueError(f"an interval needs at least 2 pictures, got {len(x)}")
    changes = changes_for(x.shape[1:]) if changes is None else changes
    before = in_batches(predict, x).log_softmax(1)
    answer, found = before.argmax(1), []
    for name, operators in changes.items():
        after = [in_batches(predict, operator(x)).log_softmax(1) for operator in operators]
        effect = torch.stack([(before.exp() * (before - one)).sum(1) for one in after])
        flipped = torch.stack([one.argmax(1) != answer for one in after])
        found.append(Reaction(name, mean(effect.amax(0)), proportion(flipped.any(0))))
    return sorted(found, key=lambda one: -one.effect.value)


def changes_for(shape: Sequence[int]) -> dict[str, tuple[Operator, ...]]:
    """Moderate changes, both ways, of pictures of a shape: of colour where they have any."""
    step = 1.5 * shape[-1] / 28
    ways = ((step, 0.0), (-step, 0.0), (0.0, step), (0.0, -step))
    found: dict[str, tuple[Operator, ...]] = {
        "rotation": (Rotation(-15.0), Rotation(15.0)),
        "position": tuple(Shift(*way) for way in ways),
        "size": (Size(0.85, 0.85), Size(1.15, 1.15)),
        "slant": (Slant(-15.0), Slant(15.0)),
        "thickness": (Thickness(0.7), Thickness(1.4)),
        "brightness": (Brightness(0.6), Brightness(1.4)),
        "contrast": (Contrast(0.6), Contrast(1.4)),
        "blur": (Blur(0.7),),
    }
    if shape[0] == 3:
        found |= {
            "hue": tuple(Hue(a) for a in (-120.0, -60.0, 60.0, 120.0, 180.0)),
            "saturation": (Saturation(0.5), Saturation(1.5)),
        }
    return found


@torch.no_grad()
def factor_effects(
    logits: Float[Tensor, "n_images n_classes"],
    y: Int[Tensor, " n_images"],
    factors: Float[Tensor, "n_images n_factors"],
    names: Sequence[str],
    seed: int = 0,
) -> list[FactorEffect]:
    """Known factors of the data that move the logits within a class, the strongest first.

    Args:
        logits: Of the model, for each input.
        y: Classes: what the model should tell, whose own effect is taken out.
        factors: Known factors of each input.
        names: Of the factors.
        seed: Of the shuffles that say what chance explains.

    Raises:
        ValueError: If lengths differ.
    """
    if not len(logits) == len(y) == len(factors) or len(names) != factors.shape[1]:
        raise ValueError(
            "logits, labels, factors and names must fit, got "
            f"{len(logits)}, {len(y)}, {tuple(factors.shape)} and {len(names)}"
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.arange(len(y))
    for label in y.unique():
        rows = (y == label).nonzero()[:, 0]
        shuffled[rows] = rows[torch.randperm(len(rows), generator=generator)]
    found = []
    for i, name in enumerate(names):
        left, whole = _within(logits, y, factors[:, i])
        share = bootstrap(_explained, left, whole, bounds=(0.0, 1.0))
        left, whole = _within(logits, y, factors[shuffled, i])
        found.append(FactorEffect(name, share, _explained(left, whole)))
    return sorted(found, key=lambda one: -one.share.value)


def _explained(left: Tensor, whole: Tensor) -> float:
    return float(1 - left.sum() / whole.sum())


def _within(logits: Tensor, y: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Of each input, squared deviations of its logits: from the fit, and from the class mean."""
    left, whole = torch.zeros(len(y)).double(), torch.zeros(len(y)).double()
    logits, factor = logits.double(), factor.double()
    for label in y.unique():
        rows = y == label
        wanted = logits[rows] - logits[rows].mean(0)
        v = factor[rows] - factor[rows].mean()
        v = v / v.std().clamp_min(1e-12) if len(v) > 1 else v
        design = torch.stack([torch.ones_like(v), v, v.square()], 1)
        fitted = design @ torch.linalg.lstsq(design, wanted, driver="gelsd").solution
        left[rows] = (wanted - fitted).square().sum(1)
        whole[rows] = wanted.square().sum(1)
    return left, whole.clamp_min(1e-300)
