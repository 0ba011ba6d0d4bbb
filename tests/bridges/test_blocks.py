import math

import pytest
import torch
from torch import nn

from svae.bridges import Block
from tests.unchecked import as_a_user


def gaussian() -> Block:
    block = Block(2).double()
    nn.init.normal_(block.rho_logit)
    return block


def clouds(n_dims: int = 2, n_values: int = 3) -> Block:
    block = Block(n_dims, n_values)
    nn.init.normal_(block.loc, std=2.0)
    nn.init.normal_(block.log_scale, std=0.4)
    block.set_shares(torch.tensor([1.0, 5.0, 3.0])[:n_values] * 100)
    return block


def grid(half: float = 14.0, n: int = 281) -> tuple[torch.Tensor, float]:
    axis = torch.linspace(-half, half, n, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float((axis[1] - axis[0]) ** 2)


@pytest.mark.parametrize("build", [gaussian, clouds])
def test_the_density_integrates_to_one(build: object) -> None:
    points, cell = grid()
    block = build().double()  # pyright: ignore[reportCallIssue]
    total = block.log_prob(points).detach().exp().sum() * cell
    assert float(total) == pytest.approx(1, abs=1e-3)


def test_the_density_of_every_value_integrates_to_one() -> None:
    points, cell = grid()
    block = clouds().double()
    for k in range(3):
        value = torch.full((len(points),), k)
        total = block.log_prob(points, value).detach().exp().sum() * cell
        assert float(total) == pytest.approx(1, abs=1e-3)


def test_the_density_of_a_pair_is_that_of_a_correlated_gaussian() -> None:
    block = gaussian()
    a, b = torch.randn(5, 2).double(), torch.randn(5, 2).double()
    rho = block.rho.detach()
    wanted = torch.zeros(5, dtype=torch.float64)
    for d in range(2):
        cov = torch.tensor([[1.0, rho[d]], [rho[d], 1.0]], dtype=torch.float64)
        joint = torch.distributions.MultivariateNormal(torch.zeros(2).double(), cov)
        wanted += joint.log_prob(torch.stack([a[:, d], b[:, d]], -1))
    found = block.log_prob(a) + block.pair_log_prob(b, a)
    assert torch.allclose(found, wanted, atol=1e-3)


def test_the_density_of_a_pair_of_one_value_keeps_both_margins() -> None:
    points, cell = grid(16.0, 101)
    block = clouds().double()
    with torch.no_grad():
        first = block.sample(1)[0]
        given = block.pair_log_prob(points, first.expand_as(points)).exp()
        assert float(given.sum() * cell) == pytest.approx(1, abs=1e-3)
        # Drawn together: a value, the first, and the second about the mean of that value.
        a = block.sample(4000)
        mean = torch.zeros(len(points), dtype=torch.float64)
        for row in a[:1000]:
            mean += block.pair_log_prob(points, row.expand_as(points)).exp() / 1000
        wanted = block.log_prob(points).exp()
        assert float((mean - wanted).abs().sum() * cell) < 0.2
        near = block.pair_log_prob(a, a).mean()
        far = block.pair_log_prob(a, a[torch.randperm(4000)]).mean()
        assert near > far + 1


def test_an_unknown_value_is_summed_out() -> None:
    block, z = clouds(), torch.randn(4, 2)
    value = torch.tensor([0, -1, 2, -1])
    found = block.log_prob(z, value)
    marginal = block.log_prob(z)
    assert torch.allclose(found[[1, 3]], marginal[[1, 3]])
    assert torch.allclose(marginal, block.log_joint(z).logsumexp(-1))
    assert not torch.isclose(found[0], marginal[0])


def test_samples_have_the_density() -> None:
    block = clouds()
    z = block.sample(40_000, generator=torch.Generator().manual_seed(0))
    # Means of the mixture, and of one value.
    wanted = (block.log_share.exp()[:, None] * block.loc).sum(0)
    assert torch.allclose(z.mean(0), wanted, atol=0.06)
    one = block.sample(20_000, torch.full((20_000,), 1), torch.Generator().manual_seed(0))
    assert torch.allclose(one.mean(0), block.loc[1], atol=0.06)
    assert torch.allclose(
        block.log_prob(one, torch.full((20_000,), 1)).exp().mean().log(),
        -0.5 * block.n_dims * math.log(4 * math.pi) - (one.std(0).log()).sum(),
        atol=0.1,
    )


@pytest.mark.parametrize("keep", [0.0, 0.7, 0.98])
@pytest.mark.parametrize("build", [lambda: Block(2), clouds])
def test_a_walk_leaves_the_density_as_it_is(build: object, keep: float) -> None:
    block, generator = build(), torch.Generator().manual_seed(1)  # pyright: ignore[reportCallIssue]
    start = block.sample(40_000, generator=generator)
    z = start
    for _ in range(3):
        z = block.step(z, keep, 0.2, generator)
    assert not torch.equal(z, start)
    assert torch.allclose(z.mean(0), start.mean(0), atol=0.06)
    assert torch.allclose(z.T.cov(), start.T.cov(), atol=0.15)
    if block.n_values:
        value = block.log_joint(z).argmax(-1).bincount(minlength=3) / len(z)
        wanted = block.log_joint(start).argmax(-1).bincount(minlength=3) / len(z)
        assert torch.allclose(value, wanted, atol=0.02)


def test_neighbours_of_a_walk_are_correlated_as_asked() -> None:
    block = Block(1)
    z = torch.randn(50_000, 1)
    after = block.step(z, 0.8)
    assert float(torch.corrcoef(torch.cat([z, after], 1).T)[0, 1]) == pytest.approx(0.8, abs=0.01)


def test_without_jumps_a_walk_stays_in_its_cloud() -> None:
    block = Block(2, 3)
    nn.init.zeros_(block.loc)
    with torch.no_grad():
        block.loc[:, 0] = torch.tensor([-20.0, 0.0, 20.0])
    z = block.sample(300, torch.arange(300) % 3)
    for _ in range(20):
        z = block.step(z, 0.5, 0.0)
    assert torch.equal(block.log_joint(z).argmax(-1), torch.arange(300) % 3)


def test_clouds_start_where_the_examples_are() -> None:
    block, value = Block(2, 3), torch.arange(6000) % 2
    z = torch.randn(6000, 2) * torch.tensor([0.5, 2.0]) + 4.0 * value[:, None]
    before = block.loc[2].clone()
    block.start(z, value)
    assert torch.allclose(block.loc[:2], torch.tensor([[0.0, 0.0], [4.0, 4.0]]), atol=0.15)
    sample = block.sample(6000, value)
    assert torch.allclose(sample[value == 0].std(0), torch.tensor([0.5, 2.0]), atol=0.1)
    assert torch.equal(block.loc[2], before)  # a value without examples stays


@pytest.mark.parametrize(
    "arguments",
    [{"n_dims": -1}, {"n_dims": 2, "n_values": 1}, {"n_dims": 2, "rho": 1.0}],
)
def test_numbers_out_of_range_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="A concept with a single value is none"):
        Block(**arguments)


def test_a_step_out_of_range_is_refused() -> None:
    with as_a_user(), pytest.raises(ValueError, match=r"keep and jump must lie in \[0, 1\]"):
        Block(2).step(torch.zeros(1, 2), 1.5)


def test_a_block_without_dims_changes_nothing() -> None:
    for block in (Block(0), Block(0, 4)):
        z = torch.zeros(5, 0)
        block.start(z, torch.tensor([0, 0, 1, 1, 1]))
        assert torch.allclose(block.log_prob(z), torch.zeros(5), atol=1e-6)
        assert block.sample(3).shape == (3, 0)
        assert block.step(z).shape == (5, 0)
