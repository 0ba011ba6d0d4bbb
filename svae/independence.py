r"""Penalties that keep the class out of the nuisance latent.

The style flow of :mod:`svae.priors` does this without any of them. They are the alternatives that
other work uses, as options of :class:`svae.SupervisedELBO`, so that a comparison is one flag away.
Each is a module with a ``name`` and a ``weight``; its value is added to the loss.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from svae.labels import mean_of_known
from svae.latent import Latent
from svae.nets import MLP

if TYPE_CHECKING:
    from svae.models import SVAE

__all__ = [
    "HSIC",
    "AdversarialProbe",
    "ClassConditionalMMD",
    "Penalty",
    "SwapCycle",
    "TotalCorrelation",
]


class Penalty(nn.Module, ABC):
    """A term of the loss that is small when the nuisance knows nothing of the class.

    Args:
        weight: Factor on the penalty in the loss.
    """

    name: ClassVar[str]

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"the weight of {self.name} must be at least 0, got {weight}")
        self.weight = weight

    @abstractmethod
    def forward(
        self, vae: "SVAE", x: Tensor, y: Int[Tensor, " batch"], latent: Latent
    ) -> Float[Tensor, ""]:
        """The penalty of one batch; ``latent`` holds posterior samples.

        ``y`` is -1 where the class is not known, and the most probable class of a soft label.
        """


class AdversarialProbe(Penalty):
    """A probe reads y from ``z_nuisance`` through reversed gradients.

    The probe minimises its cross-entropy, encoder and flow maximise it. Its value is the
    cross-entropy in nats, at most the label's entropy when nothing can be read.

    References:
        Domain-Adversarial Training of Neural Networks (Ganin et al., 2016),
        https://arxiv.org/abs/1505.07818

    Args:
        n_nuisance: Number of nuisance dims.
        n_classes: Number of classes.
        weight: Factor in the loss.
        hidden: Width of the probe's two hidden layers.
    """

    name = "adversarial_probe"

    def __init__(
        self, n_nuisance: int, n_classes: int, weight: float = 1.0, hidden: int = 128
    ) -> None:
        super().__init__(weight)
        self.probe = MLP([n_nuisance, hidden, hidden, n_classes])

    def forward(
        self, vae: "SVAE", x: Tensor, y: Int[Tensor, " batch"], latent: Latent
    ) -> Float[Tensor, ""]:
        z = latent.z_nuisance
        reversed_nuisance = 2 * z.detach() - z  # z itself, with the gradient of -z
        return _cross_entropy(self.probe(reversed_nuisance), y)


class ClassConditionalMMD(Penalty):
    r"""Distance of each class's aggregate posterior from the prior.

    .. math:: \sum_k \frac{n_k}{n} \widehat{\mathrm{MMD}}^2\big(q(z_\mathrm{nuisance} \mid y = k),
        \mathcal{N}(0, I)\big)

    unbiased, with a mixture of Gaussian kernels around the bandwidth :math:`\sqrt{2 D}`. Classes
    with fewer than two examples in the batch are left out.

    References:
        A Kernel Two-Sample Test (Gretton et al., 2012),
        https://jmlr.org/papers/v13/gretton12a.html
    """

    name = "class_conditional_mmd"

    def forward(
        self, vae: "SVAE", x: Tensor, y: Int[Tensor, " batch"], latent: Latent
    ) -> Float[Tensor, ""]:
        z = latent.z_nuisance
        # All classes in one product, as no shape may depend on the labels in a compiled step.
        members = functional.one_hot(y.clamp(min=0), vae.n_classes).to(z.dtype)
        members = members * (y >= 0).unsqueeze(-1)
        return mmd_by_class(z, members, torch.randn_like(z))


class HSIC(Penalty):
    r"""Hilbert-Schmidt independence criterion of nuisance and label.

    .. math:: (n - 1)^{-2}\, \mathrm{tr}(K H L H), \qquad K_{ij} = k(z_i, z_j), \quad
        L_{ij} = [y_i = y_j], \quad H = I - \tfrac1n

    References:
        Measuring Statistical Dependence with Hilbert-Schmidt Norms (Gretton et al., 2005),
        https://doi.org/10.1007/11564089_7
    """

    name = "hsic"

    def forward(
        self, vae: "SVAE", x: Tensor, y: Int[Tensor, " batch"], latent: Latent
    ) -> Float[Tensor, ""]:
        return hsic(latent.z_nuisance, y)


class SwapCycle(Penalty):
    """Decode with another's nuisance, encode again, and ask the head for the first's class.

    References:
        The cross-reconstruction of Challenges in Disentangling Independent Factors of Variation
        (Szabó et al., 2017), https://arxiv.org/abs/1711.02245
    """

    name = "swap_cycle"

    def forward(
        self, vae: "SVAE", x: Tensor, y: Int[Tensor, " batch"], latent: Latent
    ) -> Float[Tensor, ""]:
        swapped = Latent(latent.z_class, latent.z_nuisance.roll(1, dims=0))
        return _cross_entropy(vae.predict(vae.decode(swapped)), y)


class TotalCorrelation(Penalty):
    r"""What class and nuisance latent share, seen by a classifier of true and shuffled pairs.

    .. math:: \mathrm{KL}\big(q(z_\mathrm{class}, z_\mathrm{nuisance}) \,\|\,
        q(z_\mathrm{class})\, q(z_\mathrm{nuisance})\big)
        = \mathbb{E}_q\Big[\log \frac{D}{1 - D}\Big]

    for the best classifier D of pairs from one example against pairs whose nuisance is another
    example's. The classifier minimises its cross-entropy, encoder and flow maximise it through
    reversed gradients; the value is that cross-entropy, log 2 when the two share nothing. It needs
    no labels.

    References:
        Disentangling by Factorising (Kim & Mnih, 2018), https://arxiv.org/abs/1802.05983

    Args:
        n_features: Number of all latent dims.
        weight: Factor in the loss.
        hidden: Width of the classifier's two hidden layers.
    """

    name = "total_correlation"

    def __init__(self, n_features: int, weight: float = 1.0, hidden: int = 128) -> None:
        super().__init__(weight)
        self.classifier = MLP([n_features, hidden, hidden, 1])

    def forward(
        self, vae: "SVAE", x: Tensor, y: Int[Tensor, " batch"], latent: Latent
    ) -> Float[Tensor, ""]:
        z_class, z = latent.map(lambda part: 2 * part.detach() - part)
        pairs = [torch.cat([z_class, other], -1) for other in (z, z.roll(1, dims=0))]
        true, shuffled = (self.classifier(pair) for pair in pairs)
        return (functional.softplus(-true) + functional.softplus(shuffled)).mean() / 2


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over the labelled examples; 0 without any."""
    losses = functional.cross_entropy(logits, y.clamp(min=0), reduction="none")
    return mean_of_known(losses, y >= 0)


