"""A sheet of small images with labels, laid out pixel by pixel.

All images lie in one axes whose unit is one pixel of the figure, so an image pixel covers a whole
number of screen pixels, and a hundred images cost no more than one axes.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

__all__ = ["Sheet", "pixels"]

DPI = 150
CELL = 84  # aimed-for side of an image on the sheet, in pixels
SPACE, GAP, MARGIN = 4, 20, 14  # between images, between groups of images, around the sheet
LABEL, HEADING, TITLE = 8.0, 9.0, 10.0  # sizes of text, in points
FRAME = "#0173b2"


def pixels(
    images: Shaped[Tensor | np.ndarray, "..."], dims: Sequence[str]
) -> Float[np.ndarray, "..."]:
    """Images as floats in [0, 1] with the channels last, ready to be drawn.

    Args:
        images: Grey or colour images, floats in [0, 1] (values outside are clipped) or integers
            in 0..255.
        dims: Names of the dims that the images must have, ending with channels, height, width.

    Raises:
        TypeError: If the images are neither a tensor nor an array.
        ValueError: If there are none, they have other dims, neither 1 nor 3 channels, or values
            that are not finite.
    """
    if isinstance(images, Tensor):
        images = images.detach().cpu()
        array = (images.float() if images.is_floating_point() else images).numpy()
    elif isinstance(images, np.ndarray):
        array = images
    else:
        raise TypeError(f"images must be a tensor or an array, got {type(images).__name__}")
    if array.ndim != len(dims) or array.size == 0 or array.shape[-3] not in (1, 3):
        raise ValueError(
            f"images must have the shape ({', '.join(dims)}) with 1 or 3 channels and none of "
            f"them empty, got {tuple(array.shape)}. Reshape flat vectors to images, or add a "
            "missing channel with unsqueeze."
        )
    if np.issubdtype(array.dtype, np.integer):
        array = array / 255
    if not np.isfinite(array).all():
        raise ValueError(
            f"images must be finite, {int((~np.isfinite(array)).sum())} of {array.size} values "
            "are NaN or infinite. Check what the decoder returns."
        )
    return np.moveaxis(array.astype(np.float32).clip(0, 1), -3, -1)


@dataclass
class Sheet:
    """Images at (row, column), with labels; positions without an image stay empty.

    Args:
        cells: Image by position, all of one shape (height, width, channels), in [0, 1].
        framed: Positions set apart by a coloured frame: the originals.
        row_gaps: Rows with a wider gap above them.
        column_gaps: Columns with a wider gap before them.
        row_labels: Text left of each row.
        column_labels: Text above each column; all are slanted where two would touch.
        row_title: What the rows are.
        column_title: What the columns are.
    """

    cells: dict[tuple[int, int], np.ndarray]
    framed: set[tuple[int, int]] = field(default_factory=set)
    row_gaps: set[int] = field(default_factory=set)
    column_gaps: set[int] = field(default_factory=set)
    row_labels: Sequence[str] = ()
    column_labels: Sequence[str] = ()
    row_title: str = ""
    column_title: str = ""

    def draw(self, title: str | None = None) -> "matplotlib.figure.Figure":
        """The sheet as a figure; its images appear in the order of ``cells``."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 10), dpi=DPI)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()

        height, width = next(iter(self.cells.values())).shape[:2]
        scale = max(1, round(CELL / max(height, width)))
        height, width = scale * height, scale * width
        tops = _starts(1 + max(row for row, _ in self.cells), height, self.row_gaps)
        lefts = _starts(1 + max(column for _, column in self.cells), width, self.column_gaps)
        for (row, column), image in self.cells.items():
            x, y = lefts[column], tops[row]
            _draw_image(axes, image, (x, x + width, y + height, y), (row, column) in self.framed)

        right, bottom = lefts[-1] + width, tops[-1] + height
        texts = _Texts(axes, right, bottom)
        for y, label in zip(tops, self.row_labels, strict=False):
            texts.write(label, (-10.0, y + height / 2), LABEL, ("right", "center"))
        widths = [texts.width(label, LABEL) for label in self.column_labels]
        slanted = any(
            (left + right) / 2 + 8 > distance
            for left, right, distance in zip(widths, widths[1:], np.diff(lefts), strict=False)
        )
        for x, label in zip(lefts, self.column_labels, strict=False):
            if slanted:
                texts.write(label, (x + width / 2 - 6, -10.0), LABEL, ("left", "bottom"), 40.0)
            else:
                texts.write(label, (x + width / 2, -8.0), LABEL, ("center", "bottom"))
        # Headings belong to what follows the originals, where there are any.
        first_column, first_row = max(self.column_gaps, default=0), max(self.row_gaps, default=0)
        if self.row_title:
            middle = ((tops[first_row] if self.framed else 0) + bottom) / 2
            texts.write(
                self.row_title, (texts.left - 8, middle), HEADING, ("right", "center"), 90.0
            )
        if self.column_title:
            middle = ((lefts[first_column] if self.framed else 0) + right) / 2
            texts.write(self.column_title, (middle, texts.top - 6), HEADING, ("center", "bottom"))
        if title:
            title = _wrap(title, max(right - texts.left, 450.0), texts)
            texts.write(title, ((texts.left + right) / 2, texts.top - 14), TITLE, bold=True)
        return _crop(figure, axes, texts)


