import pytest
import torch
from torch import nn

from svae.nets import (
    MLP,
    ConvDecoder,
    ConvEncoder,
    MapEncoder,
    MLPDecoder,
    MLPEncoder,
    gain_and_shape,
    product_logit,
)

SHAPES = [
    (1, 8, 8),
    (3, 9, 9),
    (1, 8, 13),
    (1, 17, 8),
    (1, 28, 28),
    (3, 32, 32),
    (2, 31, 45),
    (1, 64, 64),
    (1, 127, 128),
    (3, 128, 128),
    (1, 8, 128),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_images_of_every_size(shape: tuple[int, int, int]) -> None:
    encoder, decoder = ConvEncoder(shape, 7, width=2), ConvDecoder(shape, 5, 6, width=2)
    assert encoder(torch.rand(2, *shape)).shape == (2, 7)
    assert decoder(torch.randn(2, 5)).shape == (2, *shape)
    assert encoder.n_features == 7


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 9, 12)])
@pytest.mark.parametrize("kind", ["conv", "gain", "mlp"])
def test_leading_dims_are_a_batch(shape: tuple[int, int, int], kind: str) -> None:
    networks = {
        "conv": lambda: (ConvEncoder(shape, 7, width=2), ConvDecoder(shape, 5, 6, width=2)),
        "gain": lambda: (
            ConvEncoder(shape, 7, width=2, gain=True),
            ConvDecoder(shape, 5, 6, width=2, gain=True),
        ),
        "mlp": lambda: (MLPEncoder(shape, 7, (6,)), MLPDecoder(shape, 5, (6,))),
    }
    encoder, decoder = networks[kind]()
    encoder.eval()
    decoder.eval()
    x, z = torch.rand(2, 3, *shape), torch.randn(2, 3, 5)
    assert encoder(x).shape == (2, 3, 7)
    assert decoder(z).shape == (2, 3, *shape)
    for i in range(2):
        for j in range(3):
            assert torch.allclose(encoder(x[i, j]), encoder(x)[i, j], atol=1e-6)
            assert torch.allclose(decoder(z[i, j]), decoder(z)[i, j], atol=1e-6)


@pytest.mark.parametrize("shape", [(5,), (1, 8, 8)])
def test_perceptrons_take_any_shape(shape: tuple[int, ...]) -> None:
    assert MLPEncoder(shape, 7, hidden=())(torch.rand(3, *shape)).shape == (3, 7)
    assert MLPDecoder(shape, 2, hidden=(4, 4))(torch.rand(3, 2)).shape == (3, *shape)


@pytest.mark.parametrize("shape", [(1, 9, 12), (1, 16, 16)])
def test_every_pixel_and_every_weight_counts(shape: tuple[int, int, int]) -> None:
    encoder, decoder = ConvEncoder(shape, 7, width=4), ConvDecoder(shape, 5, 6, width=4)
    x = torch.rand(8, *shape, requires_grad=True)
    encoder(x).square().sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().amax(0) > 0).all()
    decoder(torch.randn(8, 5)).square().sum().backward()
    for parameter in [*encoder.parameters(), *decoder.parameters()]:
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_dropout_only_while_training() -> None:
    encoder, x = ConvEncoder((1, 8, 8), 16, width=4, dropout=0.5), torch.rand(4, 1, 8, 8)
    assert not torch.equal(encoder(x), encoder(x))
    encoder.eval()
    assert torch.equal(encoder(x), encoder(x))


@pytest.mark.parametrize("network", [ConvEncoder, lambda shape: ConvDecoder(shape, 4)])
@pytest.mark.parametrize("shape", [(1, 7, 8), (1, 8, 129), (28, 28), (0, 8, 8), (1, 1, 8, 8)])
def test_other_sizes_are_refused(network: type[nn.Module], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"from 8 to 128, got .*MLPEncoder and MLPDecoder"):
        network(shape)


@pytest.mark.parametrize("sizes", [[], [3], [3, 0]])
def test_perceptron_needs_widths(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="two or more widths of at least 1"):
        MLP(sizes)


def test_perceptron_is_linear_without_hidden_layers() -> None:
    net, x = MLP([3, 2]), torch.randn(4, 3)
    assert torch.allclose(net(2 * x) - net(x), net(x) - net(0 * x), atol=1e-6)
    assert sum(isinstance(layer, nn.SiLU) for layer in MLP([3, 4, 5, 2])) == 2


