"""Reads what a figure shows off its artists."""

from typing import Any

import numpy as np
import torch


def drawn(figure: Any) -> list[list[Any]]:
    """The arrays of a sheet by row and column, read off where they lie."""
    images = figure.axes[0].images
    lefts = sorted({image.get_extent()[0] for image in images})
    tops = sorted({image.get_extent()[3] for image in images})
    grid: list[list[Any]] = [[None] * len(lefts) for _ in tops]
    for image in images:
        x, _, _, y = image.get_extent()
        grid[tops.index(y)][lefts.index(x)] = np.asarray(image.get_array())
    return grid


def shown(x: torch.Tensor) -> np.ndarray:
    """How an image should be drawn."""
    array = x.clamp(0, 1).numpy()
    return array[0] if len(array) == 1 else array.transpose(1, 2, 0)


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def n_frames(figure: Any) -> int:
    return len(figure.axes[0].patches)
