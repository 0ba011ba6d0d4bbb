"""Maps that mix the features, so that the next couplings split them otherwise."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from svae.flows.bijection import Bijection, Pair
from svae.saving import Described

__all__ = ["Permutation", "Rotation"]


class Permutation(Described, Bijection):
    """A fixed random order of the features; log-determinant 0.

    Args:
        features: Number of features.
        seed: Seed of the order.
    """

    def __init__(self, features: int, seed: int = 0) -> None:
        super().__init__()
        order = torch.randperm(features, generator=torch.Generator().manual_seed(seed))
        self.order: Tensor
        self.undo: Tensor
        self.register_buffer("order", order)
        self.register_buffer("undo", order.argsort())

    def forward(
        self, x: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        return x[..., self.order], x.new_zeros(()).expand(x.shape[:-1])

    def inverse(
        self, y: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        return y[..., self.undo], y.new_zeros(()).expand(y.shape[:-1])


class Rotation(Described, Bijection):
    r"""A learned orthogonal mixing of the features; log-determinant exactly 0.

    .. math:: y = Q x, \quad Q = \prod_{i=1}^{D} (I - 2 v_i v_i^\top) = I - V S^{-1} V^\top

    The columns of V are the normalised :math:`v_i`, S is upper triangular with 1/2 on its diagonal
    and :math:`v_i^\top v_j` above it. So Q is orthogonal whatever the parameters, as many
    reflections as features reach every orthogonal matrix of its sign, and one triangular solve
    takes the place of D steps. The start is random.

    References:
        Improving Variational Auto-Encoders using Householder Flow (Tomczak & Welling, 2016),
        https://arxiv.org/abs/1611.09630; the product in one formula: On accumulating Householder
        transformations (Joffrain et al., 2006), https://doi.org/10.1145/1141885.1141886

    Args:
        features: Number of features :math:`D`.
        seed: Seed of the start.

    Example:
        >>> y, log_det = Rotation(features=4)(torch.randn(8, 4))
        >>> y.shape, log_det.abs().max().item()
        (torch.Size([8, 4]), 0.0)
    """

    def __init__(self, features: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.raw_vectors = nn.Parameter(torch.randn(features, features, generator=generator))

    @property
    def matrix(self) -> Float[Tensor, "D D"]:
        """The orthogonal matrix Q."""
        vectors = functional.normalize(self.raw_vectors, dim=0)
        half = 0.5 * torch.eye(len(vectors), dtype=vectors.dtype, device=vectors.device)
        products = (vectors.mT @ vectors).triu(1) + half
        solved = torch.linalg.solve_triangular(products, vectors.mT, upper=True)
        return 2 * half - vectors @ solved

    def forward(
        self, x: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        return x @ self.matrix.mT, x.new_zeros(()).expand(x.shape[:-1])

    def inverse(
        self, y: Float[Tensor, "*batch D"], context: Float[Tensor, "*batch C"] | None = None
    ) -> Pair:
        return y @ self.matrix, y.new_zeros(()).expand(y.shape[:-1])
