import pytest
import torch
from torch import Tensor

from svae import Factorization, Latent, read, reconstruct, resample_nuisance, swap_nuisance
from svae.factorization import check_protocol, in_batches
from tests.unchecked import as_a_user


class Halves:
    """The first two of five features are the class, the others the nuisance, shifted by 10."""

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        return Latent(x[:, :2], x[:, 2:] - 10)

    def decode(self, latent: Latent) -> Tensor:
        return torch.cat([latent.z_class, latent.z_nuisance + 10], -1)

    def predict(self, x: Tensor) -> Tensor:
        return 3 * x[:, :2]

    def sample_nuisance(
        self, latent: Latent, n: int, generator: torch.Generator | None = None
    ) -> Tensor:
        return torch.randn(n, len(latent.z_class), 3, generator=generator)


class Reader(Halves):
    def read(self, latent: Latent) -> Tensor:
        return -latent.z_class


def test_four_methods_are_a_factorization() -> None:
    assert isinstance(Halves(), Factorization)
    assert not isinstance(torch.nn.Linear(2, 2), Factorization)


def test_read_goes_through_the_input_where_there_is_no_shortcut() -> None:
    latent = Latent(torch.randn(4, 2), torch.randn(4, 3))
    assert torch.equal(read(Halves(), latent), 3 * latent.z_class)
    assert torch.equal(read(Reader(), latent), -latent.z_class)


def test_reconstruct() -> None:
    x = torch.randn(4, 5)
    assert torch.allclose(reconstruct(Halves(), x), x, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 4])
def test_resampling_keeps_the_class_of_each_row(batch: int) -> None:
    x = torch.randn(batch, 5)
    images = resample_nuisance(Halves(), x, n=6)
    assert images.shape == (6, batch, 5)
    assert torch.equal(images[..., :2], x[:, :2].expand(6, batch, 2))
    assert images[..., 2:].flatten(0, 1).unique(dim=0).shape[0] == 6 * batch


def test_resampling_puts_draw_and_row_where_they_belong() -> None:
    x = torch.randn(3, 5)
    expected = Halves().sample_nuisance(Halves().encode(x), 4, torch.Generator().manual_seed(1))
    images = resample_nuisance(Halves(), x, 4, torch.Generator().manual_seed(1))
    assert torch.allclose(images[..., 2:], expected + 10)


def test_resampling_needs_a_draw() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        resample_nuisance(Halves(), torch.zeros(1, 5), n=0)


def test_swapping_takes_the_class_of_the_first() -> None:
    x, other = torch.randn(4, 5), torch.randn(4, 5)
    swapped = swap_nuisance(Halves(), x, other)
    assert torch.equal(swapped[:, :2], x[:, :2])
    assert torch.allclose(swapped[:, 2:], other[:, 2:], atol=1e-5)


def test_swapping_needs_equal_shapes() -> None:
    message = r"same shape, got \(4, 5\) and \(1, 5\).*expand_as"
    with as_a_user(), pytest.raises(ValueError, match=message):
        swap_nuisance(Halves(), torch.zeros(4, 5), torch.zeros(1, 5))


@pytest.mark.parametrize("n", [1, 6, 7])
def test_batches_are_joined_in_order(n: int) -> None:
    x = torch.randn(n, 5, requires_grad=True)
    sizes: list[int] = []

    def squared(part: Tensor) -> Tensor:
        sizes.append(len(part))
        return part.square()

    joined = in_batches(squared, x, batch_size=3)
    assert torch.equal(joined, x.square())
    assert not joined.requires_grad
    assert max(sizes) <= 3
    assert sum(sizes) == n


def test_batches_of_latents_are_joined_by_part() -> None:
    x = torch.randn(7, 5)
    latent = in_batches(Halves().encode, x, batch_size=3)
    assert isinstance(latent, Latent)
    for part, whole in zip(latent, Halves().encode(x), strict=True):
        assert torch.equal(part, whole)


class Ten:
    """The shortest factorization that there is."""

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        return Latent(x[:, :2], x[:, 2:])

    def decode(self, latent: Latent) -> Tensor:
        return torch.cat(latent, 1)

    def predict(self, x: Tensor) -> Tensor:
        return x[:, :2]

    def sample_nuisance(
        self, latent: Latent, n: int, generator: torch.Generator | None = None
    ) -> Tensor:
        return torch.randn(n, *latent.z_nuisance.shape, generator=generator)


@pytest.mark.parametrize(
    ("method", "gives", "kind", "message"),
    [
        ("decode", None, TypeError, "Broken has no decode; a factorization needs encode, decode"),
        ("encode", lambda self, x: x, TypeError, r"Broken\.encode gives a Tensor, expected svae"),
        (
            "encode",
            lambda self, x: Latent(x[:, :2], x[:, :0]),
            ValueError,
            r"z_nuisance of shape \(6, 0\), expected .* nothing to audit",
        ),
        (
            "decode",
            lambda self, latent: latent.z_class,
            ValueError,
            r"Broken\.decode\(latent\) has shape \(6, 2\), expected \(6, 5\)",
        ),
        (
            "sample_nuisance",
            lambda self, latent, n: torch.randn(len(latent.z_class), n, 3),
            ValueError,
            r"sample_nuisance\(latent, 3\) has shape \(6, 3, 3\), expected \(3, 6, 3\)",
        ),
        ("predict", lambda self, x: x[:, :1], ValueError, "one class only"),
    ],
)
def test_what_breaks_the_protocol_is_named(
    method: str, gives: object, kind: type[Exception], message: str
) -> None:
    x = torch.randn(6, 5)
    check_protocol(Ten(), x)
    broken = type("Broken", (Ten,), {method: gives})()
    with pytest.raises(kind, match=message):
        check_protocol(broken, x)
