r"""Inputs that are changed a little so that a network errs: at which layer does the change arrive?

An attack is as small as noise of the same size, which the network ignores. Decode what each layer
of an :class:`svae.InvarianceBridge` shows of both: where they begin to differ, the attack takes
hold.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

__all__ = ["fgsm", "pgd", "random_signs"]

Predict = Callable[[Tensor], Tensor]


def fgsm(
    predict: Predict,
    x: Float[Tensor, "batch *event"],
    y: Int[Tensor, " batch"],
    size: float = 8 / 255,
) -> Float[Tensor, "batch *event"]:
    r"""One step along the sign of the gradient (fast gradient sign method).

    .. math:: x' = \mathrm{clip}_{[0, 1]}\left(x + \epsilon\, \mathrm{sign}\,
        \nabla_x \mathrm{CE}(f(x), y)\right)

    References:
        Explaining and Harnessing Adversarial Examples (Goodfellow et al., 2014),
        https://arxiv.org/abs/1412.6572

    Args:
        predict: Inputs to logits, with gradients.
        x: Inputs in [0, 1].
        y: The answers to be left: labels, or what the network answers now.
        size: :math:`\epsilon`, the largest change of a pixel.

    Raises:
        ValueError: If ``size`` is negative, or no gradient reaches the input.
    """
    _check(size)
    return (x + size * _gradient(predict, x, y).sign()).clamp(0, 1)


def pgd(
    predict: Predict,
    x: Float[Tensor, "batch *event"],
    y: Int[Tensor, " batch"],
    size: float = 8 / 255,
    n_steps: int = 20,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch *event"]:
    r"""Many small steps within the box, from a random point of it (projected gradient descent).

    Steps have the size :math:`2.5\, \epsilon / n`, so that the border can be reached and left
    again.

    References:
        Towards Deep Learning Models Resistant to Adversarial Attacks (Madry et al., 2018),
        https://arxiv.org/abs/1706.06083

    Args:
        predict: Inputs to logits, with gradients.
        x: Inputs in [0, 1].
        y: The answers to be left.
        size: :math:`\epsilon`, the largest change of a pixel.
        n_steps: n, at least 1.
        generator: Of the first point.

    Raises:
        ValueError: If a number is out of range, or no gradient reaches the input.
    """
    _check(size)
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, got {n_steps}")
    start = 2 * torch.rand(x.shape, generator=generator).to(x) - 1
    moved = (x + size * start).clamp(0, 1)
    for _ in range(n_steps):
        moved = moved + 2.5 * size / n_steps * _gradient(predict, moved, y).sign()
        moved = torch.minimum(torch.maximum(moved, x - size), x + size).clamp(0, 1)
    return moved


def random_signs(
    x: Float[Tensor, "batch *event"],
    size: float = 8 / 255,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch *event"]:
    """Every pixel moved by ``size``, up or down by chance: as large as an attack, and none.

    Args:
        x: Inputs in [0, 1].
        size: The change of a pixel, before it is kept in [0, 1].
        generator: Source of the signs.

    Raises:
        ValueError: If ``size`` is negative.
    """
    _check(size)
    signs = 2 * torch.randint(2, x.shape, generator=generator).to(x) - 1
    return (x + size * signs).clamp(0, 1)


def _gradient(predict: Predict, x: Tensor, y: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = predict(x)
        if not logits.requires_grad:
            raise ValueError(
                "no gradient of the answer reaches the input: a black box cannot be attacked so"
            )
        # The sum: no input's step depends on how many others there are.
        (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, y, reduction="sum"), x)
    return gradient


def _check(size: float) -> None:
    if size < 0:
        raise ValueError(f"size must be at least 0, got {size}")
