"""A VAE that is given the label, and answers by asking which label explains an input best."""

import torch
from torch import Tensor

from benchmarks.peers.common import Sizes, standard_normal
from benchmarks.peers.m2 import M2


class CVAE(M2):
    r"""A conditional VAE; it has no classifier, so its answer is Bayes' rule on its bounds.

    .. math:: p(y \mid x) \propto \exp(-L(x, y))

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn
        et al., 2015), https://papers.nips.cc/paper/5775

    Args:
        sizes: What every model is built with.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes, label_weight=0.0)
        del self.head  # which only M2 has

    def log_answers(self, features: Tensor, x: Tensor) -> Tensor:
        """Log p(y given x) by Bayes' rule, as :meth:`predict` has it."""
        return self.predict(x).log_softmax(-1)

    def predict(self, x: Tensor) -> Tensor:
        """The bound of x with each label, at the posterior mean."""
        features = self.trunk(x)
        return torch.stack(
            [self._at_mean(features, x, k) for k in range(self.sizes.n_classes)], -1
        )

    def _at_mean(self, features: Tensor, x: Tensor, k: int) -> Tensor:
        y = self.one_hot(torch.full((len(x),), k, device=x.device))
        q = self.posterior(torch.cat([features, y], -1))
        found = self.log_likelihood(self.decoder(torch.cat([y, q.loc], -1)), x)
        return found - q.divergence(standard_normal(q.loc))
