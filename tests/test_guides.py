import pytest
import torch
from torch import Tensor, nn

from svae import LatentSplit, MeanFieldGuide
from svae.nets import ConvEncoder, MLPEncoder
from tests.plain_pyro import nodes
from tests.unchecked import as_a_user

SPLIT = LatentSplit(2, 3)


@pytest.mark.parametrize(
    ("encoder", "shape"),
    [(MLPEncoder((6,), 4, (5,)), (6,)), (ConvEncoder((1, 8, 9), 4, width=2), (1, 8, 9))],
)
def test_sites(encoder: nn.Module, shape: tuple[int, ...]) -> None:
    trace = nodes(MeanFieldGuide(encoder, SPLIT), torch.rand(5, *shape))
    for name, width in (("z_class", 2), ("style", 3)):
        made = trace[name]["fn"]
        assert (made.batch_shape, made.event_shape) == ((5,), (width,))
        assert trace[name]["value"].shape == (5, width)
        assert trace[name]["value"].requires_grad


def test_columns_are_class_first_and_locs_before_scales() -> None:
    guide = MeanFieldGuide(MLPEncoder((6,), 4, ()), SPLIT, min_scale=0.25)
    x = torch.rand(7, 6)
    raw = guide.parameters_of(guide.encoder(x))
    trace = nodes(guide, x)
    for name, columns in (("z_class", slice(0, 2)), ("style", slice(2, 5))):
        made = trace[name]["fn"]
        assert torch.allclose(made.mean, raw[:, columns])
        scale = nn.functional.softplus(raw[:, 5:][:, columns]) + 0.25
        assert torch.allclose(made.variance.sqrt(), scale, atol=1e-6)


def test_the_label_is_not_read() -> None:
    guide, x = MeanFieldGuide(MLPEncoder((6,), 4, ()), SPLIT), torch.rand(3, 6)
    with_label = nodes(guide, x, torch.tensor([0, 1, 2]))
    without = nodes(guide, x)
    assert set(with_label) == set(without)
    assert torch.equal(with_label["z_class"]["fn"].mean, without["z_class"]["fn"].mean)


def test_densities_are_float32_under_autocast_and_float64_where_x_is() -> None:
    guide = MeanFieldGuide(MLPEncoder((6,), 4, ()), SPLIT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trace = nodes(guide, torch.rand(3, 6))
    assert trace["style"]["fn"].mean.dtype == torch.float32
    trace = nodes(guide.double(), torch.rand(3, 6, dtype=torch.float64))
    assert trace["style"]["fn"].mean.dtype == torch.float64


@pytest.mark.parametrize("width", [None, 4.0])
def test_an_encoder_says_its_width(width: float | None) -> None:
    class Encoder(nn.Module):
        n_features = width

        def forward(self, x: Tensor) -> Tensor:
            return x

    with as_a_user(), pytest.raises(TypeError, match=r"integer attribute n_features, .* got"):
        MeanFieldGuide(Encoder(), SPLIT)
