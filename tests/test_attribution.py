import logging

import pytest
import torch
from torch import Tensor, nn

from svae.attribution import (
    attribute,
    averaged,
    in_shrinking_batches,
    invariance_map,
    latent_shares,
    randomised,
    rank_correlation,
)
from svae.latent import Latent

WEIGHT = torch.arange(1.0, 37.0).view(1, 1, 6, 6)


def linear(x: Tensor) -> Tensor:
    return torch.stack([(WEIGHT * x).flatten(1).sum(1), -x.flatten(1).sum(1)], 1)


class Split:
    """The left half of a picture is the class, the right half the nuisance, of known size."""

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        return Latent(x[..., :3].flatten(1), x[..., 3:].flatten(1))

    def decode(self, latent: Latent) -> Tensor:
        halves = [block.unflatten(1, (1, 6, 3)) for block in (latent.z_class, latent.z_nuisance)]
        return torch.cat(halves, 3)

    def predict(self, x: Tensor) -> Tensor:
        return linear(x)

    def sample_nuisance(
        self, latent: Latent, n: int, generator: torch.Generator | None = None
    ) -> Tensor:
        return 0.5 * torch.randn(n, *latent.z_nuisance.shape, generator=generator)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(7, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def test_integrated_gradients_of_a_linear_function_are_its_terms(x: Tensor) -> None:
    found = attribute(linear, x, baseline=0.25)
    assert torch.allclose(found.values, WEIGHT * (x - 0.25), atol=1e-3)
    assert found.error is not None
    assert float(found.error.max()) < 1e-4
    other = attribute(linear, x, 1, batch_size=2).values
    assert torch.allclose(other, -x, atol=1e-5)
    each = torch.tensor([0, 1, 0, 1, 0, 1, 0])
    mixed = attribute(linear, x, each).values
    assert torch.allclose(mixed[each == 1], -x[each == 1], atol=1e-5)


def test_integrated_gradients_account_for_a_curved_function(x: Tensor) -> None:
    found = attribute(lambda x: x.pow(3).flatten(1).sum(1, keepdim=True), x, 0)
    assert torch.allclose(found.values, x.pow(3), atol=1e-4)  # each value's own rise from 0
    assert found.error is not None
    assert float(found.error.max()) < 1e-3


def test_a_sharp_function_shows_its_error(x: Tensor) -> None:
    def sharp(x: Tensor) -> Tensor:
        return torch.sigmoid(400 * (x.flatten(1).mean(1, keepdim=True) - 0.37))

    few = attribute(sharp, x, 0, n_steps=4, most_steps=4).error
    many = attribute(sharp, x, 0, n_steps=4).error  # more where they are needed
    assert few is not None
    assert many is not None
    assert float(few.mean()) > 0.1
    assert float(many.max()) < 0.01


def test_saliency_is_the_absolute_gradient_and_occlusion_what_a_window_takes(x: Tensor) -> None:
    assert torch.allclose(attribute(linear, x, 1, "saliency").values, torch.ones_like(x))
    found = attribute(linear, x, 0, "occlusion", window=1).values
    assert torch.allclose(found, WEIGHT * x, atol=1e-3)


def test_grad_cam_shows_where_the_maps_are_bright() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 2, 3, padding=1, bias=False)
    nn.init.ones_(conv.weight)
    net = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2, bias=False))
    nn.init.ones_(net[-1].weight)  # pyright: ignore
    x = torch.zeros(2, 1, 12, 12)
    x[0, 0, 2, 9], x[1, 0, 8, 1] = 1.0, 1.0
    found = attribute(net, x, 0, "grad_cam", layer=conv).values
    assert found.shape == x.shape
    assert float(found.min()) >= 0
    for i, (row, column) in enumerate([(2, 9), (8, 1)]):
        assert float(found[i, 0, row, column]) == pytest.approx(float(found[i].max()))
        assert float(found[i, 0, row, column]) > 20 * float(found[i].mean().clamp_min(1e-9)) / 2


def test_what_is_missing_is_said(x: Tensor) -> None:
    with pytest.raises(ValueError, match="method is 'magic', expected one of integrated"):
        attribute(linear, x, method="magic")
    with pytest.raises(ValueError, match=r"give a module as the function and layer="):
        attribute(linear, x, method="grad_cam")
    with pytest.raises(ValueError, match="at least 2 draws, got n=1"):
        invariance_map(Split(), x, 1)
    with pytest.raises(ValueError, match="latents of other inputs: got 1"):
        latent_shares(Split(), linear, x[:1])


