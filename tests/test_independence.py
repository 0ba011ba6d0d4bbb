import math
from typing import cast

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from svae.elbo import SupervisedELBO
from svae.independence import (
    HSIC,
    AdversarialProbe,
    ClassConditionalMMD,
    Penalty,
    SwapCycle,
    hsic,
    mmd,
    mmd_by_class,
)
from svae.latent import Latent, LatentSplit
from svae.models import SVAE
from svae.priors import StandardPrior


def some(n: int = 60, k: int = 3) -> tuple[SVAE, Tensor, Tensor, Latent]:
    vae = SVAE.for_vectors(6, k, LatentSplit(2, 4), style_prior=StandardPrior(4), hidden=(8,))
    y = torch.arange(n) % k
    return vae.eval(), torch.rand(n, 6), y, Latent(torch.randn(n, 2), torch.randn(n, 4))


def distance(shift: float, dims: int) -> float:
    """Squared MMD of N(shift, I) and N(0, I) under the mean of three kernels, in closed form."""
    total = 0.0
    for scale in (0.25, 1.0, 4.0):
        width = dims * scale
        same = (width / (width + 2)) ** (dims / 2)
        total += 2 * same * (1 - math.exp(-dims * shift**2 / (2 * (width + 2)))) / 3
    return total


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_mmd_is_unbiased(shift: float) -> None:
    found = torch.stack([mmd(torch.randn(12, 4) + shift, torch.randn(20, 4)) for _ in range(1000)])
    assert abs(found.mean() - distance(shift, 4)) < 4 * found.std() / math.sqrt(1000)
    assert found.std() / math.sqrt(1000) < 0.004
    # Without negative values at zero distance it would be biased upwards.
    assert bool((found < 0).any())


def test_mmd_is_the_mean_over_pairs() -> None:
    a, b = torch.randn(3, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)

    def kernel(u: Tensor, v: Tensor) -> Tensor:
        squared = (u - v).square().sum() / 4
        return sum(((-squared / s).exp() for s in (0.25, 1, 4)), torch.zeros(())) / 3

    def mean(first: Tensor, second: Tensor, distinct: bool) -> Tensor:
        values = [
            kernel(u, v)
            for i, u in enumerate(first)
            for j, v in enumerate(second)
            if not distinct or i != j
        ]
        return torch.stack(values).mean()

    wanted = mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)
    torch.testing.assert_close(mmd(a, b), wanted)


def test_classes_are_weighed_by_their_numbers() -> None:
    z, b, y = torch.randn(9, 3), torch.randn(6, 3), torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 1])
    wanted = (5 * mmd(z[y == 0], b) + 3 * mmd(z[y == 1], b)) / 9
    torch.testing.assert_close(mmd_by_class(z, functional.one_hot(y).float(), b), wanted)


def test_class_conditional_mmd_sees_a_class_that_moved() -> None:
    vae, x, y, latent = some(1200)
    penalty = ClassConditionalMMD()
    assert abs(penalty(vae, x, y, latent)) < 0.01
    shifts = torch.tensor([-1.0, 0.0, 1.0])[y, None]
    moved = latent._replace(z_nuisance=latent.z_nuisance + shifts)
    wanted = 2 / 3 * distance(1.0, 4)
    assert float(penalty(vae, x, y, moved)) == pytest.approx(wanted, rel=0.1)
    # A shift that all classes share is as wrong: samples of the prior would not be on the data.
    together = latent._replace(z_nuisance=latent.z_nuisance + 1)
    assert float(penalty(vae, x, y, together)) == pytest.approx(distance(1.0, 4), rel=0.1)


def test_a_class_with_one_example_is_left_out() -> None:
    vae, x, _, latent = some(5, 5)
    found = ClassConditionalMMD()(vae, x, torch.arange(5), latent)
    assert float(found) == 0


def test_hsic_on_known_answers() -> None:
    z = torch.randn(40, 3)
    assert float(hsic(z, torch.zeros(40, dtype=torch.long))) == pytest.approx(0, abs=1e-6)
    y = torch.arange(40) % 2
    copy = 1e3 * y[:, None].float()
    assert float(hsic(copy, y)) == pytest.approx(40**2 / 4 / 39**2, rel=1e-4)
    vae, x, _, latent = some(40)
    assert 0 <= HSIC()(vae, x, y, latent) < 0.1 * hsic(copy, y)
    torch.testing.assert_close(HSIC()(vae, x, y, latent), hsic(latent.z_nuisance, y))


