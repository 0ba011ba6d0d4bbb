import pyro
import pytest
import torch
from pyro import poutine
from torch import Size, Tensor, nn
from torch.distributions import Independent, Normal

from svae.flows import ConditionalFlow
from svae.priors import FlowPrior, PushForward, StandardPrior, StylePrior, noise_of, value_of

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
    assert noise_of(prior, u) is u
    assert value_of(prior, u) is u
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
