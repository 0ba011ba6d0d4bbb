import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from svae import Latent, editing, factorization
from tests.test_factorization import Halves
from tests.unchecked import as_a_user


class Three(Halves):
    """Three parts of one feature each, a fourth that is left over, and a curved representation."""

    parts = ("a", "b", "rest")

    def part(self, latent: Latent, name: str) -> Tensor:
        whole = torch.cat(list(latent), -1)
        return {"a": whole[:, :1], "b": whole[:, 1:2], "rest": whole[:, 2:]}[name]

    def with_part(self, latent: Latent, name: str, value: Tensor) -> Latent:
        pieces = {each: self.part(latent, each) for each in self.parts} | {name: value}
        whole = torch.cat(list(pieces.values()), -1)
        return Latent(whole[:, :2], whole[:, 2:])

    def sample_part(
        self, latent: Latent, name: str, n: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        shape = self.part(latent, name).shape
        return 100 + torch.rand(n, *shape, generator=generator)

    def step_part(
        self, latent: Latent, name: str, keep: float, generator: torch.Generator | None = None
    ) -> Latent:
        return self.with_part(latent, name, self.part(latent, name) + 1)

    def to_representation(self, latent: Latent) -> Tensor:
        return self.decode(latent).sinh()

    def to_latent(self, representation: Tensor) -> Latent:
        return self.encode(representation.asinh())


FAMILIES: dict[str, Callable[[], Halves]] = {"two parts": Halves, "named parts": Three}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Halves:
    return FAMILIES[request.param]()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 5)


@pytest.fixture
def other() -> Tensor:
    return torch.randn(4, 5)


def columns(name: str) -> slice:
    """The features of x that a part holds."""
    return {
        "class": slice(0, 2),
        "nuisance": slice(2, 5),
        "a": slice(0, 1),
        "b": slice(1, 2),
        "rest": slice(2, 5),
    }[name]


def kept(name: str) -> list[int]:
    return [i for i in range(5) if i not in range(5)[columns(name)]]


def test_parts_are_read_and_replaced(family: Halves, x: Tensor) -> None:
    latent = family.encode(x)
    for name in factorization.parts(family):
        value = factorization.part(family, latent, name)
        moved = factorization.with_part(family, latent, name, value + 1)
        assert torch.equal(factorization.part(family, moved, name), value + 1)
        decoded = family.decode(moved)
        assert torch.allclose(decoded[:, columns(name)], x[:, columns(name)] + 1, atol=1e-4)
        assert torch.allclose(decoded[:, kept(name)], x[:, kept(name)], atol=1e-4)


def test_a_swap_takes_one_part_and_leaves_the_rest(
    family: Halves, x: Tensor, other: Tensor
) -> None:
    for name in factorization.parts(family):
        found = editing.swap_part(family, x, other, name)
        assert torch.allclose(found[:, columns(name)], other[:, columns(name)], atol=1e-4)
        assert torch.allclose(found[:, kept(name)], x[:, kept(name)], atol=1e-4)
    assert torch.allclose(
        editing.swap_part(family, x, other, factorization.parts(family)), other, atol=1e-4
    )


def test_a_grid_has_the_part_of_its_column(family: Halves, x: Tensor, other: Tensor) -> None:
    for name in factorization.parts(family):
        grid = editing.transfer_grid(family, x, name, other[:3])
        assert grid.shape == (4, 3, 5)
        for i in range(4):
            for j in range(3):
                pair = editing.swap_part(family, x[i : i + 1], other[j : j + 1], name)
                assert torch.allclose(grid[i, j], pair[0], atol=1e-4)
    square = editing.transfer_grid(family, x, factorization.parts(family)[0])
    assert torch.allclose(square.diagonal().T, x, atol=1e-4)


def test_a_line_is_straight_in_its_part(family: Halves, x: Tensor, other: Tensor) -> None:
    name = factorization.parts(family)[-1]
    line = editing.interpolate_part(family, x, other, name, n=5)
    assert line.shape == (5, 4, 5)
    assert torch.allclose(line[0], x, atol=1e-4)
    assert torch.allclose(line[-1], editing.swap_part(family, x, other, name), atol=1e-4)
    assert torch.allclose(line[1], line[0] + 0.25 * (line[-1] - line[0]), atol=1e-4)
    with pytest.raises(ValueError, match="n >= 2 points, got 1"):
        editing.interpolate_part(family, x, other, name, n=1)


def test_resampling_changes_one_part(family: Halves, x: Tensor) -> None:
    for name in factorization.parts(family):
        found = editing.resample_part(family, x, name, 6)
        assert found.shape == (6, 4, 5)
        assert torch.allclose(found[..., kept(name)], x[:, kept(name)].expand(6, 4, -1), atol=1e-4)
        assert found[..., columns(name)].std(0).min() > 0


def test_class_draws_without_a_density_are_those_of_other_rows(x: Tensor) -> None:
    drawn = factorization.sample_part(Halves(), Halves().encode(x), "class", 50)
    assert {tuple(row) for row in drawn.flatten(0, 1).tolist()} == {
        tuple(row) for row in x[:, :2].tolist()
    }


