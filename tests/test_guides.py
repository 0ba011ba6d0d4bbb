import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

import svae
from svae.elbo import SupervisedELBO, evidence
from svae.guides import (
    FlowGuide,
    FullCovarianceGuide,
    HierarchicalGuide,
    MeanFieldGuide,
    StructuredGuide,
)
from svae.latent import LatentSplit
from svae.models import SVAE
from svae.nets import ConvEncoder, MLPEncoder
from svae.priors import PushForward
from svae.sites import at_means, means
from tests import plain_pyro
from tests.problems import N_CLASS, N_PIXELS, N_STYLE, WithLogJoint
from tests.unchecked import as_a_user

SMALL, N_X = LatentSplit(2, 2), 5
Build = Callable[..., nn.Module]
GUIDES: dict[str, Build] = {
    "mean-field": MeanFieldGuide,
    "full covariance": FullCovarianceGuide,
    "joint covariance": lambda *a, **k: FullCovarianceGuide(*a, joint=True, **k),
    "structured": lambda *a, **k: StructuredGuide(*a, hidden=(8,), **k),
    "hierarchical": lambda *a, **k: HierarchicalGuide(*a, n_levels=2, hidden=(8,), **k),
    "flow": lambda *a, **k: FlowGuide(
        *a, blocks=("z_class", "style"), n_context=3, n_blocks=2, hidden=(8,), **k
    ),
    "structured flow": lambda *a, **k: FlowGuide(
        *a, structured=True, n_context=3, n_blocks=2, hidden=(8,), **k
    ),
}
EVERY = pytest.mark.parametrize("build", GUIDES.values(), ids=GUIDES.keys())


def encoder() -> MLPEncoder:
    return MLPEncoder((N_X,), 6, hidden=(8,))


def shaken(build: Build, **settings: Any) -> nn.Module:
    """A guide away from its start, where flows are the identity."""
    torch.manual_seed(0)
    guide = build(encoder(), SMALL, **settings).double()
    for parameter in guide.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return guide.eval()


def posteriors(guide: nn.Module, x: Tensor, **held: Tensor) -> dict[str, Any]:
    trace = poutine.trace(poutine.condition(guide, data=held)).get_trace(x)
    return {name: trace.nodes[name] for name in ("z_class", "style")}


@EVERY
def test_densities_integrate_to_one(build: Build) -> None:
    guide, x = shaken(build), torch.rand(1, N_X).double()
    nodes = torch.linspace(-12, 12, 241).double()
    grid = torch.cartesian_prod(nodes, nodes)
    z_class = torch.randn(1, 2).double()
    for name, held in (("z_class", {}), ("style", {"z_class": z_class})):
        posterior = posteriors(guide, x, **held)[name]["fn"]
        mass = posterior.expand((len(grid),)).log_prob(grid).detach().exp().sum() * 0.1**2
        assert float(mass) == pytest.approx(1, abs=2e-3), name


@EVERY
def test_a_draw_has_the_density_of_its_place(build: Build) -> None:
    guide, x = shaken(build), torch.rand(4, N_X).double()
    torch.manual_seed(1)
    found = posteriors(guide, x)
    torch.manual_seed(1)
    for name, node in posteriors(guide, x).items():
        # From the memory of the draw, and from the value alone.
        remembered = found[name]["fn"].log_prob(found[name]["value"])
        torch.testing.assert_close(node["fn"].log_prob(node["value"].clone()), remembered)


@EVERY
def test_draws_follow_the_density(build: Build) -> None:
    """E[f p / q] = E_p[f] for p the uniform density on a box: draws and density must agree."""
    guide, x = shaken(build), torch.rand(1, N_X).double().expand(40_000, -1)
    for name, node in posteriors(guide, x).items():
        value, log_q = node["value"].detach(), node["fn"].log_prob(node["value"]).detach()
        if name == "style":
            break  # its density depends on the z_class of each row; the joint is checked below
        centre, width = value.mean(0), 2 * value.std(0)
        inside = ((value - centre).abs() < width / 2).all(1)
        ratio = inside / (log_q.exp() * width.prod())
        error = (ratio.mean() - 1).abs() / (ratio.std() / math.sqrt(len(x)))
        assert error < 4.5, name
    both = posteriors(guide, x)
    joint = torch.cat([node["value"].detach() for node in both.values()], 1)
    log_q = sum(node["fn"].log_prob(node["value"]).detach() for node in both.values())
    centre, width = joint.mean(0), 2 * joint.std(0)
    inside = ((joint - centre).abs() < width / 2).all(1)
    ratio = inside / (torch.as_tensor(log_q).exp() * width.prod())
    assert (ratio.mean() - 1).abs() / (ratio.std() / math.sqrt(len(x))) < 4.5


