"""Training pictures with what a model ignores drawn anew."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from svae.factorization import Factorization, resample_nuisance

__all__ = ["Augment"]


class Augment(nn.Module):
    """Draws the nuisance of pictures anew, each with a probability.

    A transform as those of torchvision: of one picture or of a batch, in training mode only. What
    a classifier is trained on then varies in what the factorization ignores and keeps its class.

    Args:
        factorization: Whose nuisance is drawn; it stays as it is.
        p: Probability for each picture.
        generator: Source of the draws; the global one by default.

    Raises:
        ValueError: If ``p`` is not in [0, 1].

    Example:
        >>> import svae
        >>> vae = svae.SVAE.for_images((1, 8, 8), 10, svae.LatentSplit(2, 2), width=4).eval()
        >>> Augment(vae)(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 1, 8, 8])
    """

    def __init__(
        self,
        factorization: Factorization,
        p: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p, a probability, must lie in [0, 1], got {p}")
        # Not as a sub-module: its weights are none of a model's that holds this.
        self._factorization = (factorization,)
        self.p, self.generator = p, generator

    def forward(self, x: Float[Tensor, "*batch_and_event"]) -> Float[Tensor, "*batch_and_event"]:
        """The pictures, some of them drawn anew."""
        if not self.training:
            return x
        batch = x if x.ndim == 4 else x[None]
        chosen = torch.rand(len(batch), generator=self.generator) < self.p
        chosen = chosen.to(batch.device)
        if not bool(chosen.any()):
            return x
        drawn = resample_nuisance(self._factorization[0], batch[chosen], 1, self.generator)[0]
        made = batch.clone()
        made[chosen] = drawn.to(made.dtype)
        return made if x.ndim == 4 else made[0]

    def extra_repr(self) -> str:
        """What it was given."""
        return f"{type(self._factorization[0]).__name__}, p={self.p}"
