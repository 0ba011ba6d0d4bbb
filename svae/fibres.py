"""What a layer ignores, in numbers: how far draws are from its fibre, and how much they vary."""

from collections import defaultdict
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from svae.bridges.concepts import ConceptBridge
from svae.bridges.invariance import CodeDensity, InvarianceBridge
from svae.metrics.estimate import Estimate, mean

__all__ = [
    "concept_shares",
    "fibre_losses",
    "fixed_share",
    "information",
    "nearest_fibre_loss",
    "variance_explained",
]

_CHUNK = 500  # inputs at a time
_READ = 2000  # draws that are read, and may be decoded, at a time


@torch.no_grad()
def fibre_losses(
    bridge: InvarianceBridge,
    x: Float[Tensor, "n_images *event"],
    n: int = 4,
    generator: torch.Generator | None = None,
) -> tuple[Estimate, Estimate]:
    r"""Fibre loss of draws, and that of plain reconstructions: what the decoder alone costs.

    .. math:: FL = \sqrt{\frac{\|\Phi(\tilde x) - \Phi(x)\|^2}{\sum_i \mathrm{Var}\, \Phi_i}}

    Args:
        bridge: What is measured.
        x: Inputs.
        n: Draws for each.
        generator: Source of the draws.

    Returns:
        Of draws; of reconstructions.
    """
    drawn, again = [], []
    for part in x.split(_CHUNK):
        representation = bridge.frozen.representation(part)
        codes = bridge.sample_codes(representation, n, generator)
        losses = [
            bridge.fibre_loss(bridge.show(one), representation)
            for one in (*codes, bridge.code(part))
        ]
        drawn.append(torch.stack(losses[:-1]).mean(0))
        again.append(losses[-1])
    return mean(torch.cat(drawn)), mean(torch.cat(again))


@torch.no_grad()
def nearest_fibre_loss(
    bridge: InvarianceBridge,
    x: Float[Tensor, "n_images *event"],
    among: Float[Tensor, "n_others *event"],
) -> Estimate:
    """Fibre loss of the real input that is nearest, as the layer sees it: the yardstick of draws.

    Args:
        bridge: Knows the layer and the scale of its representations.
        x: Inputs.
        among: Real inputs; those that are ``x`` itself do not count.
    """
    shown = torch.cat([bridge.frozen.representation(part).flatten(1) for part in x.split(_CHUNK)])
    pixels = x.flatten(1)
    best = torch.full((len(x),), torch.inf)
    for part in among.split(_CHUNK):
        distance = torch.cdist(shown, bridge.frozen.representation(part).flatten(1))
        same = torch.cdist(pixels, part.flatten(1)) < 1e-3
        best = torch.minimum(best, distance.masked_fill(same, torch.inf).amin(1))
    return mean(best / shown.shape[1] ** 0.5 / bridge.size)


