import pytest
import torch
from torch import nn

import svae
from svae.bridges import Autoencoder, Frozen, ImageDecoder, Perceptual, Reconstruction


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 10))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 9)])
@pytest.mark.parametrize("representation", [(5,), (2, 4, 3)])
def test_a_decoder_gives_pictures_of_any_representation(
    shape: tuple[int, ...], representation: tuple[int, ...]
) -> None:
    decoder = ImageDecoder(shape, representation, width=8).eval()
    pictures = decoder(100 * torch.randn(3, *representation))
    assert pictures.shape == (3, *shape)
    assert 0 <= float(pictures.detach().min()) <= float(pictures.detach().max()) <= 1


def test_a_decoder_does_not_mind_the_scale_of_a_unit() -> None:
    decoder = ImageDecoder((1, 8, 8), (5,), width=8).eval()
    scale = torch.tensor([1e-3, 1.0, 1e3, 7.0, 0.0])
    plain = torch.randn(400, 5)
    plain[:, 4] = 2.0
    decoder.standardise(plain)
    first = decoder(plain[:4])
    moved = plain * scale + torch.arange(5)
    decoder.standardise(moved)
    assert torch.allclose(decoder(moved[:4])[..., :4], first[..., :4], atol=2e-2)


def test_vectors_are_decoded_too() -> None:
    assert ImageDecoder((7,), (5,))(torch.randn(3, 5)).shape == (3, 7)


def test_the_loss_is_the_cross_entropy_of_the_pixels() -> None:
    autoencoder = Autoencoder((1, 8, 8), n_code=4, width=8, noise=0.0).eval()
    x = torch.rand(6, 1, 8, 8)
    p = autoencoder.decode(autoencoder.encode(x))
    wanted = -(x * p.log() + (1 - x) * (1 - p).log()).mean()
    loss, found = autoencoder.loss(x)
    assert torch.allclose(loss, wanted, atol=1e-5)
    assert torch.allclose(found["absolute_error"], (p - x).abs().mean(), atol=1e-6)


def test_noise_is_added_while_training_only() -> None:
    autoencoder = Autoencoder((1, 8, 8), n_code=4, width=8, noise=1.0)
    x = torch.rand(6, 1, 8, 8)
    assert not torch.equal(autoencoder.redrawn(x), autoencoder.redrawn(x))
    autoencoder.eval()
    assert torch.equal(autoencoder.redrawn(x), autoencoder.redrawn(x))


def test_the_code_is_about_standardised() -> None:
    code = Autoencoder((1, 8, 8), n_code=4, width=8).encode(torch.rand(200, 1, 8, 8))
    assert torch.allclose(code.mean(0), torch.zeros(4), atol=1e-4)
    assert torch.allclose(code.std(0), torch.ones(4), atol=2e-2)


def test_the_shape_is_linear_in_the_code_and_the_brightness_its_limit() -> None:
    autoencoder = Autoencoder((3, 8, 8), n_code=4, width=8).eval()
    for weight in autoencoder.decoder.parameters():  # leaves the linear map alone
        weight.data.zero_()
    nn.init.normal_(autoencoder.linear_decoder.weight, std=0.5)
    nn.init.normal_(list(autoencoder.brightest.parameters())[-2], std=3.0)
    code = torch.randn(5, 4)
    shape = autoencoder.linear_decoder(code).sigmoid().unflatten(1, (3, 8, 8))
    most = autoencoder.brightest(code).sigmoid()[:, :, None, None]
    assert torch.allclose(autoencoder.decode(code), shape * most, atol=1e-6)
    far = 1e3 * torch.ones(1, 4)  # pixels of 0 and 1 in single precision
    assert bool(autoencoder.logits(far).isfinite().all())


