"""Random changes of whole batches on their device, given to a data module as ``augment``."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


class RandomAffine:
    """Rotates, shears, scales and shifts every image by amounts of its own.

    One ``grid_sample`` per batch (bilinear, zeros outside). Amounts are uniform.

    Args:
        degrees: Largest rotation either way.
        translate: Largest shift either way, as a fraction of width and height.
        scale: Smallest and largest magnification.
        shear: Largest horizontal shear angle either way, in degrees.
        generator: Source of randomness, on the device of the batches; by default torch's own.

    Raises:
        ValueError: If an amount is negative, shear is not below 90 or scale not positive.

    Example:
        >>> augment = RandomAffine(degrees=10.0, scale=(0.9, 1.1))
        >>> augment(torch.rand(4, 1, 28, 28)).shape
        torch.Size([4, 1, 28, 28])
    """

    def __init__(
        self,
        degrees: float = 10.0,
        translate: float = 0.08,
        scale: tuple[float, float] = (0.9, 1.1),
        shear: float = 5.0,
        generator: torch.Generator | None = None,
    ) -> None:
        amounts = {"degrees": degrees, "translate": translate, "shear": shear}
        for name, amount in amounts.items():
            if amount < 0:
                raise ValueError(f"{name} is {amount}, expected 0 or more: it is a bound.")
        if shear >= 90:
            raise ValueError(
                f"shear is {shear} degrees, expected less than 90. Usual are 5 to 15."
            )
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(
                f"scale is {scale}, expected (smallest, largest), both above 0, as in (0.9, 1.1)."
            )
        self.degrees, self.translate, self.scale, self.shear = degrees, translate, scale, shear
        self.generator = generator

    def __call__(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Changes every image of a batch.

        Args:
            x: Images in [0, 1], and so is the result.
        """
        # (batch, 5) in [-1, 1]
        u = 2 * torch.rand(len(x), 5, generator=self.generator, device=x.device) - 1
        low, high = self.scale
        return affine(
            x,
            angle=u[:, 0] * self.degrees,
            shift=u[:, 1:3] * self.translate,
            scale=(low + high) / 2 + u[:, 3] * (high - low) / 2,
            shear=u[:, 4] * self.shear,
        )


def affine(
    x: Float[Tensor, "batch channels height width"],
    angle: Float[Tensor, " batch"],
    shift: Float[Tensor, "batch 2"],
    scale: Float[Tensor, " batch"],
    shear: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    r"""Moves the pixel at p (from the centre, x to the right, y down) to A p + t.

    .. math:: A = s \begin{pmatrix} \cos a & \sin a \\ -\sin a & \cos a \end{pmatrix}
              \begin{pmatrix} 1 & \tan h \\ 0 & 1 \end{pmatrix}

    Args:
        x: Images.
        angle: Rotation a, counterclockwise as seen, in degrees.
        shift: Translation t to the right and down, as a fraction of width and height.
        scale: Magnification s.
        shear: Horizontal shear angle h, in degrees.
    """
    height, width = x.shape[-2:]
    a, tangent = torch.deg2rad(angle), torch.tan(torch.deg2rad(shear))
    cos, sin = torch.cos(a) / scale, torch.sin(a) / scale
    # grid_sample asks where a pixel comes from: A^-1 = (1/s) shear^-1 rotation^T, ...
    inverse = torch.stack([cos - tangent * sin, -sin - tangent * cos, sin, cos], -1)
    inverse = inverse.unflatten(-1, (2, 2))
    # ... in coordinates that are 1 at the edge of width and height.
    aspect = x.new_tensor([[1.0, height / width], [width / height, 1.0]])
    inverse = inverse.to(x.dtype) * aspect
    offset = -inverse @ (2 * shift.to(x.dtype))[..., None]
    grid = F.affine_grid(torch.cat([inverse, offset], -1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)