@torch.no_grad()
def variance_explained(
    bridge: InvarianceBridge,
    x: Float[Tensor, "n_images *event"],
    n: int = 32,
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""Share of the variance of the code that v explains: what the layer does not fix of it.

    .. math:: \frac{\sum_d \mathbb{E}_x \mathrm{Var}_v\, t^{-1}(v \mid \Phi(x))_d}
        {\sum_d \mathrm{Var}_x\, E(x)_d}

    0 for a layer that knows the whole code, 1 for one that knows nothing.

    References:
        Making Sense of CNNs: Interpreting Deep Representations & Their Invariances with INNs
        (Rombach et al., 2020), https://arxiv.org/abs/2008.01777

    Args:
        bridge: What is measured.
        x: Inputs.
        n: Draws for each, at least 2.
        generator: Source of the draws.

    Raises:
        ValueError: If ``n`` is less than 2.
    """
    open_shares = _open_shares(bridge, x, lambda code: {"code": code}, n, generator)
    return mean(open_shares["code"])


@torch.no_grad()
def fixed_share(
    bridge: InvarianceBridge,
    x: Float[Tensor, "n_images *event"],
    reader: Callable[[Tensor], Tensor],
    n: int = 16,
    generator: torch.Generator | None = None,
) -> Estimate:
    r"""Share of a factor's variance that the layer fixes: 1 where it is used, 0 where ignored.

    .. math:: 1 - \frac{\sum_d \mathbb{E}_x \mathrm{Var}_v\, f_d(\tilde x)}
        {\sum_d \mathrm{Var}_x\, f_d(D(E(x)))}

    The factor f is read off draws and off plain reconstructions by the same reader, so what reader
    and autoencoder get wrong is on both sides.

    Args:
        bridge: What is measured.
        x: Inputs, over which the factor varies.
        reader: From inputs to the numbers of one factor, ``(batch, d)``, such as red, green, blue.
        n: Draws for each input, at least 2.
        generator: Source of the draws.

    Raises:
        ValueError: If ``n`` is less than 2.
    """

    def read(code: Tensor) -> dict[str, Tensor]:
        return {"factor": reader(bridge.show(code))}

    return mean(1 - _open_shares(bridge, x, read, n, generator)["factor"])


@torch.no_grad()
def concept_shares(
    bridge: InvarianceBridge,
    concepts: ConceptBridge,
    x: Float[Tensor, "n_images *event"],
    n: int = 16,
    generator: torch.Generator | None = None,
) -> dict[str, Estimate]:
    r"""Names what v varies: of each concept of the code, the share that the layer still fixes.

    .. math:: 1 - \frac{\sum_d \mathbb{E}_x \mathrm{Var}_v\, e_i(t^{-1}(v \mid \Phi(x)))_d}
        {\sum_d \mathrm{Var}_x\, e_i(E(x))_d}

    The concepts are those of a bridge on the code of the same autoencoder,
    ``svae.ConceptBridge(svae.Frozen.autoencoder(autoencoder), concepts)``. A share says how much
    of the concept's dims is fixed, not how much of a class: shares of concepts of different sizes
    do not compare.

    References:
        Making Sense of CNNs: Interpreting Deep Representations & Their Invariances with INNs
        (Rombach et al., 2020), https://arxiv.org/abs/2008.01777

    Args:
        bridge: Of the layer.
        concepts: Of the code.
        x: Inputs.
        n: Draws for each input, at least 2.
        generator: Source of the draws.

    Returns:
        A share for each concept that has dims, and for the residual.

    Raises:
        ValueError: If ``n`` is less than 2.
    """
    names = [name for name, n_dims in concepts.dims.items() if n_dims]

    def read(code: Tensor) -> dict[str, Tensor]:
        latent = concepts.to_latent(code)
        return {name: concepts.part(latent, name) for name in names}

    found = _open_shares(bridge, x, read, n, generator)
    return {name: mean(1 - found[name]) for name in names}


@torch.no_grad()
def information(
    bridge: InvarianceBridge,
    density: CodeDensity,
    x: Float[Tensor, "n_images *event"],
    noise: float = 0.05,
    seed: int = 0,
) -> Estimate:
    r"""What the layer still knows of the code, in nats: an estimate of :math:`I(\bar z; \Phi(x))`.

    .. math:: \mathbb{E}\left[\log p(\bar z + \sigma \epsilon \mid \Phi(x))
        - \log p(\bar z + \sigma \epsilon)\right]

    A difference of two cross-entropies, so no bound: it is too high by what the density without
    the layer fits worse than it could, and too low by what the bridge does. It lies between 0 and
    the information of the noisy code on x, which :math:`\sigma` limits: compare layers at one
    :math:`\sigma` only.

    Args:
        bridge: Knows the layer.
        density: Fitted to codes of the same autoencoder.
        x: Inputs that neither was fitted to.
        noise: :math:`\sigma`, with which both were fitted.
        seed: Of the noise: one for all layers.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for part in x.split(_CHUNK):
        code = bridge.code(part)
        noisy = code + noise * torch.randn(code.shape, generator=generator)
        shown = bridge.frozen.representation(part)
        found.append(bridge.log_prob(noisy, shown) - density.log_prob(noisy))
    return mean(torch.cat(found))


def _open_shares(
    bridge: InvarianceBridge,
    x: Tensor,
    read: Callable[[Tensor], dict[str, Tensor]],
    n: int,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    """Variance among the draws of each input, over that among inputs, of what is read of codes."""
    if n < 2:
        raise ValueError(f"a variance needs n of at least 2 draws, got {n}")
    within: dict[str, list[Tensor]] = defaultdict(list)
    real: dict[str, list[Tensor]] = defaultdict(list)
    for part in x.split(max(1, _READ // n)):
        codes = bridge.sample_codes(bridge.frozen.representation(part), n, generator)
        for name, values in read(codes.flatten(0, 1)).items():
            within[name].append(values.unflatten(0, (n, -1)).var(0).sum(1))
        for name, values in read(bridge.code(part)).items():
            real[name].append(values)
    return {name: torch.cat(within[name]) / torch.cat(real[name]).var(0).sum() for name in within}
