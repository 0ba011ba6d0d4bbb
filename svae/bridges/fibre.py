"""What an invariance bridge is fitted to."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from svae.bridges.invariance import InvarianceBridge
from svae.latent import Latent
from svae.saving import Described

__all__ = ["InvarianceObjective"]

Values = dict[str, Tensor]


class InvarianceObjective(Described, nn.Module):
    r"""Negative log-likelihood of codes given representations, and whether draws are on the fibre.

    .. math:: L = -\log p(\bar z + \sigma \epsilon \mid \Phi(x))
        + \lambda D \, \frac{\|\Phi(D(t^{-1}(v \mid \Phi(x)))) - \Phi(x)\|^2}
        {\sum_i \mathrm{Var}\,\Phi_i}, \quad v \sim \mathcal{N}(0, I)

    The likelihood alone knows the layer through the codes only; the second term asks the layer
    itself what it sees in a draw, which the original method never did. It is weighed by the D
    dims of the code, as the likelihood grows with their number.

    References:
        Making Sense of CNNs: Interpreting Deep Representations & Their Invariances with INNs
        (Rombach et al., 2020), https://arxiv.org/abs/2008.01777

    Args:
        noise: :math:`\sigma`, in standard deviations of a code dim.
        fibre_weight: :math:`\lambda`; 0 is the original method, and all that there is for a
            network that gives no gradients.
        fibre_share: Share of a batch that the second term is computed for, which costs a pass
            through decoder and network.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self, noise: float = 0.05, fibre_weight: float = 0.3, fibre_share: float = 0.5
    ) -> None:
        super().__init__()
        if min(noise, fibre_weight) < 0 or not 0 < fibre_share <= 1:
            raise ValueError(
                "noise and fibre_weight must be at least 0 and fibre_share above 0 and at most 1, "
                f"got {noise}, {fibre_weight} and {fibre_share}"
            )
        self.noise, self.fibre_weight, self.fibre_share = noise, fibre_weight, fibre_share

    def forward(
        self,
        bridge: InvarianceBridge,
        code: Float[Tensor, "batch D"],
        representation: Float[Tensor, "batch *shape"],
    ) -> tuple[Tensor, Values]:
        """The loss, and its terms by name."""
        noisy = code + self.noise * torch.randn_like(code)
        nll = -bridge.log_prob(noisy, representation).mean()
        found = {"nll": nll.detach()}
        loss = nll
        if self.fibre_weight and bridge.frozen.differentiable:
            n = max(1, round(self.fibre_share * len(code)))
            wanted, v = representation[:n], torch.randn_like(code[:n])
            drawn = bridge.decode(Latent(wanted, v))
            fibre = bridge.fibre_loss(drawn, wanted).square().mean()
            found["fibre_loss"] = fibre.detach()
            loss = loss + self.fibre_weight * code.shape[1] * fibre
        return loss, {**found, "loss": loss.detach()}