MAPS = [(1, 1, 1), (3, 1, 7), (64, 8, 8), (2, 5, 3), (3, 33, 9), (5, 4, 4)]


@pytest.mark.parametrize("shape", MAPS, ids=str)
def test_maps_of_every_size(shape: tuple[int, int, int]) -> None:
    encoder = MapEncoder(shape, 7, width=4)
    x = torch.randn(2, 3, *shape, requires_grad=True)
    found = encoder(x)
    assert found.shape == (2, 3, 7)
    assert encoder.n_features == 7
    assert torch.allclose(encoder(x[1, 2]), found[1, 2], atol=1e-6)
    assert torch.allclose(encoder.eval()(x), found, atol=1e-6)
    found.square().sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().amax((0, 1)) > 0).all()
    others = torch.tensor([True, False])
    moved = x.detach().clone()
    moved[1] += 1
    changed = (encoder(moved) - found).abs().amax((1, 2)) > 1e-6
    assert torch.equal(changed, ~others)
    # Normalised maps still show how strong they are.
    assert not torch.allclose(encoder(10 * x), found, atol=1e-2)


@pytest.mark.parametrize("arguments", [((3, 4), 7, 4), ((1, 0, 3), 7, 4), ((1, 2, 2), 7, 1)])
def test_map_encoders_of_other_sizes_are_refused(
    arguments: tuple[tuple[int, ...], int, int],
) -> None:
    with pytest.raises(ValueError, match=r"at least 1.*MLPEncoder for vectors"):
        MapEncoder(*arguments)
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\), got \(2, 4, 3\)"):
        MapEncoder((2, 3, 4))(torch.zeros(1, 2, 4, 3))


def test_gain_and_shape_multiply_to_the_picture() -> None:
    x = torch.rand(4, 3, 8, 8) * torch.rand(4, 3, 1, 1)
    x[0, 1] = 0.0  # a black channel stays black
    gain, shape = gain_and_shape(x)
    assert torch.allclose(shape * gain.clamp(min=0.05)[..., None, None], x)
    assert torch.allclose(shape.amax((-2, -1))[gain > 0.05], torch.ones(()))
    assert not shape[0, 1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_logit_of_a_product_is_that_of_its_factors(dtype: torch.dtype) -> None:
    a, b = 4 * torch.randn(5, 2, 8, 8, dtype=dtype), 4 * torch.randn(5, 2, dtype=dtype)
    found = product_logit(a, b)
    assert torch.allclose(found.sigmoid(), a.sigmoid() * b.sigmoid()[..., None, None], atol=2e-6)
    extreme = torch.full((1, 1, 8, 8), 60.0, dtype=dtype, requires_grad=True)
    for sign in (1, -1):
        logit = product_logit(sign * extreme, sign * extreme[:, :, 0, 0])
        assert logit.isfinite().all()
        (gradient,) = torch.autograd.grad(logit.sum(), extreme)
        assert gradient.isfinite().all()


def test_shapes_are_read_whatever_their_colour() -> None:
    shape = torch.rand(1, 1, 8, 8)
    shape /= shape.max()
    colours = torch.tensor([[0.2, 0.5, 1.0], [1.0, 0.3, 0.1]])
    x = shape * colours[:, :, None, None]
    plain, split = (ConvEncoder((3, 8, 8), 7, width=2, gain=gain).eval() for gain in (False, True))
    assert split.gain is not None
    rest = split(x) - split.gain(colours)
    assert torch.allclose(rest[0], rest[1], atol=1e-6)
    assert not torch.allclose(*plain(x), atol=1e-6)


def test_a_dark_latent_is_dark_whatever_its_shape() -> None:
    decoder = ConvDecoder((3, 8, 8), 4, width=2, gain=True)
    assert decoder.gain is not None
    last = decoder.gain[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([-20.0, 0.0, 20.0]))
        pictures = decoder(torch.randn(2, 4)).sigmoid()
    assert pictures[:, 0].max() < 1e-6
    assert pictures[:, 1].max() <= 0.5
    assert pictures[:, 2].max() > 0.3
