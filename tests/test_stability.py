import pytest
import torch
from torch import Tensor

from svae.latent import Latent
from svae.stability import recurrences


class Rows:
    """Five numbers, the first two of the class; how far the third moves is up to the fit."""

    def __init__(self, reach: float) -> None:
        self.reach = reach

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        return Latent(x[:, :2], x[:, 2:] / torch.tensor([self.reach, 1.0, 1.0]))

    def decode(self, latent: Latent) -> Tensor:
        scale = torch.tensor([self.reach, 1.0, 1.0])
        return torch.cat([latent.z_class, latent.z_nuisance * scale], 1)

    def predict(self, x: Tensor) -> Tensor:
        return x[:, :2]

    def sample_nuisance(
        self, latent: Latent, n: int, generator: torch.Generator | None = None
    ) -> Tensor:
        return torch.randn(n, len(latent.z_class), 3, generator=generator)


def test_what_all_fits_find_recurs_and_what_one_finds_does_not() -> None:
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    found = {one.name: one for one in recurrences([Rows(r) for r in (1.0, 0.9, 0.1)], x)}
    assert found["feature 3"].stable
    assert found["feature 3"].ignored_in == found["feature 3"].named_in == 3
    assert found["feature 3"].free.value == pytest.approx(1, abs=0.1)
    assert not found["feature 2"].stable
    assert found["feature 2"].ignored_in == 2
    assert found["feature 2"].free.low < found["feature 2"].values[2] < 0.02
    assert found["feature 0"].stable
    assert found["feature 0"].ignored_in == found["feature 0"].named_in == 0
    assert next(iter(found)) in ("feature 3", "feature 4")
    with pytest.raises(ValueError, match="at least 2 fits, got 1"):
        recurrences([Rows(1.0)], x)
