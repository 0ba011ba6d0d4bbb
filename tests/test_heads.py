from collections.abc import Callable

import pyro
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal

from svae.heads import GaussianHead, Head, NetworkHead
from svae.nets import MLP
from svae.sites import log_joint_of
from tests.plain_pyro import nodes

HEADS: dict[str, Callable[[], Head]] = {
    "gaussian": lambda: GaussianHead(3, 4),
    "gaussian, more classes than dims": lambda: GaussianHead(2, 5),
    "gaussian, shared scale": lambda: GaussianHead(3, 4, shared_scale=True),
    "gaussian, given classes": lambda: GaussianHead(
        3, 4, class_probabilities=[0.1, 0.2, 0.3, 0.4]
    ),
    "linear": lambda: NetworkHead(3, 4),
    "perceptron": lambda: NetworkHead(3, 4, hidden=(6,)),
}


def built(name: str) -> Head:
    head = HEADS[name]()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=1.0)
    return head


class SitesOnly(nn.Module):
    """The head's sites in a model without a ``log_joint`` of its own."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            self.head.draw(x, y)


def by_torch(head: Head, z_class: Tensor) -> Tensor:
    """The same densities from torch.distributions alone."""
    if isinstance(head, GaussianHead):
        classes = Independent(Normal(head.loc, head.scale), 1)
        return classes.log_prob(z_class.unsqueeze(-2)) + head.log_prior
    assert isinstance(head, NetworkHead)
    prior = Independent(Normal(torch.zeros(head.n_class), 1), 1).log_prob(z_class)
    return prior.unsqueeze(-1) + Categorical(logits=head.net(z_class)).logits


@pytest.mark.parametrize("name", HEADS)
def test_log_joint_is_the_density(name: str) -> None:
    head = built(name)
    for batch in [(), (5,), (2, 3)]:
        z_class = torch.randn(*batch, head.n_class)
        assert head.log_joint(z_class).shape == (*batch, head.n_classes)
        assert torch.allclose(head.log_joint(z_class), by_torch(head, z_class), atol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_log_joint_is_that_of_the_sites(name: str) -> None:
    head = built(name)
    x, z_class = torch.zeros(6, 1), torch.randn(6, head.n_class)
    from_sites = log_joint_of(SitesOnly(head), x, z_class)
    assert torch.allclose(from_sites, head.log_joint(z_class), atol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_logits_are_normalised_and_follow_by_bayes(name: str) -> None:
    head = built(name)
    z_class = torch.randn(7, head.n_class)
    joint = head.log_joint(z_class).exp()
    expected = joint / joint.sum(-1, keepdim=True)
    assert torch.allclose(head(z_class).exp(), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["linear", "perceptron"])
def test_the_label_summed_out_leaves_the_standard_normal(name: str) -> None:
    head = built(name)
    z_class = torch.randn(7, 3)
    expected = Independent(Normal(torch.zeros(3), 1), 1).log_prob(z_class)
    assert torch.allclose(head.log_joint(z_class).logsumexp(-1), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["gaussian", "gaussian, given classes"])
def test_the_latent_integrated_out_leaves_the_class_probabilities(name: str) -> None:
    head = GaussianHead(
        1, 4, class_probabilities=None if name == "gaussian" else [1.0, 2.0, 3.0, 4.0]
    )
    axis = torch.linspace(-30, 30, 6001)
    mass = head.log_joint(axis[:, None]).exp().sum(0) * (axis[1] - axis[0])
    expected = [0.25] * 4 if name == "gaussian" else [0.1, 0.2, 0.3, 0.4]
    assert mass.tolist() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("observed", [True, False])
def test_draw_makes_two_sites(name: str, observed: bool) -> None:
    head = built(name)
    y = torch.tensor([0, 2, 1]) if observed else None
    trace = nodes(SitesOnly(head), torch.zeros(3, 1), y)
    assert {"z_class", "y"} <= set(trace)
    assert trace["y"]["is_observed"] is observed
    assert trace["z_class"]["value"].shape == (3, head.n_class)
    if y is not None:
        assert torch.equal(trace["y"]["value"], y)


def test_gaussians_belong_to_their_label() -> None:
    head = GaussianHead(4, 4, separation=20.0)
    y = torch.tensor([3, 0, 1, 2, 2])
    node = nodes(SitesOnly(head), torch.zeros(5, 1), y)["z_class"]
    assert torch.equal(node["fn"].mean, head.loc[y])
    assert torch.equal(node["fn"].variance.sqrt(), head.scale[y])
    assert torch.equal(head(node["value"]).argmax(-1), y)


def test_initial_gaussians() -> None:
    head = GaussianHead(6, 4, separation=2.0)
    assert torch.allclose(head.scale, torch.ones(4, 6), atol=2e-3)
    distances = torch.cdist(head.loc, head.loc)[~torch.eye(4, dtype=torch.bool)]
    assert torch.allclose(distances, torch.full((12,), 2 * 12**0.5), atol=1e-4)
    assert torch.pdist(GaussianHead(2, 10).loc).min() > 0


def test_scales_have_a_floor() -> None:
    head = GaussianHead(2, 3, min_scale=0.2)
    nn.init.constant_(head.raw_scale, -100.0)
    assert torch.allclose(head.scale, torch.full((3, 2), 0.2))
    assert GaussianHead(2, 3, shared_scale=True).raw_scale.shape == (1, 2)


def test_a_network_head_without_hidden_layers_is_linear() -> None:
    assert isinstance(NetworkHead(3, 4).net, MLP)
    assert len(NetworkHead(3, 4).net) == 1
    assert len(NetworkHead(3, 4, hidden=(5, 5)).net) == 5


@pytest.mark.parametrize("kind", [GaussianHead, NetworkHead])
def test_numbers_out_of_range(kind: Callable[[int, int], Head]) -> None:
    with pytest.raises(ValueError, match=r"n_class, .* at least 1, got 0"):
        kind(0, 3)
    with pytest.raises(ValueError, match="n_classes must be at least 2, got 1"):
        kind(3, 1)


@pytest.mark.parametrize("probabilities", [[0.5, 0.5], [1.0, 0.0, 0.0], [2.0, -1.0, 1.0]])
def test_wrong_class_probabilities(probabilities: list[float]) -> None:
    with pytest.raises(ValueError, match="must be 3 positive numbers, got"):
        GaussianHead(2, 3, class_probabilities=probabilities)
