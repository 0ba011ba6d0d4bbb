"""A term for unlabelled examples: a change that keeps the class must keep the prediction."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from svae.independence import Penalty
from svae.latent import Latent

if TYPE_CHECKING:
    from svae.models import SVAE

__all__ = ["Consistency"]


class Consistency(Penalty):
    r"""Cross-entropy of the prediction after a change with the class before it.

    .. math:: \frac1n \sum_i \mathbb{1}\big[\max_k p(k \mid z_i) > \tau\big]\,
        \big(-\log p(\hat k_i \mid t(x_i))\big), \qquad
        \hat k_i = \arg\max_k p(k \mid z_i), \quad z_i \sim q(z_\mathrm{class} \mid x_i)

    An example takes part once its class is nearly certain; where it has a label, that is the
    class. The changes are the user's knowledge of what does not matter: with few labels they are
    worth more than anything that the model can find out by itself, and a change that *does*
    matter teaches it to ignore the class. Do not use them where what the model ignores is the
    question.

    References:
        FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence (Sohn et
        al., 2020), https://arxiv.org/abs/2001.07685

    Args:
        change: A random change of a batch that keeps the class, such as
            :class:`svae.data.RandomAffine`.
        weight: Factor in the loss.
        threshold: Probability :math:`\tau` above which a class counts as certain.

    Raises:
        ValueError: If ``threshold`` is not between 0 and 1.
    """

    name = "consistency"

    def __init__(
        self, change: Callable[[Tensor], Tensor], weight: float = 10.0, threshold: float = 0.95
    ) -> None:
        super().__init__(weight)
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold is a probability, got {threshold}")
        self.change, self.threshold = change, threshold

    def forward(
        self, vae: "SVAE", x: Tensor, y: Int[Tensor, " batch"], latent: Latent
    ) -> Float[Tensor, ""]:
        certainty, guess = vae.logits(latent.z_class.detach()).softmax(-1).max(-1)
        known = y >= 0
        target = torch.where(known, y, guess)
        losses = functional.cross_entropy(vae.predict(self.change(x)), target, reduction="none")
        return (losses * (known | (certainty > self.threshold))).mean()
