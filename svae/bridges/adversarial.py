"""Decoders that are trained against a critic of their pictures."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from svae.bridges.autoencoder import FurtherLoss, Redrawing

__all__ = ["Adversarial", "PatchCritic"]


class PatchCritic(nn.Module):
    """Says of every patch of a picture whether it looks real, as a logit.

    References:
        Image-to-Image Translation with Conditional Adversarial Networks (Isola et al., 2017),
        https://arxiv.org/abs/1611.07004;
        Spectral Normalization for Generative Adversarial Networks (Miyato et al., 2018),
        https://arxiv.org/abs/1802.05957

    Args:
        channels: Of a picture.
        width: Channels of the first hidden map.
    """

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()

        def convolution(n_in: int, n_out: int, stride: int) -> nn.Module:
            return spectral_norm(nn.Conv2d(n_in, n_out, 3, stride, 1))

        self.net = nn.Sequential(
            convolution(channels, width, 2),
            nn.LeakyReLU(0.2),
            convolution(width, 2 * width, 2),
            nn.LeakyReLU(0.2),
            convolution(2 * width, 1, 1),
        )

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch patches"]:
        return self.net(2 * x - 1).flatten(1)


class Adversarial(FurtherLoss):
    r"""Trains a decoder of pictures against a critic, which it tries to fool.

    .. math:: L = L_\mathrm{network} + w\, \overline{\mathrm{softplus}(-C(\hat x))}, \qquad
        L_C = \overline{\mathrm{softplus}(C(\hat x))} + \overline{\mathrm{softplus}(-C(x))}

    Both are minimised at once, each over its own weights. Losses that compare with the one true
    picture blur what the code leaves open; a critic asks for some real-looking texture there,
    which need not be that of the input. The losses of a game say nothing of progress: the last
    epoch is kept, and what is logged as ``loss`` is :math:`L_\mathrm{network}` alone.

    References:
        Generative Adversarial Networks (Goodfellow et al., 2014),
        https://arxiv.org/abs/1406.2661

    Args:
        network: What is trained: an autoencoder, or one within :class:`svae.bridges.Perceptual`.
        weight: :math:`w`.
        width: Of the critic.

    Raises:
        ValueError: If the weight is negative, or the inputs are no pictures.
    """

    losses_compare = False

    def __init__(self, network: Redrawing, weight: float = 0.01, width: int = 32) -> None:
        super().__init__(network, weight)
        if len(self.x_shape) != 3:
            raise ValueError(
                "a critic looks at pictures (channels, height, width), got inputs of "
                f"{self.x_shape}"
            )
        self.critic = PatchCritic(self.x_shape[0], width)

    def difference(
        self, logits: Float[Tensor, "batch *event"], x: Float[Tensor, "batch *event"]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses of decoder and critic in one; ``loss`` among the values is the network's."""
        loss, found = self.network.difference(logits, x)
        drawn = self.shown(logits)
        # The same critic twice: its weights learn nothing from the picture that fools it, and the
        # decoder nothing from the critic that tells.
        still = {name: one.detach() for name, one in self.critic.named_parameters()}
        fooled = functional.softplus(-functional_call(self.critic, still, (drawn,))).mean()
        told = functional.softplus(self.critic(drawn.detach())).mean()
        told = told + functional.softplus(-self.critic(x)).mean()
        found |= {"fooled": fooled.detach(), "critic": told.detach()}
        return loss + self.weight * fooled + told, found
