"""Sheets of translations."""

import pytest
import torch

from svae.plots import translations
from tests.unchecked import as_a_user


def test_every_picture_has_its_place() -> None:
    drawn, source = torch.rand(3, 2, 3, 8, 8), torch.rand(2, 1, 4, 4)
    figure = translations(
        drawn, ["a one", "a two"], source=source, mean=drawn[0], target=drawn[1], title="Found"
    )
    assert len(figure.axes[0].images) == 2 * (3 + 3)
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {"a one", "a two", "source", "real", "mean", "1", "3", "Found"} <= texts


def test_rows_that_do_not_fit_are_refused() -> None:
    drawn = torch.rand(3, 2, 1, 8, 8)
    with as_a_user(), pytest.raises(ValueError, match="got 3 source pictures for 2 rows"):
        translations(drawn, source=torch.rand(3, 1, 8, 8))
    with as_a_user(), pytest.raises(ValueError, match="got 1 means for 2 rows"):
        translations(drawn, mean=torch.rand(1, 1, 8, 8))
