r"""The other route to a frozen network: a supervised VAE of the network's own answers.

The VAE is trained on :math:`f(x)` in the place of labels, and what its nuisance holds is what f
ignores, up to how far the VAE's own answers are from those of f, the *distillation gap*. A
:class:`svae.InvarianceBridge` has no such gap, but no generative model either.
"""

from typing import Any

import torch
from torch import Tensor

from svae.bridges.frozen import Frozen
from svae.data import ArrayData, ArraySet, as_data
from svae.factorization import Factorization, in_batches
from svae.metrics import Estimate, mean, proportion

__all__ = ["answered", "distillation_gap"]


def answered(frozen: Frozen, data: object) -> ArrayData:
    """The same inputs with the network's answers as soft labels; true labels are left out.

    Args:
        frozen: The network, opened at any layer.
        data: Data module, torch Dataset of (x, y), or a tuple (x, y) of tensors.

    Returns:
        Data to train an :class:`svae.SVAE` on, of as many classes as the network answers with.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        >>> frozen = svae.Frozen(net, "1", x_shape=(1, 8, 8))
        >>> answered(frozen, svae.data.Digits()).train.y.shape[1]
        10
    """
    given = as_data(data)
    sets = [_answered(frozen, part) for part in (given.train, given.validation, given.test)]
    n_answers = sets[0].y.shape[1] if sets[0].y is not None else 0
    names = given.class_names
    if len(names) != n_answers:
        names = tuple(map(str, range(n_answers)))
    return ArrayData(
        *sets,
        class_names=names,
        name=str(given.name),
        batch_size=given.batch_size,
        seed=given.seed,
        bounded=given.bounded,
    )


def distillation_gap(
    factorization: Factorization, frozen: Frozen, x: Tensor
) -> tuple[Estimate, Estimate]:
    r"""How far the answers of what was trained are from those of the network that it explains.

    .. math:: G = P\left[\arg\max_k p(k \mid z_c(x)) \neq \arg\max_k f_k(x)\right], \qquad
        \mathbb{E}\, \mathrm{KL}\left(f(x) \,\|\, p(\cdot \mid z_c(x))\right)

    Args:
        factorization: Trained on :func:`answered` data.
        frozen: The network.
        x: Inputs that it was not trained on.

    Returns:
        G, a share; the divergence in nats.
    """
    ours = in_batches(factorization.predict, x).log_softmax(-1)
    theirs = in_batches(frozen.predict, x).log_softmax(-1)
    apart = (theirs.exp() * (theirs - ours)).sum(1)
    return proportion(ours.argmax(1) != theirs.argmax(1)), mean(apart)


def _answered(frozen: Frozen, part: ArraySet) -> ArraySet:
    with torch.no_grad():
        pieces: list[Any] = [
            frozen.predict(ArraySet(x).floats()).softmax(-1) for x in part.x.split(500)
        ]
    return ArraySet(part.x, torch.cat(pieces), part.factors)
