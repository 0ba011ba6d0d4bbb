"""From the representation of one frozen model to the code of another."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from svae.bridges.refining import summary
from svae.bridges.translator import Translator
from svae.data.pairing import check_pairs
from svae.flows import ConditionalFlow
from svae.latent import Latent
from svae.nets import MLP
from svae.saving import Described

__all__ = [
    "MAX_LOG_SCALE",
    "MeanTranslator",
    "TranslationBridge",
    "TranslationObjective",
]

MAX_LOG_SCALE = 1.0  # of one coupling; more makes a likelihood of few codes run away


class TranslationBridge(Translator):
    r"""A conditional flow between two experts that nobody may change.

    .. math:: v = \tau^{-1}(\Theta(y) \mid \Phi(x)), \qquad v \sim \mathcal{N}(0, I), \qquad
        \tilde y = \Lambda(\tau(v \mid \Phi(x)))

    :math:`\Phi` is what the source shows of x, :math:`\Theta` and :math:`\Lambda` are encoder and
    decoder of the target. Maximum likelihood makes v independent of :math:`\Phi(x)`: the loss is
    :math:`I(v; \Phi(x)) + \mathrm{KL}(p(v)\,\|\,\mathcal{N})` up to a constant. So v holds what
    the target's code has and the source does not say; draws of v are all the translations that
    there are.

    As a factorization ``z_class`` is the source's representation and ``z_nuisance`` is v. Fit it
    with ``svae.fit(bridge, data)``, where ``data`` has inputs of the target and the source's are
    their ``view``, or with pairs, ``svae.fit(bridge, svae.data.paired(x, y))``.

    Where the source nearly determines the target there is little to draw, and the flow has to
    learn the mean code before anything else. Give it a fitted :class:`MeanTranslator` m as its
    ``centre``: the flow then models what that leaves, :math:`v = \tau^{-1}(\Theta(y) - m(\Phi(x))
    \mid \Phi(x))`, with the same determinant. :func:`svae.translating.compare` says which case it
    is.

    References:
        Network-to-Network Translation with Conditional Invertible Neural Networks (Rombach et
        al., 2020), https://arxiv.org/abs/2005.13580

    Args:
        source: Gives representations: :class:`svae.Frozen`, :class:`svae.bridges.Vectors` for
            labels, attributes and embeddings, :class:`svae.bridges.BagOfWords` for captions.
        target: A module with ``encode(x)``, to codes ``(batch, D)``, and ``decode(code)``, such as
            a fitted :class:`svae.bridges.Autoencoder`; fit it before, it is frozen here.
        view: From the target's inputs to the source's; None where both take the same.
        x_shape: Shape of one input of the target; its own ``x_shape`` if None, else the source's.
        n_blocks: Blocks of the flow.
        hidden: Widths of the hidden layers of every coupling.
        context: Features that the representation is summed up in for the couplings.
        centre: A fitted mean translator of the same source and target, which the flow starts
            from; it is frozen here. None where codes have no centre but zero.

    Raises:
        TypeError: If the source gives no representations, or the target lacks a method.
        ValueError: If the target gives codes that are no vectors, nothing says what shape its
            inputs have, or the centre is of another source or target.

    Example:
        >>> target = svae.bridges.Autoencoder((1, 8, 8), n_code=5, width=8)
        >>> labels = svae.bridges.Vectors(3)
        >>> bridge = svae.TranslationBridge(labels, target).eval()
        >>> bridge.translate(torch.eye(3), n=4).shape
        torch.Size([4, 3, 1, 8, 8])
    """

    fitted = ("flow",)

    def __init__(
        self,
        source: Any,
        target: nn.Module,
        view: Callable[[Tensor], Any] | None = None,
        x_shape: Sequence[int] | None = None,
        *,
        n_blocks: int = 8,
        hidden: Sequence[int] = (192, 192),
        context: int = 96,
        centre: "MeanTranslator | None" = None,
    ) -> None:
        super().__init__(source, target, view, x_shape)
        self.settings = {"n_blocks": n_blocks, "hidden": list(hidden), "context": context}
        if centre is not None:
            if centre.source is not source or centre.target is not target:
                raise ValueError(
                    "the centre translates from another source or to another target than the "
                    "bridge: build both with the same, mean.source and mean.target"
                )
            self.centre = centre.requires_grad_(False).eval()
            self.settings["centre"] = centre.settings
        self.flow = ConditionalFlow(
            self.n_code,
            context,
            n_blocks=n_blocks,
            hidden=hidden,
            max_log_scale=MAX_LOG_SCALE,
            embed=summary(self.shape, context),
        )
        self.eval()  # the first batch of a training sets what a flow starts from, no look before

    # ---- the factorization

    def encode(self, x: Float[Tensor, "batch *event"], sample: bool = False) -> Latent:
        """The representation of each input and its v.

        With ``sample`` the v is that of a code with the noise that the flow was fitted with: of
        such codes it is standard normal, while bare ones lie on a thinner set than the flow knows.
        """
        return self.latent(x, self.representation(x), sample)

    def decode(self, latent: Latent) -> Float[Tensor, "batch *event"]:
        """The target's input that has this v, given what the source shows."""
        return self.show(self.code_of(latent))

    def sample_nuisance(
        self, latent: Latent, n: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n batch D"]:
        """Standard normal draws of v.

        Raises:
            ValueError: If ``n`` is less than 1.
        """
        if n < 1:
            raise ValueError(f"n, the number of draws, must be at least 1, got {n}")
        noise = torch.randn(n, len(latent.z_class), self.n_code, generator=generator)
        return noise.to(self.mean)

    # ---- translation

    @torch.no_grad()
    def translate(
        self, x: Any, n: int = 1, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n batch *event"]:
        """Inputs of the target for inputs of the source, ``n`` draws of each.

        Raises:
            ValueError: If ``n`` is less than 1.
        """
        codes = self.sample_codes(self.shown(x), n, generator)
        return torch.stack([self.show(code) for code in codes])

    @torch.no_grad()
    def like(
        self, x: Any, exemplar: Float[Tensor, "n *event"], of: Any = None
    ) -> Float[Tensor, "batch *event"]:
        """Translations of ``x`` that share all else with exemplars: their v, with another source.

        Args:
            x: Inputs of the source.
            exemplar: Inputs of the target, as many, or one for all.
            of: The source's inputs that belong to the exemplars; their ``view`` if None.

        Raises:
            ValueError: If there are as many exemplars as neither one nor ``x``, or not as many
                inputs in ``of`` as exemplars.
        """
        if of is not None:
            check_pairs(of, len(exemplar))
        wanted = self.shown(x)
        own = self.representation(exemplar) if of is None else self.shown(of)
        v = self.latent(exemplar, own).z_nuisance
        if len(v) not in (1, len(wanted)):
            raise ValueError(
                f"got {len(v)} exemplars for {len(wanted)} inputs: give one, or one for each"
            )
        return self.decode(Latent(wanted, v.expand(len(wanted), -1)))

    # ---- code and noise

    def latent(
        self,
        x: Float[Tensor, "batch *event"],
        representation: Float[Tensor, "batch *shape"],
        sample: bool = False,
    ) -> Latent:
        """A source's representation, and the v of the target's inputs given it."""
        code = self.code(x)
        if sample:
            code = code + self.code_noise * torch.randn_like(code)
        return Latent(representation, self.noise(code, representation)[0])

    def noise(
        self, code: Float[Tensor, "batch D"], representation: Float[Tensor, "batch *shape"]
    ) -> tuple[Float[Tensor, "batch D"], Float[Tensor, " batch"]]:
        """The v of codes, given what the source shows, and the log-determinant."""
        return self.flow(*self._left(code, representation))

    def code_of(self, latent: Latent) -> Float[Tensor, "batch D"]:
        """The code that has this v, given what the source shows: the inverse of :meth:`noise`."""
        shown = latent.z_class
        code, _ = self.flow.inverse(latent.z_nuisance, self.standardised(shown))
        return code + self.start(shown)

    def log_prob(
        self, code: Float[Tensor, "batch D"], representation: Float[Tensor, "batch *shape"]
    ) -> Float[Tensor, " batch"]:
        """Log-density of standardised codes given what the source shows, in nats."""
        return self.flow.log_prob(*self._left(code, representation))

    def _left(self, code: Tensor, representation: Tensor) -> tuple[Tensor, Tensor]:
        """What the flow is given: what the centre leaves of codes, and what the source shows."""
        return code - self.start(representation), self.standardised(representation)

    def start(self, representation: Float[Tensor, "batch *shape"]) -> Tensor:
        """Where codes start from, ``(batch, D)``: the centre's mean code, 0 without a centre."""
        if self.centre is None:
            return self.units.mean.new_zeros(())
        # Each standardises codes by the data that it was fitted to.
        mean = self.centre.code_of(representation)
        return self.units(self.centre.units.inverse(mean))

    @torch.no_grad()
    def sample_codes(
        self,
        representation: Float[Tensor, "batch *shape"],
        n: int = 1,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n batch D"]:
        """Draws of codes given what the source shows, which is summed up once.

        Raises:
            ValueError: If ``n`` is less than 1.
        """
        if n < 1:
            raise ValueError(f"n, the number of draws, must be at least 1, got {n}")
        drawn = self.flow.sample(n, self.standardised(representation), generator)
        return drawn + self.start(representation)


class MeanTranslator(Translator):
    r"""The mean code given what the source shows, by a perceptron: what a flow must surpass.

    .. math:: L = \frac{1}{D} \|\Theta(y) - m(\Phi(x))\|^2

    over standardised codes. Where the source leaves anything open, the mean of all codes that fit
    is a picture of none of them.

    Args:
        source: As in :class:`TranslationBridge`.
        target: As in :class:`TranslationBridge`.
        view: As in :class:`TranslationBridge`.
        x_shape: As in :class:`TranslationBridge`.
        context: Features that the representation is summed up in.
        hidden: Widths of the hidden layers after that.
    """

    fitted = ("mean_code",)

    def __init__(
        self,
        source: Any,
        target: nn.Module,
        view: Callable[[Tensor], Any] | None = None,
        x_shape: Sequence[int] | None = None,
        *,
        context: int = 96,
        hidden: Sequence[int] = (512, 512),
    ) -> None:
        super().__init__(source, target, view, x_shape)
        self.settings = {"context": context, "hidden": list(hidden)}
        self.mean_code = nn.Sequential(
            summary(self.shape, context), nn.SiLU(), MLP([context, *hidden, self.n_code])
        )
        self.eval()

    def code_of(self, representation: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch D"]:
        """The mean code given what the source shows."""
        return self.mean_code(self.standardised(representation))

    @torch.no_grad()
    def translate(
        self, x: Any, n: int = 1, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n batch *event"]:
        """The one translation of each input, ``n`` times."""
        shown = self.show(self.code_of(self.shown(x)))
        return shown.expand(n, *shown.shape)

    def loss(
        self, code: Float[Tensor, "batch D"], representation: Float[Tensor, "batch *shape"]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of codes."""
        found = (self.code_of(representation) - code).square().mean()
        return found, {"loss": found.detach()}


class TranslationObjective(Described, nn.Module):
    r"""Negative log-likelihood of codes, with noise, given representations, in nats.

    .. math:: L = -\log p(\Theta(y) + \sigma \epsilon \mid \Phi(x))

    Args:
        noise: :math:`\sigma`, in standard deviations of a code dim.

    Raises:
        ValueError: If the noise is negative.
    """

    def __init__(self, noise: float = 0.05) -> None:
        super().__init__()
        if noise < 0:
            raise ValueError(f"noise must be at least 0, got {noise}")
        self.noise = noise

    def forward(
        self,
        bridge: Any,
        code: Float[Tensor, "batch D"],
        representation: Float[Tensor, "batch *shape"],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its terms by name."""
        noisy = code + self.noise * torch.randn_like(code)
        nll = -bridge.log_prob(noisy, representation).mean()
        return nll, {"nll": nll.detach(), "loss": nll.detach()}