@pytest.mark.parametrize("penalty", [ClassConditionalMMD(), HSIC()], ids=lambda p: p.name)
def test_descent_pushes_the_class_out(penalty: Penalty) -> None:
    vae, x, y, latent = some(300)
    offset = torch.tensor([-1.5, 0.0, 1.5])
    z = (latent.z_nuisance + offset[y, None]).requires_grad_()
    grad = torch.autograd.grad(penalty(vae, x, y, latent._replace(z_nuisance=z)), z)[0]
    means = torch.stack([grad[y == k].mean(0) for k in range(3)])
    assert bool((means[0] < 0).all())
    assert bool((means[2] > 0).all())


def test_the_adversary_learns_and_the_code_flees() -> None:
    vae, x, y, latent = some()
    penalty = AdversarialProbe(4, 3, hidden=8)
    z = latent.z_nuisance.requires_grad_()
    value = penalty(vae, x, y, latent)
    plain = functional.cross_entropy(penalty.probe(z), y)
    torch.testing.assert_close(value, plain)
    code = torch.autograd.grad(value, z, retain_graph=True)[0]
    torch.testing.assert_close(code, -torch.autograd.grad(plain, z, retain_graph=True)[0])
    assert code.abs().max() > 0
    probe = list(penalty.probe.parameters())
    grads = torch.autograd.grad(value, probe, retain_graph=True)
    for a, b in zip(grads, torch.autograd.grad(plain, probe), strict=True):
        torch.testing.assert_close(a, b)


class Plain(nn.Module):
    """x is the class latent and the style side by side; the class can be read from either.

    Args:
        reads: Which half of x the guide takes the class latent from.
    """

    def __init__(self, reads: int) -> None:
        super().__init__()
        self.reads = reads
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        loc, one = x.new_zeros(len(x), 2), x.new_ones(len(x), 2)
        with pyro.plate("batch", len(x)):
            z_class = pyro.sample("z_class", dist.Normal(loc, one).to_event(1))
            pyro.sample("y", dist.Categorical(logits=20 * z_class), obs=y)
            style = pyro.sample("style", dist.Normal(loc, one).to_event(1))
            both = torch.cat([z_class, style], -1)
            pyro.sample("x", dist.Normal(both, 0.01).to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            read, other = x.split(2, -1)[:: 1 - 2 * self.reads]
            pyro.sample("z_class", dist.Normal(read, 0.01).to_event(1))
            pyro.sample("style", dist.Normal(other, 0.01).to_event(1))


@pytest.mark.parametrize("reads", [0, 1])
def test_the_swap_cycle_is_small_where_the_nuisance_is_unused(reads: int) -> None:
    parts = Plain(reads)
    vae = SVAE(parts, parts.guide, (4,))
    y = torch.arange(20) % 2
    codes = functional.one_hot(y, 2).float()
    found = SwapCycle()(vae, codes.repeat(1, 2), y, Latent(codes, codes))
    # Read from the class half: log(1 + exp(-20)). From the other: its neighbour's class.
    assert float(found) == pytest.approx([0.0, 20.0][reads], abs=1e-3)


PENALTIES = [ClassConditionalMMD, HSIC, SwapCycle]


@pytest.mark.parametrize("kind", PENALTIES, ids=lambda kind: kind.name)
def test_every_penalty_is_one_flag_of_the_objective(kind: type[Penalty]) -> None:
    vae, x, y, _ = some()
    loss, terms = SupervisedELBO(penalties=[kind(0.5)])(vae, x, y)
    loss.backward()
    assert terms[kind.name].shape == ()
    guide = cast(nn.Module, vae.guide)
    assert all(bool(torch.isfinite(cast(Tensor, p.grad)).all()) for p in guide.parameters())


def test_the_adversary_belongs_to_the_objective() -> None:
    vae, x, y, _ = some()
    objective = SupervisedELBO(penalties=[AdversarialProbe(4, 3, hidden=8)])
    assert len(list(objective.parameters())) == 6
    objective(vae, x, y)[0].backward()
    assert all(p.grad is not None for p in objective.parameters())


@pytest.mark.parametrize("kind", PENALTIES, ids=lambda kind: kind.name)
def test_a_negative_weight_is_refused(kind: type[Penalty]) -> None:
    with pytest.raises(ValueError, match=rf"weight of {kind.name} must be at least 0, got -1"):
        kind(-1.0)
