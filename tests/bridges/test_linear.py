import pytest
import torch

import svae
from svae.bridges import Autoencoder, PrincipalAutoencoder
from svae.training import Recipe


def coloured() -> svae.data.ArrayData:
    return svae.data.ColouredDigits(svae.data.Digits(), "uniform")


def test_a_new_one_is_the_projection_on_the_components() -> None:
    data = coloured()
    autoencoder = PrincipalAutoencoder(data.x_shape, 12, width=8, noise=0.0).eval()
    autoencoder.start(data.train)
    autoencoder.settle(data.train)
    x = data.train.floats().flatten(1)
    code = autoencoder.encode(data.train.floats())
    assert torch.allclose(code.T @ code / len(x), torch.eye(12), atol=2e-3)
    mean = x.mean(0)
    axes = torch.linalg.svd((x - mean).double(), full_matrices=False).Vh[:12].float()
    projected = (mean + (x - mean) @ axes.T @ axes).clamp(0, 1)
    assert torch.allclose(autoencoder.decode(code).flatten(1), projected, atol=2e-3)


def test_a_noisy_code_is_answered_by_what_misses_least() -> None:
    torch.manual_seed(0)
    data = coloured()
    autoencoder = PrincipalAutoencoder(data.x_shape, 12, width=8, noise=1.0)
    autoencoder.start(data.train)
    autoencoder.settle(data.train)
    x = data.train.floats()
    code = autoencoder.eval().encode(x)
    code = torch.cat([code + torch.randn_like(code) for _ in range(20)])
    design = torch.cat([code, torch.ones(len(code), 1)], 1)
    best = torch.linalg.lstsq(design, x.flatten(1).repeat(20, 1)).solution
    missed = (autoencoder.linear_decoder(code) - x.flatten(1).repeat(20, 1)).square().sum()
    least = (design @ best - x.flatten(1).repeat(20, 1)).square().sum()
    assert float(missed.detach()) < 1.002 * float(least.detach())


def test_the_loss_is_the_share_of_the_variance_that_is_missed() -> None:
    data = coloured()
    autoencoder = PrincipalAutoencoder(data.x_shape, 12, width=8, noise=0.0).eval()
    autoencoder.start(data.train)
    autoencoder.settle(data.train)
    x = data.train.floats()
    spread = torch.linalg.svdvals((x.flatten(1) - x.flatten(1).mean(0)).double()).square()
    with torch.no_grad():
        loss, found = autoencoder.loss(x)
    assert float(loss) == pytest.approx(float(spread[12:].sum() / spread.sum()), rel=2e-3)
    shown = autoencoder.decode(autoencoder.encode(x)).detach()
    assert 0 <= float(shown.min()) <= float(shown.max()) <= 1
    error = (shown - x).abs().mean().detach()
    assert float(found["absolute_error"]) == pytest.approx(float(error))


def test_networks_add_to_the_components_which_stay() -> None:
    data = coloured()
    autoencoder = PrincipalAutoencoder(data.x_shape, 12, width=8)
    autoencoder.start(data.train)
    autoencoder.settle(data.train)
    x = data.test.floats()
    first = autoencoder.eval().loss(x)[1]["loss"]
    before = autoencoder.linear_decoder.weight
    spanned = before @ torch.linalg.pinv(before)
    recipe = Recipe(learning_rate=5e-3)
    svae.fit(autoencoder, data, recipe=recipe, max_epochs=10, enable_progress_bar=False)
    after = autoencoder.linear_decoder.weight
    assert torch.allclose(after @ torch.linalg.pinv(after), spanned, atol=1e-3)
    assert float(autoencoder.loss(x)[1]["loss"]) < 0.8 * float(first)


def test_it_misses_less_than_a_short_training_from_nothing() -> None:
    data = coloured()
    principal, plain = (
        kind(data.x_shape, 24, width=8) for kind in (PrincipalAutoencoder, Autoencoder)
    )
    for one in (principal, plain):
        svae.fit(one, data, max_epochs=1, enable_progress_bar=False)
    x = data.test.floats()
    errors = [float(one.loss(x)[1]["absolute_error"]) for one in (principal, plain)]
    assert errors[0] < 0.5 * errors[1]


def test_components_need_more_examples_than_dims() -> None:
    data = svae.data.Digits()
    few = svae.data.as_data((data.train.floats(limit=20), data.train.marked[:20]))
    with pytest.raises(ValueError, match=r"20 principal components need more .* got 1\d of 64"):
        PrincipalAutoencoder((1, 8, 8), 20, width=8).start(few.train)
    with pytest.raises(ValueError, match=r"as many values in each, got .* of 64"):
        PrincipalAutoencoder((1, 8, 8), 65, width=8).start(data.train)
