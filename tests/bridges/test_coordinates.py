import pytest
import torch

from svae.bridges import Coordinates, UnitsDropped
from svae.bridges.starting import answer_directions, pair_directions, turn
from tests.unchecked import as_a_user


def mixed(n: int = 200, dead: tuple[int, ...] = ()) -> torch.Tensor:
    """Units of very different scale, correlated, some of them constant."""
    x = torch.randn(n, 12) @ torch.randn(12, 12) * torch.logspace(-2, 2, 12) + 3
    for unit in dead:
        x[:, unit] = unit / 7
    return x.view(n, 3, 4)


def test_coordinates_are_standardised() -> None:
    coordinates, x = Coordinates((3, 4)), mixed()
    coordinates.fit(x)
    value, left_over = coordinates(x)
    assert left_over.shape == (200, 0)
    assert torch.allclose(value.mean(0), torch.zeros(12), atol=1e-4)
    assert torch.allclose(value.std(0), torch.ones(12), atol=1e-4)


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_nothing_is_lost_on_the_way(reduced: bool, turned: bool) -> None:
    settings = {"max_features": 8, "max_components": 5} if reduced else {}
    coordinates = Coordinates((3, 4), **settings)
    coordinates.fit(mixed())
    if turned:
        coordinates.aim(torch.linalg.qr(torch.randn(coordinates.n_features, 3))[0])
    new = mixed(50) * 2  # not what it was fitted to
    assert coordinates.n_features == (5 if reduced else 12)
    assert coordinates.n_remainder == (12 if reduced else 0)
    assert coordinates.lost(new) <= 1e-5 * float(new.abs().max())


def test_a_pca_keeps_what_varies_most() -> None:
    coordinates, x = Coordinates((3, 4), max_features=8, max_components=5), mixed(2000)
    coordinates.fit(x)
    value, left_over = coordinates(x)
    assert torch.allclose(value.std(0), torch.ones(5), atol=1e-2)
    assert torch.allclose(value.T.cov(), torch.eye(5), atol=2e-2)
    eigenvalues = torch.linalg.eigvalsh(x.flatten(1).T.cov()).flip(0)
    kept = (
        1
        - left_over.square().sum(1).mean()
        / (x.flatten(1) - x.flatten(1).mean(0)).square().sum(1).mean()
    )
    assert float(kept) == pytest.approx(float(eigenvalues[:5].sum() / eigenvalues.sum()), abs=1e-3)


def test_an_edit_of_coordinates_leaves_the_remainder_as_it_was() -> None:
    coordinates, x = Coordinates((3, 4), max_features=8, max_components=5), mixed()
    coordinates.fit(x)
    value, left_over = coordinates(x)
    edited = coordinates.inverse(value + 1, left_over)
    again, same = coordinates(edited)
    assert torch.allclose(again, value + 1, atol=1e-3)
    assert torch.allclose(same, left_over, atol=1e-3 * float(x.abs().max()))


def test_constant_units_are_dropped_reported_and_put_back() -> None:
    coordinates, x = Coordinates((3, 4)), mixed(dead=(2, 7))
    with pytest.warns(UnitsDropped, match="2 of 12 units are constant"):
        coordinates.fit(x)
    assert coordinates.n_features == 10
    assert coordinates.n_remainder == 2
    assert coordinates.lost(x) <= 1e-4
    assert float(coordinates(x)[1].abs().max()) < 1e-6
    moved = coordinates.inverse(torch.randn(4, 10), torch.zeros(4, 2)).flatten(1)
    assert torch.allclose(moved[:, 2], torch.full((4,), 2 / 7))
    assert torch.allclose(moved[:, 7], torch.full((4,), 1.0))


def test_what_a_dropped_unit_does_in_new_data_is_carried() -> None:
    coordinates = Coordinates((3, 4))
    with pytest.warns(UnitsDropped):
        coordinates.fit(mixed(dead=(2, 7)))
    new = mixed()
    assert coordinates.lost(new) <= 1e-5 * float(new.abs().max())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(9, 3, 4), "all 12 units of the representation are constant"),
        (torch.full((9, 3, 4), torch.nan), "not finite"),
        (torch.randn(1, 3, 4), r"two or more representations of shape \(3, 4\)"),
        (torch.randn(9, 4, 3), r"shape \(3, 4\), got \(9, 4, 3\)"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x: torch.Tensor, message: str) -> None:
    with as_a_user(), pytest.raises(ValueError, match=message):
        Coordinates((3, 4)).fit(x)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Coordinates((3,), max_components=0)


