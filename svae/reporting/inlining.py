"""Pictures as text, so that a page needs no other file."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Sprite", "inlined", "sprite"]


@dataclass(frozen=True)
class Sprite:
    """Many pictures in one.

    Args:
        uri: The whole, as a data URI.
        rows: How many below each other.
        columns: How many beside each other.
        width: Of one picture, in pixels.
        height: Of one picture.
    """

    uri: str
    rows: int
    columns: int
    width: int
    height: int


def sprite(pictures: Float[Tensor, "rows columns channels height width"]) -> Sprite:
    """Puts grey or coloured pictures in [0, 1] into one PNG, without gaps.

    Raises:
        ValueError: If they are no grey or coloured pictures.
    """
    from PIL import Image

    if pictures.ndim != 5 or pictures.shape[2] not in (1, 3):
        raise ValueError(
            "pictures are (rows, columns, 1 or 3, height, width), got the shape "
            f"{tuple(pictures.shape)}"
        )
    rows, columns, channels, height, width = pictures.shape
    sheet = pictures.detach().float().cpu().nan_to_num().clamp(0, 1).permute(0, 3, 1, 4, 2)
    values = (sheet.reshape(rows * height, columns * width, channels) * 255).round()
    array = values.to(torch.uint8).numpy()
    image = Image.fromarray(np.ascontiguousarray(array[..., 0] if channels == 1 else array))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return Sprite(_uri(buffer.getvalue()), rows, columns, width, height)


def inlined(path: Path) -> str:
    """A PNG file as a data URI."""
    return _uri(path.read_bytes())


def _uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
