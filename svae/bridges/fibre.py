"""What an invariance bridge is fitted to."""

import torch
from jaxtyping import Float
from torch import Tensor

from svae.bridges.invariance import InvarianceBridge
from svae.bridges.translation import TranslationObjective
from svae.latent import Latent

__all__ = ["InvarianceObjective"]

Values = dict[str, Tensor]


class InvarianceObjective(TranslationObjective):
    r"""Negative log-likelihood of codes given representations, and whether draws are on the fibre.

    .. math:: L = -\log p(\bar z + \sigma \epsilon \mid \Phi(x)) + d \left(
        \lambda \log(1 + FL^2) + \log\big(1 + \|\tilde z - z_0\|^2 / d\big) \right), \quad
        FL^2 = \frac{\|\Phi(D(\tilde z)) - \Phi(x)\|^2} {\sum_i \mathrm{Var}\,\Phi_i}, \quad
        z_0 = t^{-1}(v \mid \Phi(x)),\; v \sim \mathcal{N}(0, I)

    The likelihood alone knows the layer through the d dims of the codes only. The other terms fit
    the network that moves a drawn code :math:`z_0` to :math:`\tilde z`, where the layer sees what
    it should, and no further than it takes. They give the flow no gradient: a flow that is paid
    for draws near the fibre leaves out most of what lies on it.

    References:
        Making Sense of CNNs: Interpreting Deep Representations & Their Invariances with INNs
        (Rombach et al., 2020), https://arxiv.org/abs/2008.01777

    Args:
        noise: :math:`\sigma`, in standard deviations of a code dim.
        fibre_weight: :math:`\lambda`; 0 is the original method, and all that there is for a
            network that gives no gradients.
        fibre_share: Share of a batch that is drawn and moved, which costs a pass through decoder
            and network for every move and one more.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self, noise: float = 0.05, fibre_weight: float = 30.0, fibre_share: float = 0.125
    ) -> None:
        super().__init__(noise)
        if fibre_weight < 0 or not 0 < fibre_share <= 1:
            raise ValueError(
                "fibre_weight must be at least 0 and fibre_share above 0 and at most 1, got "
                f"{fibre_weight} and {fibre_share}"
            )
        self.fibre_weight, self.fibre_share = fibre_weight, fibre_share

    def forward(
        self,
        bridge: InvarianceBridge,
        code: Float[Tensor, "batch D"],
        representation: Float[Tensor, "batch *shape"],
    ) -> tuple[Tensor, Values]:
        """The loss, and its terms by name."""
        loss, found = super().forward(bridge, code, representation)
        if self.fibre_weight and bridge.refiner.n_steps:
            n = max(1, round(self.fibre_share * len(code)))
            wanted, v = representation[:n], torch.randn_like(code[:n])
            with torch.no_grad():
                drawn = bridge.proposed(Latent(wanted, v))
            moved = bridge.refined(drawn, wanted)
            fibre = bridge.fibre_loss(bridge.show(moved), wanted).square()
            distance = (moved - drawn).square().mean(1)
            found |= {"fibre_loss": fibre.mean().detach(), "moved": distance.mean().detach()}
            # Bounded: moves that go astray early on must not drown the rest of the batch.
            cost = self.fibre_weight * fibre.log1p() + distance.log1p()
            loss = loss + code.shape[1] * cost.mean()
        return loss, {**found, "loss": loss.detach()}