def test_state_is_kept_whatever_its_size() -> None:
    coordinates, x = Coordinates((3, 4)), mixed(dead=(1,))
    with pytest.warns(UnitsDropped):
        coordinates.fit(x)
    coordinates.aim(torch.linalg.qr(torch.randn(11, 2))[0])
    again = Coordinates((3, 4))
    again.load_state_dict(coordinates.state_dict())
    assert torch.equal(again(x)[0], coordinates(x)[0])


@pytest.mark.parametrize("k", [1, 4, 9])
def test_a_turn_is_orthogonal_and_takes_axes_to_directions(k: int) -> None:
    directions = torch.linalg.qr(torch.randn(9, k, dtype=torch.float64))[0]
    vectors, weights = turn(directions)
    q = torch.eye(9, dtype=torch.float64) - vectors @ weights @ vectors.T
    assert torch.allclose(q.T @ q, torch.eye(9, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(q[:, :k].abs(), directions.abs(), atol=1e-12)


def test_turning_thousands_of_units_loses_nothing() -> None:
    # Rectified units are far from centred, so that long sums lose digits in single precision.
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(400, 1, generator=generator)
    representation = (common + 0.5 * torch.randn(400, 4000, generator=generator)).exp()
    coordinates = Coordinates((4000,))
    coordinates.fit(representation)
    value = coordinates(representation)[0]
    coordinates.aim(torch.linalg.svd(value, full_matrices=False)[2][:9].T)
    # The map as stored has seven digits; its inverse has all. What is left in single precision is
    # how a coordinate of some hundred standard deviations is rounded.
    assert coordinates.lost(representation.double()) / float(representation.max()) <= 1e-12
    assert coordinates.lost(representation) / float(representation.max()) <= 2e-6


def test_aimed_coordinates_lie_along_the_directions() -> None:
    coordinates, x = Coordinates((12,)), mixed().flatten(1)
    coordinates.fit(x)
    plain = coordinates(x)[0]
    directions = torch.linalg.qr(torch.randn(12, 3))[0]
    coordinates.aim(directions)
    aimed = coordinates(x)[0]
    assert torch.allclose(aimed[:, :3].abs(), (plain @ directions).abs(), atol=1e-4)
    assert torch.allclose(aimed.norm(dim=1), plain.norm(dim=1), atol=1e-4)


def test_the_answer_depends_on_its_directions_only() -> None:
    plane = torch.linalg.qr(torch.randn(8, 2))[0]
    # Orthogonal and of mean zero, so that both directions count alike.
    weight = (
        torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]) / torch.tensor([[2.0], [6.0]]).sqrt()
    )

    def head(value: torch.Tensor) -> torch.Tensor:
        return torch.tanh(value @ plane) @ weight

    found = answer_directions(head, torch.randn(100, 8), 5)
    assert found.shape == (8, 2)  # no more than there are
    assert torch.allclose(found @ found.T, plane @ plane.T, atol=1e-4)


@pytest.mark.parametrize("differ", [False, True])
def test_pairs_find_what_they_share(differ: bool) -> None:
    plane = torch.linalg.qr(torch.randn(8, 2))[0]
    inside = plane @ plane.T
    a, b = torch.randn(4000, 8), torch.randn(4000, 8)
    outside = torch.eye(8) - inside
    # The concept's plane is shared, or it is all that is not.
    second = b @ inside + a @ outside if differ else a @ inside + b @ outside
    found = pair_directions(a, second, differ, 2)
    assert torch.allclose(found @ found.T, inside, atol=0.1)


def test_a_rare_unit_is_no_outlier() -> None:
    representation = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0)).abs()
    representation[:, 1] = 0.0
    representation[77, 1] = 3.0  # fires once
    coordinates = Coordinates((3,))
    coordinates.fit(representation)
    value, remainder = coordinates(representation)
    assert float(value.abs().max()) < 10.01
    assert torch.allclose(value[:, [0, 2]].std(0), torch.ones(2), atol=1e-4)
    assert torch.allclose(coordinates.inverse(value, remainder), representation, atol=1e-6)
