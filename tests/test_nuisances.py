import colorsys

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import svae
from svae.data.morphed import morph
from svae.latent import Latent
from svae.metrics.estimate import Estimate
from svae.nuisances import (
    free_shares,
    leading_directions,
    name_nuisances,
    sentence,
)
from svae.sketches.looks import measures_for

FACTORS = ("rotation", "position across", "position upright", "brightness", "hue", "saturation")


class Drawn:
    """Digits whose grey picture is the class, and whose nuisance is what they are drawn with."""

    def __init__(self, varied: tuple[str, ...] = FACTORS) -> None:
        grey = svae.data.Digits().test.floats(limit=60)
        self.grey = functional.pad(functional.interpolate(grey, scale_factor=2), [6] * 4)
        self.varied = varied

    @property
    def x(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(len(self.grey), len(self.varied), generator=generator)
        return self.decode(Latent(torch.arange(len(self.grey))[:, None].float(), z))

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        generator = torch.Generator().manual_seed(1)
        z = torch.randn(len(x), len(self.varied), generator=generator)
        return Latent(torch.arange(len(x))[:, None].float(), z)

    def decode(self, latent: Latent) -> Tensor:
        z = dict(zip(self.varied, latent.z_nuisance.T, strict=True))
        zero = torch.zeros(len(latent.z_class))
        z = {name: z.get(name, zero) for name in FACTORS}
        colours = torch.tensor(
            [
                colorsys.hsv_to_rgb((0.1 * float(h)) % 1, float(torch.sigmoid(s)), 1.0)
                for h, s in zip(z["hue"], z["saturation"], strict=True)
            ]
        )
        factors = torch.stack(
            [
                12 * z["rotation"],
                0.8 * z["position across"],
                0.8 * z["position upright"],
                (0.6 * (0.2 * z["brightness"]).exp()).clamp(max=1),
            ],
            1,
        )
        rows = latent.z_class[:, 0].long()
        return morph(self.grey[rows], torch.cat([factors, colours], 1))

    def predict(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10]

    def sample_nuisance(
        self, latent: Latent, n: int, generator: torch.Generator | None = None
    ) -> Tensor:
        return torch.randn(n, len(latent.z_class), len(self.varied), generator=generator)


class Noisy(Drawn):
    """The same pictures with patterns of noise as their nuisance: nothing that has a name."""

    def decode(self, latent: Latent) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        n = latent.z_nuisance.shape[1]
        patterns = torch.randn(n, 3, *self.grey.shape[2:], generator=generator)
        plain = Latent(latent.z_class, torch.zeros_like(latent.z_nuisance))
        noise = torch.einsum("bn,nchw->bchw", latent.z_nuisance, patterns)
        return (super().decode(plain) + 0.1 * noise).clamp(0, 1)


@pytest.fixture(scope="module")
def names() -> svae.nuisances.Names:
    drawn = Drawn()
    return name_nuisances(drawn, drawn.x, generator=torch.Generator().manual_seed(0))


def test_every_factor_of_morphed_digits_has_its_name(names: svae.nuisances.Names) -> None:
    assert tuple(one.name for one in names.directions) == FACTORS
    assert min(one.share for one in names.directions) > 0.8
    assert [one.label for one in names.directions] == [f"dim {i}" for i in range(6)]


def test_noise_has_no_name() -> None:
    noisy = Noisy()
    found = name_nuisances(noisy, noisy.x, n_images=16, generator=torch.Generator().manual_seed(0))
    assert {one.name for one in found.directions} == {"unnamed"}
    assert max(one.share for one in found.directions) == 0


def test_a_dim_that_does_nothing_is_said_to() -> None:
    drawn = Drawn(("rotation", "none"))
    found = name_nuisances(drawn, drawn.x, n_images=12, generator=torch.Generator().manual_seed(0))
    assert [one.name for one in found.directions] == ["rotation", "nothing"]


def test_what_varies_is_ignored_and_what_stays_is_read(names: svae.nuisances.Names) -> None:
    shares = names.free
    assert min(shares[name].value for name in ("position across", "hue", "saturation")) > 0.5
    assert shares["thickness"].value < 0.4
    words = names.sentence
    assert words.startswith("ignores ")
    assert "hue (" in words.split(";")[0]
    assert "thickness (" in words.split("still reads")[1]
    flat = names.flat()
    assert flat["dim_0.name"] == "rotation"
    assert flat["sentence"] == words
    assert flat["free.hue_low"] < flat["free.hue"] < flat["free.hue_high"]  # pyright: ignore


def test_free_shares_are_the_ratio_of_variances() -> None:
    drawn = Drawn(("brightness",))
    x = drawn.x
    measure = measures_for(x.shape[1:])["brightness"]
    generator = torch.Generator().manual_seed(0)
    found = free_shares(drawn, x, {"brightness": measure}, 400, generator=generator)
    again = measure(drawn.decode(drawn.encode(x))).var()
    generator = torch.Generator().manual_seed(1)
    draws = svae.resample_nuisance(drawn, x, 400, generator).flatten(0, 1)
    wanted = measure(draws).unflatten(0, (400, len(x))).var(0).mean() / again
    assert found["brightness"].value == pytest.approx(float(wanted), rel=0.05)


def test_a_reader_names_what_no_operator_does() -> None:
    noisy = Noisy()
    generator = torch.Generator().manual_seed(2)
    pattern = torch.randn(6, 3, *noisy.grey.shape[2:], generator=generator)[2]
    readers = {"speckle": lambda x: (x * pattern).sum((1, 2, 3))[:, None]}
    found = name_nuisances(
        noisy, noisy.x, readers, n_images=12, generator=torch.Generator().manual_seed(0)
    )
    assert [one.name for one in found.directions].index("speckle") == 2
    assert sum(one.name == "speckle" for one in found.directions) == 1


def test_directions_are_those_that_change_pictures_most() -> None:
    class Mixed(Drawn):
        def decode(self, latent: Latent) -> Tensor:
            turned = latent.z_nuisance.clone()
            turned[:, 0] = (latent.z_nuisance[:, 0] + latent.z_nuisance[:, 1]) / 2**0.5
            turned[:, 1] = 0.1 * (latent.z_nuisance[:, 0] - latent.z_nuisance[:, 1]) / 2**0.5
            return super().decode(Latent(latent.z_class, turned))

    mixed = Mixed(("rotation", "position across"))
    generator = torch.Generator().manual_seed(0)
    found = leading_directions(mixed, mixed.x, 1, generator=generator)
    assert float((found[0] @ torch.tensor([1.0, 1.0])).abs() / 2**0.5) > 0.98
    names = name_nuisances(mixed, mixed.x, directions=found, n_images=12, generator=generator)
    assert [(one.label, one.name) for one in names.directions] == [("direction 0", "rotation")]
    with pytest.raises(ValueError, match="2 nuisance dims, so 1 to 2 directions, got 3"):
        leading_directions(mixed, mixed.x, 3)


def test_columns_name_the_nuisance_of_rows() -> None:
    class Rows:
        def encode(self, x: Tensor, sample: bool = False) -> Latent:
            return Latent(x[:, :1], x[:, 1:])

        def decode(self, latent: Latent) -> Tensor:
            return torch.cat([latent.z_class, latent.z_nuisance], 1)

        def predict(self, x: Tensor) -> Tensor:
            return x[:, :2]

        def sample_nuisance(
            self, latent: Latent, n: int, generator: torch.Generator | None = None
        ) -> Tensor:
            return torch.randn(n, len(latent.z_class), 2, generator=generator)

    x = torch.randn(80, 3, generator=torch.Generator().manual_seed(0))
    found = name_nuisances(Rows(), x)
    assert [one.name for one in found.directions] == ["feature 1", "feature 2"]
    assert found.sentence.startswith("ignores feature ")
    assert found.sentence.endswith("still reads feature 0 (1.00)")


def test_sentences_say_when_there_is_nothing() -> None:
    assert sentence({}) == "ignores nothing that was measured"
    assert sentence({"size": Estimate(0.1, 0.0, 0.2)}).endswith("still reads size (0.90)")


def test_too_few_inputs_are_refused() -> None:
    drawn = Drawn()
    with pytest.raises(ValueError, match="at least 2 inputs to walk from, got 1"):
        name_nuisances(drawn, drawn.x[:1])
    with pytest.raises(ValueError, match="at least 2 draws of 2 inputs, got 1 of"):
        free_shares(drawn, drawn.x, {}, n=1)
