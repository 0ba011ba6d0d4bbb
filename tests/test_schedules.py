import pytest

from svae.elbo import SupervisedELBO
from svae.schedules import Cyclical, WarmUp, value_at


def test_a_warm_up_rises_and_stays() -> None:
    rise = WarmUp(2.0, steps=4, start=1.0)
    assert [rise(step) for step in (0, 2, 4, 100)] == [1.0, 1.5, 2.0, 2.0]
    assert value_at(rise, None) == 2.0
    assert value_at(3.0, 17) == 3.0


def test_cycles_start_again() -> None:
    cycle = Cyclical(4.0, period=10, rise=0.2)
    assert [cycle(step) for step in (0, 1, 2, 9, 10, 11, 22)] == [0, 2, 4, 4, 0, 2, 4]
    assert cycle.final == 4.0


def test_every_block_has_a_schedule_of_its_own() -> None:
    objective = SupervisedELBO(
        beta_class=Cyclical(10.0, period=10),
        beta_style=0.5,
        label_weight=WarmUp(50.0, steps=100, start=10.0),
        warm_up=4,
        capacity={"style": WarmUp(25.0, steps=50)},
    )
    assert objective.weights(2) == {
        "x": 1.0,
        "z_class": 4.0,
        "style": 0.25,
        "label": 10.8,
        "y": 1.0,
        "capacity_style": 1.0,
    }
    final = {"x": 1.0, "z_class": 10.0, "style": 0.5, "label": 50.0, "y": 1.0}
    assert objective.weights() == final | {"capacity_style": 25.0}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WarmUp(1.0, steps=0), "1 or more steps, got 0"),
        (lambda: WarmUp(-1.0, steps=3), "at least 0"),
        (lambda: Cyclical(1.0, period=3, rise=0.0), r"share of the cycle in \(0, 1\], got 0.0"),
    ],
)
def test_numbers_out_of_range(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # pyright: ignore
