r"""The supervised objective: named terms in nats per example, and the weights on them.

.. math::
    \mathcal{L} = w_x\, \mathbb{E}_q[-\log p(x \mid z_\mathrm{class}, u)]
        + \beta_\mathrm{class}\, \mathrm{KL}(q(z_\mathrm{class} \mid x) \,\|\, p(z_\mathrm{class}))
        + \beta_\mathrm{style}\, \mathrm{KL}(q(u \mid x) \,\|\, p(u \mid c))
        + \alpha\, \mathbb{E}_q[-\log p(y \mid z_\mathrm{class})] - \log p(y)

where :math:`p(z_\mathrm{class})` is given y for a class-conditional head, and the constant
:math:`\log p(y)` appears only there. The weights live here, applied by site name to model and
guide together; models and guides stay pure densities.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from jaxtyping import Float, Int
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from torch import Tensor, nn

from svae.independence import Penalty
from svae.latent import Latent
from svae.models import SVAE
from svae.priors import PushForward, noise_of
from svae.sites import LATENT, local_parameters, log_joint_of

__all__ = ["SupervisedELBO", "active_units", "evidence", "without_flow"]

TERMS = ("x", *LATENT, "label", "y")
ACTIVE = 0.01  # variance over examples of a posterior mean, above which a unit is active

Stochastic = Callable[..., Any]
Terms = dict[str, Tensor]


class _BaseStyle(Messenger):
    """Replaces a flow prior of the site ``style`` by its base, a standard normal."""

    def _pyro_sample(self, message: Message) -> None:
        prior = message["fn"]
        if message["name"] == "style" and isinstance(prior, PushForward):
            loc = prior.context.new_zeros(*prior.batch_shape, *prior.event_shape)
            message["fn"] = dist.Normal(loc, torch.ones_like(loc)).to_event(1)  # pyright: ignore


class _WithoutFlow:
    def __init__(self, model: Stochastic) -> None:
        self.handled = _BaseStyle()(model)
        self.log_joint = getattr(model, "log_joint", None)

    def __call__(self, x: Tensor, y: Tensor | None = None) -> None:
        self.handled(x, y)


def without_flow(vae: SVAE) -> SVAE:
    """The same model and guide with a standard normal prior on the style code.

    While the style flow is fitted in a second stage, this is the model of the first. Weights are
    shared with ``vae``.
    """
    return SVAE(_WithoutFlow(vae.model), vae.guide, vae.x_shape)


class SupervisedELBO(nn.Module):
    r"""The weighted negative evidence lower bound with its label term.

    With every weight 1 (and, for a class-conditional head, ``label_weight=0``) it is the negative
    ELBO on log p(x, y).

    Pixel likelihoods are hundreds of nats and the label term at most log K, hence the large
    default of ``label_weight``; ``beta_class`` keeps style out of the class latent.

    References:
        beta-VAE (Higgins et al., 2017), https://openreview.net/forum?id=Sy2fzU9gl; free bits
        (Kingma et al., 2016), https://arxiv.org/abs/1606.04934

    Args:
        beta_class: Weight of the rate of ``z_class``.
        beta_style: Weight of the rate of ``style``. Below 1 the codes carry more detail and less
            noise, and the flow takes over the job of making prior samples lie on the data.
        label_weight: Weight :math:`\alpha` of the label term.
        warm_up: Number of steps over which both rates' weights rise linearly from 0.
        particles: Posterior samples per example and step.
        free_bits: Nats per block, ``{"style": 5.0}``, below which the guide feels no pull to the
            prior. The prior goes on learning there.
        analytic: Whether rates are taken in closed form where there is one.
        penalties: Terms of :mod:`svae.independence`, each with its own weight.

    Raises:
        ValueError: If a weight is negative, a number of steps or particles out of range, or a
            block unknown.
    """

    def __init__(
        self,
        *,
        beta_class: float = 10.0,
        beta_style: float = 0.3,
        label_weight: float = 50.0,
        warm_up: int = 0,
        particles: int = 1,
        free_bits: Mapping[str, float] | None = None,
        analytic: bool = True,
        penalties: Sequence[Penalty] = (),
    ) -> None:
        super().__init__()
        self.scales = {"z_class": beta_class, "style": beta_style, "label": label_weight}
        for name, weight in self.scales.items():
            if not (weight >= 0 and math.isfinite(weight)):
                raise ValueError(f"the weight of {name} must be a number of at least 0: {weight}")
        if warm_up < 0 or particles < 1:
            raise ValueError(
                f"warm_up must be at least 0 and particles at least 1, got {warm_up}, {particles}"
            )
        self.free_bits = dict(free_bits or {})
        if not set(self.free_bits) <= set(LATENT):
            raise ValueError(f"free_bits knows the blocks {LATENT}, got {sorted(self.free_bits)}")
        self.warm_up, self.particles, self.analytic = warm_up, particles, analytic
        self.penalties = nn.ModuleList(penalties)
        names = [penalty.name for penalty in penalties]
        if len(set(names)) < len(names):
            raise ValueError(f"every penalty may stand once, as its name names its term: {names}")

    def weights(self, step: int | None = None) -> dict[str, float]:
        """Weight of every term and penalty at a training step; the final ones if None."""
        ramp = 1.0 if step is None or not self.warm_up else min(1.0, step / self.warm_up)
        scales = {
            name: weight * (ramp if name in LATENT else 1.0)
            for name, weight in self.scales.items()
        }
        penalties = {p.name: p.weight for p in self.penalties if isinstance(p, Penalty)}
        return {"x": 1.0, **scales, "y": 1.0, **penalties}

    def terms(
        self,
        model: Stochastic,
        guide: Stochastic,
        x: Float[Tensor, "batch *event"],
        y: Int[Tensor, " batch"],
    ) -> Terms:
        """Unweighted terms per example, shape ``(batch,)`` each, in nats.

        ``x`` is the distortion, ``z_class`` and ``style`` the rates, ``label`` is
        -log p(y given z_class), ``y`` is -log p(y) where the label is drawn first and 0 elsewhere.
        """
        terms = self._terms(model, guide, x, y)[0]
        return {name: terms[name] for name in TERMS}

    @local_parameters
    def _terms(
        self, model: Stochastic, guide: Stochastic, x: Tensor, y: Tensor
    ) -> tuple[Terms, poutine.Trace, poutine.Trace]:
        batch = len(x)
        if self.particles > 1:
            x, y = (t.expand(self.particles, *t.shape).flatten(0, 1) for t in (x, y))
        drawn = poutine.trace(guide).get_trace(x, y)
        made = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(x, y)
        nodes: Any = made.nodes
        z_class = _value(drawn, "z_class")
        logits = log_joint_of(model, x, z_class).log_softmax(-1)
        label_first = list(nodes).index("y") < list(nodes).index("z_class")
        label = -logits.gather(-1, y.unsqueeze(-1)).squeeze(-1)
        terms = {
            "x": -nodes["x"]["fn"].log_prob(nodes["x"]["value"]),
            **{name: self._rate(name, drawn, made) for name in LATENT},
            "label": label,
            "y": -nodes["y"]["fn"].log_prob(y) if label_first else torch.zeros_like(label),
        }
        terms["accuracy"] = (logits.detach().argmax(-1) == y).to(label.dtype)
        terms = {k: v.unflatten(0, (self.particles, batch)).mean(0) for k, v in terms.items()}
        return terms, drawn, made

    def _rate(self, name: str, drawn: poutine.Trace, made: poutine.Trace) -> Tensor:
        posterior, prior = _distribution(drawn, name), _distribution(made, name)
        value = _value(drawn, name)
        rate = self._divergence(posterior, prior, value)
        floor = self.free_bits.get(name)
        if floor is None:
            return rate
        # Below the floor the block's value stays what it is, and only the prior learns: the
        # guide's sample is detached, which leaves the gradient of -log p(value).
        held = -prior.log_prob(value.detach())
        return torch.where(rate.mean() > floor, rate, held + (rate - held).detach())

    def _divergence(self, posterior: Any, prior: Any, value: Tensor) -> Tensor:
        if self.analytic:
            try:
                return torch.distributions.kl_divergence(posterior, prior)
            except NotImplementedError:
                pass  # no closed form: the sampled log-ratio has the same expectation
        return posterior.log_prob(value) - prior.log_prob(value)

    def forward(
        self,
        vae: SVAE,
        x: Float[Tensor, "batch *event"],
        y: Int[Tensor, " batch"],
        weights: Mapping[str, float | Tensor] | None = None,
    ) -> tuple[Tensor, Terms]:
        """The loss, a scalar in nats per example, and its unweighted terms as batch means.

        Beside the terms stand ``accuracy`` of the head at the posterior sample, and
        ``active_z_class`` and ``active_style``, the active units within the batch.

        Args:
            vae: Model and guide.
            x: Inputs.
            y: Labels.
            weights: What :meth:`weights` gives for a training step; the final ones if None.
        """
        terms, drawn, made = self._terms(vae.model, vae.guide, x, y)
        means = {name: term.mean() for name, term in terms.items()}
        weights = self.weights() if weights is None else weights
        loss = torch.stack([weights[name] * means[name] for name in TERMS]).sum()
        for name in LATENT:
            means[f"active_{name}"] = active_units(_distribution(drawn, name).mean)
        if self.penalties:
            n = len(x)  # the first particle is enough for the penalties
            z_class, style = (_value(drawn, name) for name in LATENT)
            prior = _distribution(made, "style")
            latent = Latent(z_class[:n], noise_of(prior, style)[:n])
            for penalty in self.penalties:
                assert isinstance(penalty, Penalty)
                value = penalty(vae, x, y, latent)
                means[penalty.name] = value
                loss = loss + weights[penalty.name] * value
        return loss, means


@torch.no_grad()
@local_parameters
def evidence(
    vae: SVAE, x: Float[Tensor, "batch *event"], n: int = 64
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    r"""ELBO and importance-weighted bound on log p(x) per example, in nats, y summed out.

    .. math::
        \mathrm{ELBO} = \frac{1}{n} \sum_s \log w_s, \qquad
        \mathrm{IWAE}_n = \log \frac{1}{n} \sum_s w_s, \qquad
        w_s = \frac{\sum_k p(x, y = k, z_s)}{q(z_s \mid x)}

    Every weight is 1, whatever the model was trained with. Both are lower bounds in expectation.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519

    Args:
        vae: Model and guide.
        x: Inputs.
        n: Posterior samples per example.

    Raises:
        ValueError: If ``n`` is less than 1.
    """
    if n < 1:
        raise ValueError(f"n, the number of posterior samples, must be at least 1, got {n}")
    repeated = x.expand(n, *x.shape).flatten(0, 1)
    drawn = poutine.trace(vae.guide).get_trace(repeated)
    log_q = sum(_log_prob(drawn, name) for name in LATENT)
    if getattr(vae.model, "log_joint", None) is not None:
        made = poutine.trace(poutine.replay(vae.model, trace=drawn)).get_trace(repeated)
        z_class = _value(drawn, "z_class")
        log_p = log_joint_of(vae.model, repeated, z_class).logsumexp(-1)
        log_p = log_p + _log_prob(made, "style") + _log_prob(made, "x")
    else:
        # The model may let anything depend on y, so y is enumerated through all of it.
        rows = []
        for k in range(vae.n_classes):
            y = torch.full((len(repeated),), k, device=x.device)
            made = poutine.trace(poutine.replay(vae.model, trace=drawn)).get_trace(repeated, y)
            rows.append(sum(_log_prob(made, name) for name in (*LATENT, "y", "x")))
        log_p = torch.stack(rows).logsumexp(0)
    log_w = (log_p - log_q).unflatten(0, (n, len(x)))
    return log_w.mean(0), log_w.logsumexp(0) - math.log(n)


@torch.no_grad()
def active_units(means: Float[Tensor, "n dims"]) -> Float[Tensor, ""]:
    r"""Number of units d with :math:`\mathrm{Var}_x(\mathbb{E}_q[z_d]) > 0.01`.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
    """
    return (means.var(0, correction=0) > ACTIVE).sum().to(means.dtype)


def _value(trace: poutine.Trace, name: str) -> Tensor:
    value = trace.nodes[name]["value"]
    assert isinstance(value, Tensor)
    return value


def _distribution(trace: poutine.Trace, name: str) -> Any:
    return trace.nodes[name]["fn"]


def _log_prob(trace: poutine.Trace, name: str) -> Tensor:
    return _distribution(trace, name).log_prob(_value(trace, name))