@EVERY
def test_each_row_follows_from_its_input_and_every_parameter_learns(build: Build) -> None:
    guide, x = shaken(build), torch.rand(4, N_X).double()
    other = x.clone()
    other[1] = 0
    for first, second in zip(means(guide, x), means(guide, other), strict=True):
        changed = (first != second).any(1)
        assert changed.tolist() == [False, True, False, False]
    total = sum(n["fn"].log_prob(n["value"].detach()).sum() for n in posteriors(guide, x).values())
    total = total + sum(n["value"].square().sum() for n in posteriors(guide, x).values())
    torch.as_tensor(total).backward()
    untouched = [n for n, p in guide.named_parameters() if p.grad is None or not p.grad.any()]
    assert not untouched


@EVERY
def test_two_trunks_keep_the_blocks_apart(build: Build) -> None:
    guide, x = shaken(build, style_encoder=encoder()), torch.rand(3, N_X).double()
    before = means(guide, x)
    trunks: Any = getattr(guide, "trunks", guide)
    for parameter in trunks.style_encoder.parameters():
        parameter.data += 1
    after = means(guide, x)
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


@EVERY
def test_saved_and_loaded(build: Build, tmp_path: Path) -> None:
    vae = SVAE.for_vectors(N_X, 3, SMALL, hidden=(8,))
    guide = build(encoder(), SMALL)
    vae = SVAE(vae.model, guide, (N_X,)).eval()
    vae.save(tmp_path)
    x = torch.rand(3, N_X)
    for a, b in zip(vae.encode(x), svae.load(tmp_path).encode(x), strict=True):
        torch.testing.assert_close(a, b)


def test_a_flow_guide_starts_as_mean_field() -> None:
    guide = FlowGuide(encoder(), SMALL, ("style",), n_context=3, hidden=(8,)).eval()
    x, value = torch.rand(4, N_X), torch.randn(4, 2)
    posterior = at_means(guide, x)["style"]
    assert isinstance(posterior.base_dist, PushForward)
    placed = posterior.transforms[0]
    gaussian = dist.Normal(placed.loc, placed.scale).to_event(1)
    torch.testing.assert_close(posterior.log_prob(value), gaussian.log_prob(value))
    torch.testing.assert_close(means(guide, x)[1], placed.loc)


def exact_guide(model: WithLogJoint) -> FullCovarianceGuide:
    """The posterior of a linear-Gaussian model, written into a guide with joint covariance."""

    class AsItIs(nn.Module):
        n_features = N_PIXELS

        def forward(self, x: Tensor) -> Tensor:
            return x

    guide = FullCovarianceGuide(AsItIs(), LatentSplit(N_CLASS, N_STYLE), joint=True, min_scale=0.0)
    guide = guide.double()
    zero = torch.zeros(1, N_PIXELS).double()
    offset, cov = model.posterior(zero, torch.zeros(1, dtype=torch.long))
    columns, _ = model.posterior(torch.eye(N_PIXELS).double(), torch.zeros(N_PIXELS).long())
    gain = (columns - offset).T
    lower = torch.linalg.cholesky(cov)
    c, u = slice(0, N_CLASS), slice(N_CLASS, None)
    for part, where in ((guide.class_of, c), (guide.style_of, u)):
        block = lower[where, where]
        n = len(block)
        rows, columns = torch.tril_indices(n, n, -1)
        part.weight.data.zero_()
        part.weight.data[:n] = gain[where]
        raw = torch.log(torch.expm1(block.diagonal()))
        part.bias.data = torch.cat([offset[0, where], raw, block[rows, columns]])
    guide.common_of.weight.data.zero_()
    guide.common_of.bias.data = lower[u, c].flatten()
    return guide


def test_joint_covariance_holds_the_posterior_of_a_linear_gaussian_model() -> None:
    model = WithLogJoint(label_first=False)
    vae = SVAE(model, exact_guide(model), (N_PIXELS,))
    x = 2 * torch.randn(6, N_PIXELS).double()
    lower, upper = evidence(vae, x, n=3)
    torch.testing.assert_close(lower, model.log_evidence(x))  # no gap, in every particle
    torch.testing.assert_close(upper, lower)


