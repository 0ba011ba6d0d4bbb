r"""Pictures whose texture and shape disagree, or that come from another domain.

What does a layer go by, the texture of a thing or its shape? Give it pictures that have one and
not the other, and look at what it cannot tell from them: ``svae.plots.perturbed``.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

__all__ = ["edges", "hybrid", "luminance", "shuffled_patches"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def hybrid(
    shape: Float[Tensor, "batch channels height width"],
    texture: Float[Tensor, "batch channels height width"],
    cutoff: float = 0.12,
) -> Float[Tensor, "batch channels height width"]:
    r"""The coarse structure of one picture with the fine one of another.

    .. math:: x = \mathrm{clip}_{[0, 1]}(G x_\mathrm{shape} + (1 - G)\, x_\mathrm{texture}),
        \qquad G(f) = e^{-\ln 2\, f^2 / f_0^2}

    References:
        Hybrid Images (Oliva, Torralba & Schyns, 2006), https://doi.org/10.1145/1141911.1141919

    Args:
        shape: Gives the low frequencies.
        texture: Gives the high ones.
        cutoff: :math:`f_0`, where half of the amplitude of either passes, in cycles per pixel.

    Raises:
        ValueError: If the pictures differ in shape, or ``cutoff`` is not above 0.
    """
    if shape.shape != texture.shape:
        raise ValueError(
            f"both pictures must have one shape, got {tuple(shape.shape)} and "
            f"{tuple(texture.shape)}"
        )
    if not 0 < cutoff < math.inf:
        raise ValueError(f"cutoff must be above 0 cycles per pixel, usually .05 to .3: {cutoff}")
    height, width = shape.shape[-2:]
    rows = torch.fft.fftfreq(height, device=shape.device)[:, None]
    columns = torch.fft.rfftfreq(width, device=shape.device)
    low = torch.exp(-math.log(2) * (rows.square() + columns.square()) / cutoff**2)
    mixed = low * torch.fft.rfft2(shape) + (1 - low) * torch.fft.rfft2(texture)
    return torch.fft.irfft2(mixed, s=(height, width)).clamp(0, 1)


def shuffled_patches(
    x: Float[Tensor, "batch channels height width"],
    side: int = 8,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch channels height width"]:
    """Every picture cut into squares that are put together in another order: texture, no shape.

    References:
        Interpreting Adversarially Trained Convolutional Neural Networks (Zhang & Zhu, 2019),
        https://arxiv.org/abs/1905.09797

    Args:
        x: Pictures.
        side: Of a square, in pixels; a divisor of height and width.
        generator: Source of the order, which is another one for every picture.

    Raises:
        ValueError: If the squares do not fill the pictures.
    """
    n, (height, width) = len(x), x.shape[-2:]
    if side < 1 or height % side or width % side:
        raise ValueError(
            f"squares of {side} pixels do not fill pictures of {height} by {width}: take a common "
            "divisor"
        )
    patches = functional.unfold(x, side, stride=side)
    order = torch.rand(n, patches.shape[-1], generator=generator).argsort(-1).to(x.device)
    mixed = patches.gather(-1, order[:, None].expand_as(patches))
    return functional.fold(mixed, (height, width), side, stride=side)


def luminance(
    x: Float[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch 3 height width"]:
    """Pictures without colour: the weighted mean of red, green and blue, in all three of them.

    Raises:
        ValueError: If the pictures have no three channels.
    """
    if x.shape[1] != 3:
        raise ValueError(f"expected pictures of three channels, got {x.shape[1]}")
    weights = torch.tensor(_LUMA, dtype=x.dtype, device=x.device).view(3, 1, 1)
    return (weights * x).sum(1, keepdim=True).expand_as(x)


def edges(
    x: Float[Tensor, "batch channels height width"], strength: float = 1.5
) -> Float[Tensor, "batch channels height width"]:
    r"""Line drawings: dark where the picture changes, white elsewhere; shape without texture.

    .. math:: 1 - \mathrm{clip}_{[0, 1]}\left(s \max_c |\nabla x_c|\right)

    with the gradient by Sobel's filters, in units of full contrast over two pixels.

    Args:
        x: Pictures.
        strength: s.

    Raises:
        ValueError: If ``strength`` is not above 0.
    """
    if not 0 < strength < math.inf:
        raise ValueError(f"strength must be above 0, got {strength}")
    row = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]).to(x) / 4
    filters = torch.stack([row, row.T])[:, None]
    padded = functional.pad(x.flatten(0, 1)[:, None], [1] * 4, mode="replicate")
    size = functional.conv2d(padded, filters).norm(dim=1).unflatten(0, x.shape[:2])
    return (1 - (strength * size.amax(1, keepdim=True)).clamp(0, 1)).expand_as(x)
