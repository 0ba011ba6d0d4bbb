r"""The supervised objective: named terms in nats per example, and the weights on them.

.. math::
    \mathcal{L} = w_x\, \mathbb{E}_q[-\log p(x \mid z_\mathrm{class}, u)]
        + \beta_\mathrm{class}\, \mathrm{KL}(q(z_\mathrm{class} \mid x) \,\|\, p(z_\mathrm{class}))
        + \beta_\mathrm{style}\, \mathrm{KL}(q(u \mid x) \,\|\, p(u \mid c))
        + \alpha\, \mathbb{E}_q[-\log p(y \mid z_\mathrm{class})] - \log p(y)

where :math:`p(z_\mathrm{class})` is given y for a class-conditional head, and the constant
:math:`\log p(y)` appears only there. The weights live here, applied by site name to model and
guide together; models and guides stay pure densities.

What is known of y decides what :math:`z_\mathrm{class}` is compared with under such a head: one
class's Gaussian, or, for unlabelled examples, soft labels and noisy ones, the mixture

.. math:: p(z_\mathrm{class}) = \sum_k w_k\, p(z_\mathrm{class} \mid y = k)

with w the prior of the classes, the soft label, or the posterior of the true class given the
noisy one. So y is summed out exactly, and decoder and flow are evaluated once.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from jaxtyping import Float, Shaped
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from torch import Tensor, nn

from svae.independence import Penalty
from svae.labels import (
    Labels,
    mean_of_known,
    positive_weights,
    read_labels,
    row_stochastic,
)
from svae.latent import Latent
from svae.models import SVAE
from svae.priors import PushForward, noise_of
from svae.schedules import Schedule, WarmUp, value_at
from svae.sites import LATENT, local_parameters, log_joint_of, mean_of

__all__ = ["SupervisedELBO", "active_units", "evidence", "without_flow"]

TERMS = ("x", *LATENT, "label", "y")
TINY = 1e-30  # below it a probability counts as none
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
        beta_class: Weight of the rate of ``z_class``, or a schedule of it.
        beta_style: Weight of the rate of ``style``, or a schedule of it. Below 1 the codes carry
            more detail and less noise, and the flow takes over the job of making prior samples lie
            on the data.
        label_weight: Weight :math:`\alpha` of the label term, which is the mean over the labelled
            examples of a batch.
        warm_up: Number of steps over which both rates' weights rise linearly from 0, where they
            have no schedule of their own.
        particles: Posterior samples per example and step.
        free_bits: Nats per block, ``{"style": 5.0}``, below which the guide feels no pull to the
            prior. The prior goes on learning there.
        capacity: Nats per block that the rate is held at, or a schedule of them: the term is
            :math:`\beta\, |\mathrm{rate} - C|`.
        analytic: Whether rates are taken in closed form where there is one.
        penalties: Terms of :mod:`svae.independence`, each with its own weight.
        class_weights: Factor on the label term of every class, for classes of unequal size. The
            term is divided by the sum of the factors in the batch.
        confusion: Row-stochastic matrix C of label noise, :math:`C_{kj} = p(\text{label } j \mid
            \text{true class } k)`. Labels are then noisy ones, and y, predicted and conditioned
            on, is the true class.

    Raises:
        ValueError: If a weight is negative, a number of steps or particles out of range, a block
            unknown, or ``confusion`` no row-stochastic matrix.
    """

    def __init__(
        self,
        *,
        beta_class: float | Schedule = 10.0,
        beta_style: float | Schedule = 0.3,
        label_weight: float | Schedule = 50.0,
        warm_up: int = 0,
        particles: int = 1,
        free_bits: Mapping[str, float] | None = None,
        capacity: Mapping[str, float | Schedule] | None = None,
        analytic: bool = True,
        penalties: Sequence[Penalty] = (),
        class_weights: Sequence[float] | Tensor | None = None,
        confusion: Sequence[Sequence[float]] | Tensor | None = None,
    ) -> None:
        super().__init__()
        if warm_up < 0 or particles < 1:
            raise ValueError(
                f"warm_up must be at least 0 and particles at least 1, got {warm_up}, {particles}"
            )
        given = {"z_class": beta_class, "style": beta_style, "label": label_weight}
        for name, weight in given.items():
            final = value_at(weight, None)
            if not (final >= 0 and math.isfinite(final)):
                raise ValueError(f"the weight of {name} must be a number of at least 0: {final}")
        self.scales: dict[str, float | Schedule] = {
            name: WarmUp(weight, warm_up)
            if warm_up and name in LATENT and not isinstance(weight, Schedule)
            else weight
            for name, weight in given.items()
        }
        self.free_bits, self.capacity = dict(free_bits or {}), dict(capacity or {})
        for option, blocks in (("free_bits", self.free_bits), ("capacity", self.capacity)):
            if not set(blocks) <= set(LATENT):
                raise ValueError(f"{option} knows the blocks {LATENT}, got {sorted(blocks)}")
        if both := sorted(set(self.free_bits) & set(self.capacity)):
            raise ValueError(f"{both} have free bits and a capacity: a block can have one of them")
        self.particles, self.analytic = particles, analytic
        self.penalties = nn.ModuleList(penalties)
        names = [penalty.name for penalty in penalties]
        if len(set(names)) < len(names):
            raise ValueError(f"every penalty may stand once, as its name names its term: {names}")
        self.class_weights: Tensor | None
        self.confusion: Tensor | None
        self.register_buffer("class_weights", positive_weights(class_weights))
        self.register_buffer("confusion", row_stochastic(confusion))

    def check(self, n_classes: int) -> None:
        """Compares what is given by class with the number of classes.

        Raises:
            ValueError: If they do not fit.
        """
        for name in ("class_weights", "confusion"):
            given = getattr(self, name)
            if given is not None and len(given) != n_classes:
                raise ValueError(
                    f"{name} is for {len(given)} classes, the data have {n_classes}. Give one "
                    f"{'number' if name == 'class_weights' else 'row and column'} for each."
                )

    def weights(self, step: int | None = None) -> dict[str, float]:
        """Weight of every term and penalty at a training step; the final ones if None.

        Capacities, in nats, stand among them as ``capacity_<block>``.
        """
        scales = {name: value_at(weight, step) for name, weight in self.scales.items()}
        penalties = {p.name: p.weight for p in self.penalties if isinstance(p, Penalty)}
        held = {f"capacity_{name}": value_at(c, step) for name, c in self.capacity.items()}
        return {"x": 1.0, **scales, "y": 1.0, **penalties, **held}

    def terms(
        self,
        model: Stochastic,
        guide: Stochastic,
        x: Float[Tensor, "batch *event"],
        y: Shaped[Tensor, "batch *classes"],
    ) -> Terms:
        """Unweighted terms per example, shape ``(batch,)`` each, in nats.

        ``x`` is the distortion, ``z_class`` and ``style`` the rates, ``label`` is
        -log p(y given z_class), ``y`` is -log p(y) where the label is drawn first and 0 elsewhere.
        Without a label both of these are 0.
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
        labels = read_labels(y)
        drawn = poutine.trace(guide).get_trace(x, y)
        made = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(x, labels.hard)
        nodes: Any = made.nodes
        z_class = _value(drawn, "z_class")
        log_joint = log_joint_of(model, x, z_class)
        logits = log_joint.log_softmax(-1)
        priors = {name: _distribution(made, name) for name in LATENT}
        first = torch.zeros_like(logits[..., 0])
        if list(nodes).index("y") < list(nodes).index("z_class"):
            log_class = _log_class_probabilities(nodes["y"]["fn"])

            def log_joint_at(value: Tensor) -> Tensor:
                return log_joint if value is z_class else log_joint_of(model, x, value)

            weights = self._class_weights_of(labels, log_class) - log_class
            priors["z_class"] = _ClassPrior(
                priors["z_class"],
                lambda value: (weights + log_joint_at(value)).logsumexp(-1),
                labels.known if labels.soft is None and self.confusion is None else None,
            )
            first = self._label_term(labels, log_class)
        terms = {
            "x": -nodes["x"]["fn"].log_prob(nodes["x"]["value"]),
            **{name: self._rate(name, drawn, prior) for name, prior in priors.items()},
            "label": self._label_term(labels, logits),
            "y": first,
        }
        terms["accuracy"] = (logits.detach().argmax(-1) == labels.marked).to(first.dtype)
        terms = {k: v.unflatten(0, (self.particles, batch)).mean(0) for k, v in terms.items()}
        return terms, drawn, made

    def _label_term(self, labels: Labels, log_p: Tensor) -> Tensor:
        """-log p(label) under log-probabilities of the true classes; 0 without a label."""
        if self.confusion is not None:
            log_p = (log_p.exp() @ self.confusion.to(log_p)).clamp(min=TINY).log()
        if labels.soft is not None:
            # A product with a probability of 0 must be 0 also where its logarithm is infinite.
            term = -(labels.soft.to(log_p) * log_p.clamp(min=math.log(TINY))).sum(-1)
        else:
            term = -log_p.gather(-1, labels.hard.unsqueeze(-1)).squeeze(-1)
        return torch.where(labels.known, term, 0)

    def _class_weights_of(self, labels: Labels, log_class: Tensor) -> Tensor:
        """Log-probabilities of the classes given what is known of y, where y is drawn first."""
        if self.confusion is not None:
            noise = self.confusion.to(log_class).clamp(min=TINY).log()  # true class, label
            soft = labels.soft
            seen = noise.T[labels.hard] if soft is None else soft.to(noise) @ noise.T
            log_weights = (log_class + seen).log_softmax(-1)
        elif labels.soft is not None:
            log_weights = labels.soft.to(log_class).clamp(min=TINY).log()
        else:
            log_weights = log_class
        return torch.where(labels.known.unsqueeze(-1), log_weights, log_class)

    def _rate(self, name: str, drawn: poutine.Trace, prior: Any) -> Tensor:
        posterior, value = _distribution(drawn, name), _value(drawn, name)
        rate = self._divergence(posterior, prior, value)
        floor = self.free_bits.get(name)
        if floor is None:
            return rate
        # Below the floor the block's value stays what it is, and only the prior learns: the
        # guide's sample is detached, which leaves the gradient of -log p(value).
        held = -prior.log_prob(value.detach())
        return torch.where(rate.mean() > floor, rate, held + (rate - held).detach())

    def _divergence(self, posterior: Any, prior: Any, value: Tensor) -> Tensor:
        if isinstance(prior, _ClassPrior):
            mixed = posterior.log_prob(value) - prior.log_mixture(value)
            if prior.exact is None:
                return mixed
            return torch.where(
                prior.exact, self._divergence(posterior, prior.labelled, value), mixed
            )
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
        y: Shaped[Tensor, "batch *classes"],
        weights: Mapping[str, float | Tensor] | None = None,
    ) -> tuple[Tensor, Terms]:
        """The loss, a scalar in nats per example, and its unweighted terms as batch means.

        Beside the terms stand ``accuracy`` of the head at the posterior sample, and
        ``active_z_class`` and ``active_style``, the active units within the batch.

        Args:
            vae: Model and guide.
            x: Inputs.
            y: Labels: integers with -1 for unlabelled examples, or probabilities
                ``(batch, K)``, see :mod:`svae.labels`. The guide is handed them as they are, the
                model the most probable class.
            weights: What :meth:`weights` gives for a training step; the final ones if None.
        """
        terms, drawn, made = self._terms(vae.model, vae.guide, x, y)
        labels = read_labels(y)
        counted = {"label": self._counted(labels), "accuracy": labels.known}
        means = {
            name: mean_of_known(term, counted[name]) if name in counted else term.mean()
            for name, term in terms.items()
        }
        weights = self.weights() if weights is None else weights
        held = {name: means[name] - weights[f"capacity_{name}"] for name in self.capacity}
        pulls = {name: held[name].abs() if name in held else means[name] for name in TERMS}
        loss = torch.stack([weights[name] * pulls[name] for name in TERMS]).sum()
        for name in LATENT:
            means[f"active_{name}"] = active_units(mean_of(_distribution(drawn, name)))
        if self.penalties:
            n = len(x)  # the first particle is enough for the penalties
            z_class, style = (_value(drawn, name) for name in LATENT)
            prior = _distribution(made, "style")
            latent = Latent(z_class[:n], noise_of(prior, style)[:n])
            for penalty in self.penalties:
                assert isinstance(penalty, Penalty)
                value = penalty(vae, x, labels.marked, latent)
                means[penalty.name] = value
                loss = loss + weights[penalty.name] * value
        return loss, means

    def _counted(self, labels: Labels) -> Tensor:
        """How much the label of each example counts."""
        if self.class_weights is None:
            return labels.known
        if labels.soft is not None:
            return labels.soft @ self.class_weights.to(labels.soft)
        return labels.known * self.class_weights[labels.hard]


@dataclass(frozen=True)
class _ClassPrior:
    """Prior of the class latent: of one class where the label says which, else a mixture."""

    labelled: Any
    log_mixture: Callable[[Tensor], Tensor]
    exact: Tensor | None  # where a label is certain; None where none is

    def log_prob(self, value: Tensor) -> Tensor:
        mixed = self.log_mixture(value)
        if self.exact is None:
            return mixed
        return torch.where(self.exact, self.labelled.log_prob(value), mixed)


def _log_class_probabilities(prior: Any) -> Float[Tensor, "batch classes"]:
    """Log p(y = k) of every class, from the distribution of the site ``y``."""
    support = prior.enumerate_support(expand=False)  # (classes, 1)
    return prior.log_prob(support).T


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