def test_averages_are_over_draws_of_the_nuisance(x: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    found = averaged(linear, Split(), x, 0, n=400, generator=generator)
    assert torch.allclose(found.values[..., :3], (WEIGHT * x)[..., :3], atol=1e-3)
    assert float(found.values[..., 3:].abs().max()) < 0.12 * float(WEIGHT.max())  # 0 on average
    assert found.error is not None
    assert found.error.shape == (7,)


def test_the_invariance_map_is_the_variance_of_what_is_ignored(x: Tensor) -> None:
    found = invariance_map(Split(), x, 2000, torch.Generator().manual_seed(0))
    assert float(found[..., :3].max()) == 0
    assert torch.allclose(found[..., 3:], torch.full((), 0.25), atol=0.04)


def test_rank_correlation_sees_the_order_only(x: Tensor) -> None:
    assert torch.allclose(rank_correlation(x, x.exp()), torch.ones(7))
    assert torch.allclose(rank_correlation(x, -x), -torch.ones(7))
    assert torch.equal(rank_correlation(x, torch.ones_like(x)), torch.zeros(7))


@pytest.mark.parametrize(("side", "share"), [("left", 0.0), ("right", 1.0)])
def test_a_judge_of_one_half_accounts_to_one_block(x: Tensor, side: str, share: float) -> None:
    def judge(x: Tensor) -> Tensor:
        half = x[..., :3] if side == "left" else x[..., 3:]
        total = half.flatten(1).sum(1) - 4.5
        return torch.stack([total, -total], 1)

    found = latent_shares(Split(), judge, x, generator=torch.Generator().manual_seed(0))
    assert found["nuisance"].value == pytest.approx(share, abs=1e-6)
    assert found["class"].value == pytest.approx(1 - share, abs=1e-6)
    assert found["class"].value + found["nuisance"].value == pytest.approx(1)


def test_a_judge_of_both_halves_divides_them(x: Tensor) -> None:
    def judge(x: Tensor) -> Tensor:
        total = (x * torch.tensor([3.0, 3, 3, 1, 1, 1])).flatten(1).sum(1) - 36
        return torch.stack([total, -total], 1) / 4

    generator = torch.Generator().manual_seed(0)
    found = latent_shares(Split(), judge, x, n_baselines=40, generator=generator)
    assert 0.15 < found["nuisance"].value < 0.35  # a quarter


def test_new_weights_change_the_map_and_not_the_network(x: Tensor) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 30), nn.ReLU(), nn.Linear(30, 3))
    before = [one.clone() for one in net.parameters()]
    other = randomised(net, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    again = randomised(net, seed=1)
    pairs = zip(other.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    own, new = (attribute(one, x, 0).values for one in (net, other))
    assert float(rank_correlation(own, new).abs().mean()) < 0.5


def test_batches_shrink_when_memory_runs_out(caplog: pytest.LogCaptureFixture) -> None:
    sizes = []

    def hungry(rows: Tensor) -> Tensor:
        sizes.append(len(rows))
        if len(rows) > 5:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        return rows

    with caplog.at_level(logging.INFO, "svae"):
        found = in_shrinking_batches(hungry, 23, 16)
    assert torch.equal(found, torch.arange(23))
    assert sizes == [16, 8, 4, 4, 4, 4, 4, 3]
    assert "memory ran out with 16 inputs at once, going on with 8" in caplog.text

    def never(rows: Tensor) -> Tensor:
        raise MemoryError

    def wrong(rows: Tensor) -> Tensor:
        raise RuntimeError("shapes differ")

    with pytest.raises(MemoryError):
        in_shrinking_batches(never, 4)
    with pytest.raises(RuntimeError, match="shapes differ"):
        in_shrinking_batches(wrong, 4)


def test_a_function_without_a_gradient_says_so() -> None:
    def words(x: Tensor) -> Tensor:
        return torch.nn.functional.one_hot((x.flatten(1).sum(1) > 1).long(), 2).float()

    x = torch.rand(3, 1, 8, 8)
    with pytest.raises(ValueError, match=r'no gradient.*method="occlusion"'):
        attribute(words, x)
    assert attribute(words, x, method="occlusion").values.shape == x.shape
