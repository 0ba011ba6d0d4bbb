"""How different pictures look, against the formula and against what is plain to see."""

import pytest
import torch
from torch import nn

import svae
from svae.metrics import structural_distance
from svae.metrics.flips import flips
from tests.unchecked import as_a_user


@pytest.mark.parametrize("side", [5, 8, 28])
def test_flat_pictures_differ_by_their_brightness(side: int) -> None:
    a, b = torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0.2, 0.7, 0.1])
    flat = [v.view(3, 1, 1, 1).expand(3, 2, side, side) for v in (a, b)]
    wanted = 1 - (2 * a * b + 1e-4) / (a.square() + b.square() + 1e-4)
    assert torch.allclose(structural_distance(*flat), wanted, atol=2e-4)


def test_what_breaks_a_pattern_looks_more_different_than_what_dims_it() -> None:
    x = svae.data.Digits().test.floats(limit=50)
    dimmed, shuffled = 0.9 * x, x.flatten(2)[..., torch.randperm(64)].view_as(x)
    assert float(structural_distance(x, x).abs().max()) < 1e-5
    assert torch.allclose(structural_distance(x, shuffled), structural_distance(shuffled, x))
    assert bool((structural_distance(x, shuffled) > 2 * structural_distance(x, dimmed)).all())


def test_other_shapes_are_refused() -> None:
    x = torch.rand(2, 1, 8, 8)
    with as_a_user():
        for other in (torch.rand(2, 1, 8, 9), torch.rand(2, 8)):
            with pytest.raises(ValueError, match=r"two batches of pictures.*got \(2, 1, 8, 8\)"):
                structural_distance(x, other)
    with pytest.raises(ValueError, match="3 pixels or more each way"):
        structural_distance(x[..., :2], x[..., :2])


def test_an_audit_tells_how_different_draws_look() -> None:
    class Shifted(nn.Module):
        """Pictures whose nuisance is a shift to the right."""

        def encode(self, x: torch.Tensor, sample: bool = False) -> svae.Latent:
            return svae.Latent(x.flatten(1), torch.zeros(len(x), 1))

        def decode(self, latent: svae.Latent) -> torch.Tensor:
            pictures = latent.z_class.view(-1, 1, 8, 8)
            moves = latent.z_nuisance[:, 0].round().int().tolist()
            return torch.stack([p.roll(k, -1) for p, k in zip(pictures, moves, strict=True)])

        def predict(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(2).mean(2).expand(-1, 2)

        def sample_nuisance(
            self, latent: svae.Latent, n: int, generator: torch.Generator | None = None
        ) -> torch.Tensor:
            return torch.full((n, len(latent.z_class), 1), 4.0)

    x = svae.data.Digits().test.floats(limit=100)
    found = flips(Shifted(), x, 1, perceptual=structural_distance)
    assert found.looks is not None
    among = structural_distance(x, x.roll(1, 0)).mean()
    wanted = structural_distance(x, x.roll(4, -1)) / among
    assert torch.allclose(found.looks[0], wanted, atol=2e-4)
    assert flips(Shifted(), x, 1).looks is None


@pytest.mark.data
def test_learned_distances_see_what_pixels_do_not() -> None:
    from experiments.networks import lpips

    x = svae.data.CIFAR10().test.floats(limit=8)
    distance = lpips()
    shifted, noise = (
        x.roll(1, -1),
        torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
    )
    size = (shifted - x).flatten(1).square().mean(1).sqrt().view(-1, 1, 1, 1)
    assert float(distance(x, x).abs().max()) < 1e-6
    # Noise that is as far away in pixels looks far more different than one pixel to the right.
    assert bool((distance(x, x + size * noise) > 2 * distance(x, shifted)).all())
    assert distance(x[:, :1], x.flip(0)[:, :1]).shape == (8,)
