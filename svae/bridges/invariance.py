"""What a layer of a frozen network has become invariant to, as a latent that can be drawn."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from svae.bridges.frozen import Frozen
from svae.bridges.refining import FibreRefiner
from svae.bridges.translation import MAX_LOG_SCALE, TranslationBridge
from svae.bridges.units import CodeUnits
from svae.flows import ConditionalFlow
from svae.latent import Latent

__all__ = ["CodeDensity", "FibreDecoder", "InvarianceBridge"]


class InvarianceBridge(TranslationBridge):
    r"""Every input that a layer cannot tell from this one, as draws of a standard normal.

    An autoencoder (E, D) gives codes of inputs, and a flow, conditional on what the layer shows,
    turns them into noise:

    .. math:: v = t(E(x) \mid \Phi(x)), \qquad v \mid \Phi(x) \sim \mathcal{N}(0, I), \qquad
        \tilde x = D(t^{-1}(v \mid \Phi(x)))

    Maximum likelihood makes v independent of :math:`\Phi(x)`. So v holds what the code knows and
    the layer does not: the layer's invariances. Draws of v give inputs with the same
    representation, which are different in everything that the layer ignores. As a factorization,
    ``z_class`` is the representation and ``z_nuisance`` is v. It is the
    :class:`svae.TranslationBridge` from a layer to the code of the layer's own inputs.

    Likelihood knows the layer through codes only, so the layer itself is asked what it sees in a
    draw: a small network g moves the code ``n_refine`` times, each time told what is still wrong,

    .. math:: z \leftarrow z + g\big(z,\; \Phi(D(z)) - \Phi(x),\; \Phi(x)\big), \qquad
        z_0 = t^{-1}(v \mid \Phi(x))

    The flow has no part in this: how widely draws spread is decided by likelihood alone.

    Flow and g are fitted by ``svae.fit(bridge, data)``, the autoencoder before. What the
    autoencoder does not keep, no draw can show: look at :func:`svae.factorization.reconstruct`
    first.

    References:
        Making Sense of CNNs: Interpreting Deep Representations & Their Invariances with INNs
        (Rombach et al., 2020), https://arxiv.org/abs/2008.01777

    Args:
        frozen: The network, opened at the layer.
        autoencoder: A module with ``encode(x)``, to codes ``(batch, D)``, and ``decode(code)``,
            such as a fitted :class:`svae.bridges.Autoencoder`. It is frozen too.
        n_blocks: Blocks of the flow.
        hidden: Widths of the hidden layers of every coupling.
        context: Features that the representation is summed up in for the couplings.
        n_refine: How often a drawn code is moved towards the fibre, each time at the price of
            another pass through decoder and network; 0 is the method as published, and all that
            there is for a network that gives no gradients.

    Raises:
        TypeError: If ``frozen`` is no :class:`svae.Frozen`, or the autoencoder lacks a method.
        ValueError: If it gives codes that are no vectors.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> frozen = svae.Frozen(net, layer="2", x_shape=(1, 8, 8))
        >>> autoencoder = svae.bridges.Autoencoder((1, 8, 8), n_code=5, width=8)
        >>> bridge = svae.InvarianceBridge(frozen, autoencoder).eval()
        >>> latent = bridge.encode(torch.rand(2, 1, 8, 8))
        >>> latent.z_class.shape, latent.z_nuisance.shape
        (torch.Size([2, 8]), torch.Size([2, 5]))
    """

    # The refiner sees its own moves, three of them: at the flow's rate it overshoots.
    relative_rates: ClassVar[dict[str, float]] = {"refiner": 0.2}
    fitted = ("flow", "refiner")
    part_names = ("frozen", "autoencoder")

    def __init__(
        self,
        frozen: Frozen,
        autoencoder: nn.Module,
        *,
        n_blocks: int = 8,
        hidden: Sequence[int] = (192, 192),
        context: int = 96,
        n_refine: int = 3,
    ) -> None:
        if not isinstance(frozen, Frozen):
            raise TypeError(
                f"frozen must be a svae.Frozen, got {type(frozen).__name__}. Write "
                'svae.Frozen(model, layer="...") first.'
            )
        super().__init__(
            frozen,
            autoencoder,
            x_shape=frozen.known_shape(),
            n_blocks=n_blocks,
            hidden=hidden,
            context=context,
        )
        self.settings["n_refine"] = n_refine
        n_steps = n_refine if frozen.differentiable else 0
        self.refiner = FibreRefiner(self.shape, self.n_code, context, n_steps)

    @property
    def frozen(self) -> Frozen:
        """The network, opened at the layer: the source."""
        return self.source

    @property
    def autoencoder(self) -> nn.Module:
        """What codes and shows inputs: the target."""
        return self.target

    def code_of(self, latent: Latent) -> Float[Tensor, "batch D"]:
        """The code of this v, given what the layer shows, moved onto the fibre."""
        return self.refined(self.proposed(latent), latent.z_class)

    def proposed(self, latent: Latent) -> Float[Tensor, "batch D"]:
        """The code that has this v, given what the layer shows: the inverse of :meth:`noise`."""
        return super().code_of(latent)

    def refined(
        self, code: Float[Tensor, "batch D"], representation: Float[Tensor, "batch *shape"]
    ) -> Float[Tensor, "batch D"]:
        """The code after ``n_refine`` moves towards what decodes to this representation."""
        if not self.refiner.n_steps:
            return code
        wanted = self.standardised(representation)
        summed = self.flow.embedded(wanted)
        assert summed is not None
        summed = summed.detach()  # the flow is fitted to likelihood alone
        for _ in range(self.refiner.n_steps):
            seen = self.standardised(self.frozen.representation(self.show(code)))
            code = self.refiner(code, seen - wanted, summed)
        return code

    @torch.no_grad()
    def sample_codes(
        self,
        representation: Float[Tensor, "batch *shape"],
        n: int = 1,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n batch D"]:
        """Draws of codes given what the layer shows, moved onto the fibre."""
        drawn = super().sample_codes(representation, n, generator)
        return torch.stack([self.refined(code, representation) for code in drawn])

    def decoder(self, v: Float[Tensor, " D"] | None = None) -> "FibreDecoder":
        """From representations to inputs, all with one v: the ``decoder`` of a concept bridge.

        Edits of the representation can then be looked at, whatever the network:
        ``concepts.decoder = bridge.decoder()``, once the concept bridge is fitted.

        Args:
            v: The invariances that all inputs share; None takes zeros, where v is likeliest.

        Raises:
            ValueError: If ``v`` has another length than the code.
        """
        return FibreDecoder(self, v)

    def fibre_loss(
        self, x: Float[Tensor, "batch *event"], representation: Float[Tensor, "batch *shape"]
    ) -> Float[Tensor, " batch"]:
        r"""How far inputs are from a representation, as the layer sees it.

        .. math:: FL = \sqrt{\frac{\|\Phi(x) - r\|^2}{\sum_i \mathrm{Var}\, r_i}}

        0 for inputs on the fibre; :math:`\sqrt 2` on average for unrelated ones.
        """
        difference = (self.frozen.representation(x) - representation).flatten(1)
        return difference.square().mean(1).sqrt() / self.size


class FibreDecoder(nn.Module):
    r"""From representations to inputs, :math:`r \mapsto D(t^{-1}(v \mid r))`, all with one v.

    Args:
        bridge: A fitted bridge of the layer.
        v: The invariances that all inputs share; None takes zeros, where v is likeliest.

    Raises:
        ValueError: If ``v`` has another length than the code.
    """

    def __init__(self, bridge: InvarianceBridge, v: Float[Tensor, " D"] | None = None) -> None:
        super().__init__()
        if v is None:
            v = torch.zeros(bridge.n_code)
        if v.shape != (bridge.n_code,):
            raise ValueError(
                f"v must have shape ({bridge.n_code},), one number for each dim of the code, got "
                f"{tuple(v.shape)}"
            )
        self.bridge = bridge
        self.v: Tensor
        self.register_buffer("v", v)

    def forward(self, representation: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch ..."]:
        v = self.v.to(representation).expand(len(representation), -1)
        return self.bridge.decode(Latent(representation, v))


class CodeDensity(nn.Module):
    r"""The density of an autoencoder's codes, whatever a layer shows: the yardstick of layers.

    How many nats its negative log-likelihood is above that of an
    :class:`InvarianceBridge` estimates what the layer still knows of the code,
    :math:`I(\bar z; \Phi(x))`. Fit it with ``svae.fit(density, data)``.

    Args:
        autoencoder: As in :class:`InvarianceBridge`.
        n_code: Number of code dims.
        n_blocks: Blocks of the flow.
        hidden: Widths of the hidden layers of every coupling.
    """

    def __init__(
        self,
        autoencoder: nn.Module,
        n_code: int,
        *,
        n_blocks: int = 8,
        hidden: Sequence[int] = (192, 192),
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        self.units = CodeUnits(n_code)
        self.flow = ConditionalFlow(
            n_code, n_blocks=n_blocks, hidden=hidden, max_log_scale=MAX_LOG_SCALE
        )

    def train(self, mode: bool = True) -> "CodeDensity":
        """Training mode of the flow alone."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def code(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch D"]:
        """The autoencoder's code, every dim standardised."""
        return self.units(self.autoencoder.encode(x))  # pyright: ignore[reportCallIssue]

    def log_prob(self, code: Float[Tensor, "batch D"]) -> Float[Tensor, " batch"]:
        """Log-density of standardised codes, in nats."""
        return self.flow.log_prob(code)

    def loss(
        self, code: Float[Tensor, "batch D"], noise: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean negative log-likelihood of codes with noise of that standard deviation added."""
        nll = -self.log_prob(code + noise * torch.randn_like(code)).mean()
        return nll, {"loss": nll.detach()}
