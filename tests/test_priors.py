from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Size, Tensor, nn
from torch.distributions import Independent, Normal

import svae
from svae.flows import ConditionalFlow
from svae.guides import MeanFieldGuide, StructuredGuide
from svae.latent import LatentSplit
from svae.nets import ConvEncoder, MLPEncoder
from svae.priors import (
    FlowPrior,
    MixturePrior,
    PushForward,
    StandardPrior,
    StylePrior,
    VampPrior,
    draw_noise,
    noise_of,
    value_of,
)
from svae.sites import at_means

N, CLASSES = 3, 4


def flow() -> ConditionalFlow:
    made = ConditionalFlow(N, CLASSES, 2, (8,)).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made


def contexts(*batch: int) -> Tensor:
    return torch.randn(*batch, CLASSES).softmax(-1)


PRIORS = {"standard": lambda: StandardPrior(N), "flow": lambda: FlowPrior(flow())}


@pytest.mark.parametrize("name", PRIORS)
def test_a_prior_is_one_event_per_row(name: str) -> None:
    prior: StylePrior = PRIORS[name]()
    assert prior.n_nuisance == N
    made = prior(contexts(5))
    assert (made.batch_shape, made.event_shape) == ((5,), (N,))
    assert made.rsample().shape == (5, N)
    assert made.rsample(Size([2])).shape == (2, 5, N)
    assert made.log_prob(torch.randn(5, N)).shape == (5,)
    assert made.mean.shape == (5, N)


@pytest.mark.parametrize("name", PRIORS)
def test_value_and_noise_are_inverse(name: str) -> None:
    prior = PRIORS[name]()(contexts(5))
    u = torch.randn(5, N)
    assert torch.allclose(value_of(prior, noise_of(prior, u)), u, atol=1e-4)
    assert torch.allclose(noise_of(prior, value_of(prior, u)), u, atol=1e-4)


def test_without_a_flow_the_noise_is_the_value() -> None:
    prior, u = StandardPrior(N)(contexts(5)), torch.randn(5, N)
    assert torch.equal(noise_of(prior, u), u)
    assert torch.equal(value_of(prior, u), u)
    expected = Independent(Normal(torch.zeros(N), 1), 1).log_prob(u)
    assert torch.allclose(prior.log_prob(u), expected)


def test_density_is_that_of_the_noise_times_the_jacobian() -> None:
    prior, context = FlowPrior(flow()), contexts(5)
    u = torch.randn(5, N)
    base = Independent(Normal(torch.zeros(N), 1), 1)
    made = prior(context)
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(
            lambda v, i=i: noise_of(prior(context[i]), v), u[i]
        )
        assert isinstance(jacobian, Tensor)
        expected = base.log_prob(noise_of(made, u)[i]) + torch.linalg.slogdet(jacobian).logabsdet
        assert torch.allclose(made.log_prob(u)[i], expected, atol=1e-4)


def test_samples_are_images_of_standard_noise() -> None:
    made = FlowPrior(flow())(contexts(2))
    draws = made.rsample(Size([4000]))
    noise = made.flow(draws, made.context.expand(4000, 2, CLASSES))[0]
    assert noise.mean((0, 1)).abs().max() < 0.05
    assert (noise.std((0, 1)) - 1).abs().max() < 0.05
    assert torch.allclose(made.mean, value_of(made, torch.zeros(2, N)))


def test_a_row_of_context_has_a_density_of_its_own() -> None:
    prior, context = FlowPrior(flow()), contexts(5)
    u = torch.randn(1, N).expand(5, N)
    each = torch.stack([prior(context[i]).log_prob(u[i]) for i in range(5)])
    assert torch.allclose(prior(context).log_prob(u), each, atol=1e-5)
    assert each.std() > 1e-3


def test_expanded_density_is_the_same_density() -> None:
    made = FlowPrior(flow())(contexts(5))
    wide = made.expand(Size([2, 5]))
    u = torch.randn(2, 5, N)
    assert isinstance(wide, PushForward)
    assert wide.batch_shape == (2, 5)
    assert wide.rsample().shape == (2, 5, N)
    assert torch.allclose(wide.log_prob(u), made.log_prob(u), atol=1e-5)
    assert torch.allclose(wide.log_prob(u)[1], made.log_prob(u[1]), atol=1e-5)


def test_gradients_pass_through_samples_and_density() -> None:
    prior, context = FlowPrior(flow()), contexts(5).requires_grad_()
    made = prior(context)
    made.rsample().sum().backward(retain_graph=True)
    assert context.grad is not None
    assert context.grad.abs().sum() > 0
    u = torch.randn(5, N, requires_grad=True)
    made.log_prob(u).sum().backward()
    assert u.grad is not None
    assert all(p.grad is not None and p.grad.isfinite().all() for p in prior.parameters())


def test_a_push_forward_is_a_pyro_site() -> None:
    def model(context: Tensor) -> None:
        with pyro.plate("batch", len(context)):
            pyro.sample("style", prior(context))

    prior = FlowPrior(flow())
    trace = poutine.trace(model).get_trace(contexts(5))
    trace.compute_log_prob()
    node = trace.nodes["style"]
    assert node["log_prob"].shape == (5,)
    assert torch.allclose(node["log_prob"], node["fn"].log_prob(node["value"]))