def mmd_by_class(
    z: Float[Tensor, "n dims"], members: Float[Tensor, "n classes"], b: Float[Tensor, "m dims"]
) -> Float[Tensor, ""]:
    """Mean over examples of :func:`mmd` of the class of each and ``b``.

    Args:
        z: Codes.
        members: 1 where a code belongs to a class. A class with fewer than two counts nothing.
        b: The sample that every class is compared with.
    """
    n, m = members.sum(0), len(b)
    counts = n > 1
    within, between = _kernel(z, z), _kernel(z, b)
    pairs = torch.einsum("ik,ij,jk->k", members, within, members)
    own = (pairs - within.diagonal() @ members) / (n * (n - 1)).clamp(min=1)
    kernel_b = _kernel(b, b)
    within_b = (kernel_b.sum() - kernel_b.diagonal().sum()) / (m * (m - 1))
    across = (members * between.mean(1, keepdim=True)).sum(0) / n.clamp(min=1)
    return torch.where(counts, n * (own + within_b - 2 * across), 0).sum() / len(z)


def mmd(a: Float[Tensor, "n dims"], b: Float[Tensor, "m dims"]) -> Float[Tensor, ""]:
    """Unbiased squared maximum mean discrepancy of two samples."""
    return mmd_by_class(a, a.new_ones(len(a), 1), b)


def hsic(z: Float[Tensor, "n dims"], y: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Biased estimate of the HSIC of a code and a label, at least 0; -1 is no label."""
    k = _kernel(z, z)
    known = (y >= 0).to(z.dtype)
    n = known.sum().clamp(min=2)
    rows = k @ known / n
    centred = k - rows[:, None] - rows[None, :] + known @ rows / n
    same = (y[:, None] == y[None, :]).to(z.dtype) * known[:, None] * known[None, :]
    return (centred * same).sum() / (n - 1) ** 2


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """Mean of Gaussian kernels; their bandwidths surround that of a standard normal code."""
    squared = torch.cdist(a, b).square() / (2 * a.shape[-1])
    return torch.stack([(-squared / scale).exp() for scale in (0.25, 1.0, 4.0)]).mean(0)