def test_the_code_knows_the_picture_and_its_brightest_values() -> None:
    autoencoder = Autoencoder((3, 8, 8), n_code=4, width=8, noise=0.0).eval()
    autoencoder.code.weight.data.zero_()
    autoencoder.code.bias.data.zero_()
    x = torch.rand(5, 3, 8, 8)
    most = x.amax((2, 3))
    flat = (x / most[:, :, None, None]).flatten(1) @ autoencoder.shape_code.weight.T
    wanted = flat + most @ autoencoder.gain_code.weight.T
    assert torch.allclose(autoencoder.encode(x), wanted, atol=1e-5)
    nn.init.normal_(autoencoder.code.weight)
    gain = torch.tensor([0.9, 0.5, 0.2])  # another colour is another brightness, and nothing else
    change = autoencoder.encode(x * gain[:, None, None]) - autoencoder.encode(x)
    wanted = (most * gain - most) @ autoencoder.gain_code.weight.T
    assert torch.allclose(change, wanted, atol=1e-4)
    assert bool(autoencoder.encode(torch.zeros(1, 3, 8, 8)).isfinite().all())


def test_the_pixels_start_at_their_mean() -> None:
    autoencoder, data = Autoencoder((1, 8, 8), n_code=4, width=8), svae.data.Digits()
    autoencoder.start(data.train)
    for weight in list(autoencoder.decoder.convolutions.parameters())[-2:]:
        weight.data.zero_()
    shown = autoencoder.eval().decode(torch.zeros(1, 4)).detach()
    assert torch.allclose(shown[0], data.train.floats().mean(0), atol=5e-3)


def test_a_perceptual_loss_compares_what_the_network_sees() -> None:
    frozen = Frozen(network(), "1", x_shape=(1, 8, 8))
    autoencoder = Autoencoder((1, 8, 8), n_code=4, width=8, noise=0.0).eval()
    data = svae.data.Digits()
    x = data.test.floats(limit=20)
    seen = frozen.representation(data.train.floats())
    variance = seen.var((0, 2, 3)).view(6, 1, 1)
    perceptual = Perceptual(autoencoder, frozen, weight=0.5)
    perceptual.start(data.train)
    redrawn = frozen.representation(autoencoder.redrawn(x).sigmoid())
    wanted = ((redrawn - frozen.representation(x)).square() / variance).mean()
    loss, found = perceptual.loss(x)
    assert torch.allclose(found["perceptual"], wanted, rtol=1e-3)
    assert torch.allclose(loss, autoencoder.loss(x)[0] + 0.5 * wanted, rtol=1e-3)


@pytest.mark.parametrize("kind", ["autoencoder", "reconstruction"])
def test_fitting_lowers_both_terms_and_leaves_the_network(kind: str) -> None:
    frozen, data = Frozen(network(), "1", x_shape=(1, 8, 8)), svae.data.Digits()
    trained = (
        Autoencoder((1, 8, 8), n_code=8, width=8)
        if kind == "autoencoder"
        else Reconstruction(frozen, width=8)
    )
    perceptual = Perceptual(trained, frozen)
    x, before = data.test.floats(limit=50), frozen.fingerprint
    perceptual.start(data.train)
    first = perceptual.eval().loss(x)[1]
    svae.fit(perceptual, data, max_epochs=4, enable_progress_bar=False)
    last = perceptual.loss(x)[1]
    assert float(last["absolute_error"]) < 0.8 * float(first["absolute_error"])
    assert float(last["perceptual"]) < float(first["perceptual"])
    assert frozen.fingerprint == before


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="n_code must be >= 1"):
        Autoencoder((1, 8, 8), n_code=0)
    with pytest.raises(ValueError, match="weight must be at least 0"):
        Perceptual(Autoencoder((1, 8, 8)), Frozen(network(), "1"), weight=-1.0)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_settled_code_is_standardised_whatever_training_left(wrapped: bool) -> None:
    autoencoder, data = Autoencoder((1, 8, 8), n_code=4, width=8), svae.data.Digits()
    assert autoencoder.norm.running_mean is not None
    autoencoder.norm.running_mean += 100.0
    frozen = Frozen(network(), "1", x_shape=(1, 8, 8))
    model = Perceptual(autoencoder, frozen) if wrapped else autoencoder
    model.settle(data.train)
    code = autoencoder.eval().encode(data.train.floats())
    assert torch.allclose(code.mean(0), torch.zeros(4), atol=1e-2)
    assert torch.allclose(code.std(0), torch.ones(4), atol=1e-2)