def test_the_rate_of_a_full_covariance_is_in_closed_form() -> None:
    guide, x = shaken(FullCovarianceGuide), torch.rand(4, N_X).double()
    posterior = at_means(guide, x)["style"]
    loc, scale = torch.randn(4, 2).double(), torch.rand(4, 2).double() + 0.5
    prior = dist.Normal(loc, scale).to_event(1)
    same = dist.MultivariateNormal(loc, scale_tril=scale.diag_embed())
    divergence = torch.distributions.kl_divergence
    torch.testing.assert_close(divergence(posterior, prior), divergence(posterior, same))
    with pytest.raises(NotImplementedError):
        divergence(posterior, dist.Laplace(loc, scale).to_event(1))


def test_an_autoguide_fits_the_posterior_of_one_batch() -> None:
    """Its parameters belong to examples, so it serves one fixed batch and no other."""
    torch.manual_seed(0)
    model, x = plain_pyro.LabelLast(), torch.rand(6, plain_pyro.N_X)
    y = torch.arange(6) % plain_pyro.N_CLASSES
    model.requires_grad_(False)
    hidden = poutine.block(model, hide=["x", "y"])
    with pyro.settings.context(module_local_params=True):
        guide = AutoNormal(hidden)
        guide(x, y)
    vae = SVAE(model, guide, (plain_pyro.N_X,))
    objective = SupervisedELBO(beta_class=1.0, beta_style=1.0, label_weight=0.0)
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss, _ = objective(vae, x, y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < sum(losses[:10])
    assert not pyro.get_param_store().keys()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: HierarchicalGuide(encoder(), SMALL, n_levels=3), "between 1 and the 2 nuisance"),
        (lambda: FlowGuide(encoder(), SMALL, ("y",)), "one or both of"),
    ],
)
def test_arguments_out_of_range(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@EVERY
@pytest.mark.parametrize("width", [None, 4.0])
def test_an_encoder_says_its_width(build: Build, width: float | None) -> None:
    class Encoder(nn.Module):
        n_features = width

        def forward(self, x: Tensor) -> Tensor:
            return x

    with as_a_user(), pytest.raises(TypeError, match=r"integer attribute n_features, .* got"):
        build(Encoder(), SMALL)


@EVERY
@pytest.mark.parametrize(
    ("trunk", "shape"),
    [(MLPEncoder((6,), 4, (5,)), (6,)), (ConvEncoder((1, 8, 9), 4, width=2), (1, 8, 9))],
    ids=["vectors", "images"],
)
def test_sites(build: Build, trunk: nn.Module, shape: tuple[int, ...]) -> None:
    trace = plain_pyro.nodes(build(trunk, LatentSplit(2, 3)), torch.rand(5, *shape))
    for name, width in (("z_class", 2), ("style", 3)):
        made = trace[name]["fn"]
        assert (made.batch_shape, made.event_shape) == ((5,), (width,))
        assert trace[name]["value"].shape == (5, width)
        assert trace[name]["value"].requires_grad


def test_columns_are_class_first_and_locs_before_scales() -> None:
    guide = MeanFieldGuide(MLPEncoder((6,), 4, ()), LatentSplit(2, 3), min_scale=0.25)
    x = torch.rand(7, 6)
    raw = guide.parameters_of(guide.encoder(x))
    trace = plain_pyro.nodes(guide, x)
    for name, columns in (("z_class", slice(0, 2)), ("style", slice(2, 5))):
        made = trace[name]["fn"]
        assert torch.allclose(made.mean, raw[:, columns])
        scale = nn.functional.softplus(raw[:, 5:][:, columns]) + 0.25
        assert torch.allclose(made.variance.sqrt(), scale, atol=1e-6)


@EVERY
def test_the_label_is_not_read(build: Build) -> None:
    guide, x = build(encoder(), SMALL), torch.rand(3, N_X)
    with_label = plain_pyro.nodes(guide, x, torch.tensor([0, 1, 2]))
    without = plain_pyro.nodes(guide, x)
    assert set(with_label) == set(without)
    for first, second in zip(*(means(guide, x) for _ in range(2)), strict=True):
        assert torch.equal(first, second)


@EVERY
def test_densities_are_float32_under_autocast_and_float64_where_x_is(build: Build) -> None:
    guide = build(encoder(), SMALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trace = plain_pyro.nodes(guide, torch.rand(3, N_X))
    for name in ("z_class", "style"):
        assert trace[name]["value"].dtype == trace[name]["log_prob"].dtype == torch.float32
    trace = plain_pyro.nodes(guide.double(), torch.rand(3, N_X, dtype=torch.float64))
    assert trace["style"]["value"].dtype == torch.float64
