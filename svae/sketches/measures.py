"""What bright strokes on black look like: thickness, slant, colour and blur."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["blur", "check_images", "colour", "grey", "slant", "thickness"]

FINE = 4  # fine pixels along the side of one pixel


def check_images(x: Tensor) -> None:
    """Checks that these are images as every function of this package takes them.

    Raises:
        TypeError: If they are not floating point.
        ValueError: If their shape is not (batch, channels, height, width), or a value is outside
            of [0, 1].
    """
    if not x.is_floating_point():
        raise TypeError(
            f"images are {x.dtype}, expected floats in [0, 1]. Bytes become so with "
            "svae.data.batch.as_floats(x)."
        )
    if x.ndim != 4 or 0 in x.shape[1:]:
        fix = "Give one image as x[None]." if x.ndim == 3 else "Flat ones: x.unflatten(1, shape)."
        raise ValueError(
            f"images have shape {tuple(x.shape)}, expected (batch, channels, height, width). {fix}"
        )
    if len(x):
        low, high = (float(bound) for bound in x.detach().aminmax())
        if not (low >= 0 and high <= 1):  # false for NaN too
            raise ValueError(
                f"images have values from {low:.4g} to {high:.4g}, expected [0, 1]. Divide pixels "
                "in 0..255 by 255, and undo a Normalize(mean, std)."
            )


def grey(
    x: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch 1 height width"]:
    """The sum of the channels over its brightest pixel; black images stay black."""
    total = x.sum(1, keepdim=True)
    return total / total.amax((-2, -1), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)


def thickness(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    r"""Width of the strokes in pixels, 0 for a black image.

    .. math:: t = 4 \, \mathrm{E}_{p \in S} \, d(p, \bar S)

    S is what is at least half as bright as the brightest pixel, on a grid four times as fine; d is
    the distance to what is not. In a ribbon of width t it is t/4 on average, so no skeleton
    has to be found. Ends count for less: a bar of length l has t (1 - t/3l), a disc 2/3 of its
    diameter; of oblique strokes some 5 % are lost.

    Args:
        x: Bright strokes on black, in [0, 1].

    Example:
        >>> bar = torch.zeros(1, 1, 28, 28)
        >>> bar[..., 12:16] = 1
        >>> thickness(bar)
        tensor([4.])
    """
    check_images(x)
    fine = F.interpolate(grey(x.detach().float()), scale_factor=FINE, mode="bilinear")
    masks = fine >= 0.5
    # The distance is one to the centre of the first fine pixel outside: the edge is half nearer.
    total, area = depth(masks).sum((1, 2, 3)), masks.sum((1, 2, 3)).clamp_min(1)
    found = 4 * (total / area - 0.5).clamp_min(0) / FINE
    # The outline lies between the fine pixels: what they cut off a side is seen in the area.
    return (found * ((fine - 0.5) * FINE + 0.5).clamp(0, 1).sum((1, 2, 3)) / area).to(x.dtype)


def depth(
    masks: Bool[Tensor, "batch 1 height width"],
) -> Float[Tensor, "batch 1 height width"]:
    """Distance of every place in a mask to the nearest outside of it; the border is no edge."""
    from scipy.ndimage import distance_transform_edt

    if not len(masks):
        return masks.float()
    found = [np.asarray(distance_transform_edt(mask)) for mask in masks[:, 0].cpu().numpy()]
    # Where nothing is outside, no distance exists.
    full = masks.all(-1).all(-1)[:, :, None, None]
    distances = torch.from_numpy(np.stack(found)).to(masks.device, torch.float32)[:, None]
    return distances.masked_fill(full, 0.0)


def slant(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    r"""How far the strokes lean to the right, in degrees.

    .. math:: \tan h = -\frac{\mathrm{Cov}(c, r)}{\mathrm{Var}(r)}

    c and r are the column and the row of a pixel, drawn with its brightness as probability. A
    horizontal shear by an angle g adds tan g to tan h exactly. Symmetric shapes have no slant;
    that of a digit depends on its class as well.

    Args:
        x: Bright strokes on black, in [0, 1].

    Example:
        >>> slant(torch.eye(9).flip(0)[None, None])
        tensor([45.])
    """
    check_images(x)
    weight, _, rows, columns = _placed(x)
    var = (weight * rows.square()).sum((1, 2)).clamp_min(1 / 12)  # one row has none
    return torch.rad2deg(torch.atan(-(weight * rows * columns).sum((1, 2)) / var))


def _placed(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Brightness as probability; row of the centre of mass; rows and columns from the centre."""
    weight = grey(x)[:, 0]
    weight = weight / weight.sum((1, 2), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    rows = torch.arange(x.shape[2], dtype=x.dtype, device=x.device)[:, None]
    columns = torch.arange(x.shape[3], dtype=x.dtype, device=x.device)
    centre = (weight * rows).sum((1, 2), keepdim=True)
    return weight, centre, rows - centre, columns - (weight * columns).sum((1, 2), keepdim=True)


def centre_row(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    """Row of the centre of mass, 0 at the centre of the first."""
    return _placed(x)[1][:, 0, 0]


def colour(x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3"]:
    """Red, green and blue of the strokes, see :func:`svae.data.coloured.read_colour`.

    Args:
        x: Strokes of one colour on black, in [0, 1].
    """
    from svae.data.coloured import read_colour

    check_images(x)
    if x.shape[1] != 3:
        raise ValueError(
            f"images have {x.shape[1]} channels, expected red, green and blue. Grey ones become "
            "white with x.expand(-1, 3, -1, -1)."
        )
    return read_colour(x)


def blur(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, " batch"]:
    r"""Standard deviation of the Gaussian that a sharp outline was blurred with, in pixels.

    .. math:: \sigma = \frac{\int |\nabla g|}{2 \sqrt{\pi} \int |\nabla g|^2}

    For a straight edge between 0 and 1 that is the standard deviation, to a tenth from one pixel
    on; the sharpest edge along pixels has .28, across them up to .4. Strokes thinner than their
    blur read as sharper than they are. Blank images have 0.

    Args:
        x: Bright strokes on black, in [0, 1].

    Example:
        >>> edge = (torch.arange(28) > 13).float().expand(1, 1, 28, 28)
        >>> blur(edge)
        tensor([0.2821])
    """
    check_images(x)
    image = grey(x)
    right = image.diff(dim=3)
    down = image.diff(dim=2)
    # Both live between pixels: average each over the two places beside a corner of four pixels.
    right = (right[:, :, 1:] + right[:, :, :-1]) / 2
    down = (down[..., 1:] + down[..., :-1]) / 2
    square = right.square() + down.square()
    tiny = torch.finfo(x.dtype).tiny
    return (
        square.sqrt().sum((1, 2, 3))
        / square.sum((1, 2, 3)).clamp_min(tiny)
        / (2 * math.sqrt(math.pi))
    )
