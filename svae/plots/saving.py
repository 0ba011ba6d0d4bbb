"""Writing a figure as a PNG that stays small enough for a repository or an offline page."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import matplotlib.figure
    from PIL import Image

__all__ = ["save"]

MAX_BYTES = 200_000
# Share of the resolution and levels of each colour channel, best first. Rounded channels stay
# within half a level of the truth, where the palettes of GIFs put flat areas for gradients.
ATTEMPTS = (
    (1, 256), (1, 64), (1, 32), (1, 22), (2 / 3, 64), (2 / 3, 32), (2 / 3, 22),
    (1 / 2, 32), (1 / 2, 16), (0.4, 32), (0.4, 16), (1 / 3, 16),
)  # fmt: skip


def save(figure: "matplotlib.figure.Figure", path: str | Path, max_bytes: int = MAX_BYTES) -> Path:
    """Writes a figure as a PNG of at most ``max_bytes``, creating the folder.

    Where the figure is too large as it is, its colours are rounded to 64, 32 or 22 levels a
    channel (an error of at most 6 of 255), then its resolution is lowered.

    Args:
        figure: What to write.
        path: File name that ends with ``.png``.
        max_bytes: Largest size of the file, in bytes.

    Returns:
        The path written.

    Raises:
        ValueError: If the name does not end with ``.png``, or nothing legible is small enough.
        OSError: If the file or its folder cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(
            f"pictures are written as PNG, got the file name {path.name!r}. "
            f"Name it {path.stem + '.png'!r}."
        )
    content = _encode_within(figure, max_bytes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write the picture {str(path)!r} ({error.strerror}). Choose a folder that "
            "exists or can be created, and that you may write to",
        ) from error
    return path


def _encode_within(figure: "matplotlib.figure.Figure", max_bytes: int) -> bytes:
    pictures: dict[float, Image.Image] = {}
    sizes: list[int] = []
    hopeless: float | None = None
    for share, levels in ATTEMPTS:
        dpi = float(figure.dpi * share)
        if share == hopeless:
            continue
        if share not in pictures:
            pictures[share] = _render(figure, dpi)
        content = _encode(pictures[share], levels, dpi)
        if len(content) <= max_bytes:
            return content
        sizes.append(len(content))
        if len(content) > 2.5 * max_bytes:  # fewer levels save no more than that
            hopeless = share
    raise ValueError(
        f"the smallest legible PNG of this figure has {min(sizes)} bytes, at most {max_bytes} "
        "are allowed. Draw fewer or smaller images, or raise max_bytes."
    )


def _render(figure: "matplotlib.figure.Figure", dpi: float) -> "Image.Image":
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


def _encode(picture: "Image.Image", levels: int, dpi: float) -> bytes:
    from PIL import Image

    if levels < 256:
        steps = np.round(np.arange(256) / 255 * (levels - 1)) * (255 / (levels - 1))
        picture = picture.point(np.round(steps).astype(int).tolist() * 3)
    # A palette that holds every colour is smaller and loses nothing; Pillow's own would.
    codes = np.asarray(picture).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    colors, indices = np.unique(codes, return_inverse=True)
    if len(colors) <= 256:
        picture = Image.fromarray(indices.reshape(codes.shape).astype(np.uint8))
        picture.putpalette(
            np.stack([colors >> 16, colors >> 8 & 255, colors & 255], 1).astype(np.uint8).tobytes()
        )
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", dpi=(dpi, dpi))
    return buffer.getvalue()