def vamp(n: int = N, structured: bool = False) -> VampPrior:
    torch.manual_seed(0)
    guide = (StructuredGuide if structured else MeanFieldGuide)(
        MLPEncoder((5,), 6, hidden=(8,)), LatentSplit(2, n)
    )
    prior = VampPrior(n, (5,), n_components=4)
    prior.attach(guide)
    return prior


@pytest.mark.parametrize(
    "prior",
    [MixturePrior(2, 5), vamp(2), vamp(2, structured=True)],
    ids=["mixture", "vamp", "vamp structured"],
)
def test_mixtures_are_densities_and_draws_follow_them(prior: StylePrior) -> None:
    made = prior(contexts(1))
    nodes = torch.linspace(-9, 9, 181)
    grid = torch.cartesian_prod(nodes, nodes)
    density = prior(contexts(len(grid))).log_prob(grid).detach().exp()
    assert float(density.sum() * 0.1**2) == pytest.approx(1, abs=2e-3)
    drawn = draw_noise(made, 20_000)[:, 0].detach()
    assert drawn.shape == (20_000, 2)
    mean = (grid * density[:, None]).sum(0) * 0.1**2
    assert ((drawn.mean(0) - mean).abs() < 5 * drawn.std(0) / 20_000**0.5).all()
    u = torch.randn(1, 2)
    assert noise_of(made, u) is u  # no base noise: the code itself


def test_a_vamp_prior_is_the_mean_of_posteriors_at_its_inputs() -> None:
    prior, u = vamp(), torch.randn(6, N)
    posterior = at_means(prior._guide[0], prior.pseudo_inputs)["style"]
    rows = torch.stack([posterior.log_prob(row) for row in u])
    wanted = rows.logsumexp(1) - torch.tensor(4.0).log()
    torch.testing.assert_close(prior(contexts(6)).log_prob(u), wanted)


def test_pseudo_inputs_learn_and_leave_the_batch_statistics() -> None:
    guide = MeanFieldGuide(ConvEncoder((1, 8, 8), 8, width=4), LatentSplit(2, N)).train()
    prior = VampPrior(N, (1, 8, 8), n_components=3)
    prior.attach(guide)
    before = {name: b.clone() for name, b in guide.named_buffers()}
    prior(contexts(6)).log_prob(torch.randn(6, N)).sum().backward()
    assert prior.raw_inputs.grad is not None
    assert prior.raw_inputs.grad.any()
    assert all(torch.equal(b, before[name]) for name, b in guide.named_buffers())
    assert guide.encoder.training


def test_a_vamp_prior_without_a_guide_says_so() -> None:
    with pytest.raises(ValueError, match="has none yet"):
        VampPrior(N, (5,))(contexts(2))
    with pytest.raises(ValueError, match="1 or more pseudo-inputs, got 0"):
        VampPrior(N, (5,), n_components=0)
    with pytest.raises(ValueError, match="1 or more components, got 0"):
        MixturePrior(N, 0)


def test_an_unconditional_flow_does_not_read_the_class() -> None:
    flow = ConditionalFlow(N, 0, 2, (8,)).eval()
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.4)
    prior, u = FlowPrior(flow), torch.randn(5, N)
    torch.testing.assert_close(prior(contexts(5)).log_prob(u), prior(contexts(5)).log_prob(u))
    made = prior(contexts(5))
    assert torch.allclose(value_of(made, noise_of(made, u)), u, atol=1e-4)
    assert draw_noise(made, 7).shape == (7, 5, N)


def test_a_gaussian_prior_of_the_users_own_is_standardised() -> None:
    loc, scale = torch.randn(5, N), torch.rand(5, N) + 0.5
    prior, u = dist.Normal(loc, scale).to_event(1), torch.randn(5, N)
    torch.testing.assert_close(noise_of(prior, u), (u - loc) / scale)
    torch.testing.assert_close(value_of(prior, noise_of(prior, u)), u)
    assert abs(draw_noise(prior, 4000).std() - 1) < 0.03


def test_a_remembered_draw_has_its_density() -> None:
    made = FlowPrior(flow())(contexts(5))
    value = made.rsample(Size([2]))
    torch.testing.assert_close(
        made.log_prob(value), made.log_prob(value.clone()), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("prior", [MixturePrior(2, 3), VampPrior(2, (5,), 3)])
def test_saved_and_loaded(prior: StylePrior, tmp_path: Path) -> None:
    vae = svae.SVAE.for_vectors(5, 3, LatentSplit(2, 2), style_prior=prior, hidden=(8,)).eval()
    vae.save(tmp_path)
    loaded, x = svae.load(tmp_path), torch.rand(4, 5)
    y = torch.tensor([0, 1, 2, 0])
    found = []
    for model in (vae, loaded):
        torch.manual_seed(0)
        found.append(svae.SupervisedELBO()(model, x, y)[0])
    torch.testing.assert_close(*found)
    assert svae.resample_nuisance(loaded, x, n=2).shape == (2, 4, 5)