class _Texts:
    """Writes into an axes whose unit is a pixel, and knows the box around all that was drawn."""

    def __init__(self, axes: "matplotlib.axes.Axes", right: float, bottom: float) -> None:
        self.axes = axes
        self.left, self.top, self.right, self.bottom = 0.0, 0.0, right, bottom
        # An axes that spans the figure at 1 unit = 1 pixel lets a renderer measure the texts.
        side = 10 * DPI
        axes.set(xlim=(0, side), ylim=(side, 0), aspect="auto")

    def write(
        self,
        text: str,
        at: tuple[float, float],
        size: float,
        align: tuple[str, str] = ("center", "bottom"),
        rotation: float = 0.0,
        bold: bool = False,
    ) -> None:
        """Writes, and grows the box by the extent of the text."""
        horizontal, vertical = align
        artist = self.axes.text(
            *at,
            text,
            fontsize=size,
            ha=horizontal,
            va=vertical,
            rotation=rotation,
            rotation_mode="anchor" if 0 < rotation < 90 else "default",
            weight="bold" if bold else "normal",
            parse_math=False,  # a dollar in a class name is a dollar
            clip_on=False,
        )
        x0, y0, x1, y1 = artist.get_window_extent().extents
        y0, y1 = 10 * DPI - y1, 10 * DPI - y0
        self.left, self.right = min(self.left, x0), max(self.right, x1)
        self.top, self.bottom = min(self.top, y0), max(self.bottom, y1)

    def width(self, text: str, size: float, bold: bool = False) -> float:
        """Width of a text in pixels."""
        artist = self.axes.text(
            0, 0, text, fontsize=size, weight="bold" if bold else "normal", parse_math=False
        )
        width = artist.get_window_extent().width
        artist.remove()
        return width


def _draw_image(
    axes: "matplotlib.axes.Axes",
    image: Float[np.ndarray, "height width channels"],
    extent: tuple[float, float, float, float],
    framed: bool,
) -> None:
    from matplotlib.patches import Rectangle

    if image.shape[-1] == 1:
        gray = image[..., 0]
        axes.imshow(gray, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
    else:
        axes.imshow(image, extent=extent, interpolation="nearest")
    if framed:
        x0, x1, y1, y0 = extent
        # 3 pixels wide, around the image: no pixel of it is covered.
        box = Rectangle((x0 - 1.5, y0 - 1.5), x1 - x0 + 3, y1 - y0 + 3, fill=False)
        box.set(edgecolor=FRAME, linewidth=3 * 72 / DPI, clip_on=False)
        axes.add_patch(box)


def _starts(n: int, length: int, gaps: set[int]) -> list[float]:
    wider = np.cumsum([GAP - SPACE if i in gaps else 0 for i in range(n)])
    return [float(i * (length + SPACE) + wider[i]) for i in range(n)]


def _wrap(title: str, width: float, texts: _Texts) -> str:
    share = width / texts.width(title, TITLE, bold=True)
    return title if share >= 1 else textwrap.fill(title, max(12, int(len(title) * share)))


def _crop(
    figure: "matplotlib.figure.Figure", axes: "matplotlib.axes.Axes", texts: _Texts
) -> "matplotlib.figure.Figure":
    # Whole pixels, so that every image pixel stays a square of whole screen pixels.
    left, top = np.floor([texts.left - MARGIN, texts.top - MARGIN])
    right, bottom = np.ceil([texts.right + MARGIN, texts.bottom + MARGIN])
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="auto")
    figure.set_size_inches((right - left) / DPI, (bottom - top) / DPI)
    return figure