def test_a_walk_moves_one_part(family: Halves, x: Tensor) -> None:
    name = factorization.parts(family)[-1]
    path = editing.walk_part(family, x, name, n_steps=3)
    assert path.z_class.shape == (4, 4, 2)
    assert torch.equal(path.z_class, x[:, :2].expand(4, 4, 2))
    assert torch.equal(path.z_nuisance[0], family.encode(x).z_nuisance)
    assert (path.z_nuisance.diff(dim=0).abs().amin((1, 2)) > 0).all()


def test_a_walk_of_the_nuisance_is_stationary() -> None:
    latent = Latent(torch.zeros(20_000, 2), torch.randn(20_000, 3))
    for _ in range(3):
        latent = factorization.step_part(Halves(), latent, "nuisance", 0.8)
    assert torch.allclose(latent.z_nuisance.std(0), torch.ones(3), atol=0.03)


def test_a_walk_needs_a_density(x: Tensor) -> None:
    with pytest.raises(ValueError, match="Halves has no density of the class part"):
        editing.walk_part(Halves(), x, "class")
    with as_a_user(), pytest.raises(ValueError, match=r"keep must lie in \[0, 1\], got 2"):
        editing.walk_part(Halves(), x, "nuisance", keep=2)
    with pytest.raises(ValueError, match="n_steps must be at least 1"):
        editing.walk_part(Halves(), x, "nuisance", n_steps=0)


class Certain(Halves):
    """Answers 0 or 1 by the sign of the first feature, or by a nuisance that it should not see."""

    def __init__(self, by: int) -> None:
        self.by = by

    def predict(self, x: Tensor) -> Tensor:
        value = 200 * (x[:, self.by] - (10 if self.by > 1 else 0))
        return torch.stack([-value, value], 1)


def test_the_answer_of_a_model_that_ignores_the_part_stays(x: Tensor) -> None:
    found = editing.response(Certain(by=0), x, "nuisance", n=30)
    own = Certain(by=0).predict(x).argmax(-1)
    assert torch.equal(found.kept, torch.ones(4))
    assert torch.equal(found.spread, torch.zeros(4))
    assert torch.equal(found.histogram, nn.functional.one_hot(own, 2).float())
    assert torch.allclose(found.entropy, torch.zeros(4), atol=1e-3)


def test_the_answer_of_a_model_that_reads_the_part_follows_it(x: Tensor) -> None:
    # The nuisance's first feature is standard normal, so the answer is a fair coin.
    found = editing.response(Certain(by=2), x, "nuisance", 4000)
    assert torch.allclose(found.histogram, torch.full((4, 2), 0.5), atol=0.04)
    assert torch.allclose(found.entropy, torch.ones(4), atol=0.01)
    assert torch.allclose(found.spread, torch.full((4,), 0.5), atol=0.01)
    assert torch.allclose(found.kept, torch.full((4,), 0.5), atol=0.04)


def test_the_entropy_is_that_of_the_histogram(x: Tensor) -> None:
    found = editing.response(Certain(by=2), x, "nuisance", 7)
    for share, entropy in zip(found.histogram[:, 0].tolist(), found.entropy.tolist(), strict=True):
        terms = [p * math.log(p) for p in (share, 1 - share) if p]
        assert entropy == pytest.approx(-sum(terms) / math.log(2), abs=1e-5)


def test_a_model_that_is_unsure_of_everything_does_not_respond(x: Tensor) -> None:
    class Unsure(Halves):
        def predict(self, x: Tensor) -> Tensor:
            return torch.tensor([0.6, 0.4]).log().expand(len(x), 2)

    assert torch.equal(editing.response(Unsure(), x, "nuisance", 5).entropy, torch.zeros(4))


def test_the_two_lines_meet_at_their_ends_only(x: Tensor, other: Tensor) -> None:
    lines = editing.linearisation(Three(), x, other, n=3)
    assert lines.latent.shape == lines.representation.shape == (3, 4, 5)
    for i, end in ((0, x), (2, other)):
        assert torch.allclose(lines.latent[i], end, atol=1e-3)
        assert torch.allclose(lines.representation[i], end, atol=1e-3)
    assert torch.allclose(lines.latent[1], (x + other) / 2, atol=1e-3)
    middle = ((x.sinh() + other.sinh()) / 2).asinh()
    assert torch.allclose(lines.representation[1], middle, atol=1e-2)
    with pytest.raises(TypeError, match="Halves has no representation to draw a line in"):
        editing.linearisation(Halves(), x, other)


def test_codes_come_by_name(family: Halves) -> None:
    x = torch.randn(2500, 5)
    found = editing.codes(family, x)
    assert tuple(found) == factorization.parts(family)
    assert sum(code.shape[1] for code in found.values()) == 5
    assert all(len(code) == 2500 for code in found.values())


def test_unknown_parts_and_shapes_are_refused(x: Tensor) -> None:
    latent = Halves().encode(x)
    for call in (
        lambda: factorization.part(Halves(), latent, "hue"),
        lambda: factorization.with_part(Halves(), latent, "hue", x),
        lambda: factorization.sample_part(Halves(), latent, "hue"),
    ):
        with pytest.raises(ValueError, match="no part 'hue', the latent has class, nuisance"):
            call()
    with as_a_user(), pytest.raises(ValueError, match=r"same shape, got \(4, 5\) and \(1, 5\)"):
        editing.swap_part(Halves(), x, x[:1], "class")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        editing.resample_part(Halves(), x, "nuisance", 0)
