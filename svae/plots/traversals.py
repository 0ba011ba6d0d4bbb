"""Single nuisance dims, moved from end to end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from svae.factorization import Factorization
from svae.latent import Latent
from svae.plots.canvas import Sheet, pixels

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["traversals"]

MAX_ROWS = 12


@torch.no_grad()
def traversals(
    factorization: Factorization,
    x_one: Float[Tensor, "*event"],
    dims: Sequence[int] | None = None,
    values: Sequence[float | int] | Float[Tensor, " values"] | None = None,
) -> "matplotlib.figure.Figure":
    r"""Decodes one input with one nuisance dim at a time set to each of some values.

    A row is labelled with its dim and its effect, the root mean square deviation of the decoded
    pixels over the values:

    .. math:: e_d = \sqrt{\tfrac{1}{VP} \textstyle\sum_{v, p} (\hat x_{vp} - \bar x_p)^2}

    in units of pixels, 0 for a dim that the decoder ignores. The largest effects come first, and
    at most twelve dims are drawn. The first column shows the input, framed, once.

    Args:
        factorization: Any model that fulfils the protocol.
        x_one: One image of shape (channels, height, width), or a batch of one.
        dims: Nuisance dims to try; all of them by default.
        values: Values to set, in standard deviations of the prior where that is N(0, 1); nine
            from -2.5 to 2.5 by default.

    Raises:
        ValueError: If more than one image is given, a dim does not exist, or there is no value.
    """
    x = x_one.unsqueeze(0) if x_one.ndim == 3 else x_one
    original = pixels(x, ("batch", "channels", "height", "width"))
    if len(x) != 1:
        raise ValueError(f"traversals take one image, got a batch of {len(x)}. Pass x[i].")
    latent = factorization.encode(x)
    n_nuisance = latent.z_nuisance.shape[-1]
    dims = list(range(n_nuisance) if dims is None else dims)
    if not dims or not all(0 <= dim < n_nuisance for dim in dims):
        raise ValueError(
            f"nuisance dims must lie in 0..{n_nuisance - 1} and be at least one, got {dims}. "
            "Dims are counted within z_nuisance, without the class part."
        )
    grid = torch.linspace(-2.5, 2.5, 9) if values is None else torch.as_tensor(values)
    if grid.ndim != 1 or len(grid) == 0:
        raise ValueError(f"values must be a list of at least one number, got {values!r}")

    decoded = torch.stack([_decode(factorization, latent, dim, grid) for dim in dims])
    effects = decoded.float().var(1, correction=0).flatten(1).mean(1).sqrt()
    order = effects.argsort(descending=True, stable=True)[:MAX_ROWS].tolist()
    rows = pixels(decoded[order], ("dims", "values", "channels", "height", "width"))
    cells = {(i, 1 + j): rows[i, j] for i in range(len(order)) for j in range(len(grid))}
    cells[0, 0] = original[0]
    shown = f"{len(order)} of {len(dims)}" if len(order) < len(dims) else "all"
    return Sheet(
        cells,
        framed={(0, 0)},
        column_gaps={1},
        row_labels=[f"dim {dims[i]}  effect {effects[i]:.3f}" for i in order],
        column_labels=["input", *(_signed(value) for value in grid.tolist())],
        column_title="value of the dim",
    ).draw(f"Nuisance dims, one at a time, by effect on the pixels ({shown})")


def _decode(
    factorization: Factorization, latent: Latent, dim: int, values: Float[Tensor, " values"]
) -> Float[Tensor, " values *event"]:
    moved = latent.map(lambda part: part.expand(len(values), *part.shape[1:]).clone())
    moved.z_nuisance[:, dim] = values.to(moved.z_nuisance)
    return factorization.decode(moved)


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−") if value else "0"  # noqa: RUF001 (as wide as +)
