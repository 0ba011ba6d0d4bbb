"""A set that fits in memory, and batches of it: one index_select each, no worker processes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed
from jaxtyping import Float, Int, Int64, Shaped
from torch import Tensor
from torch.utils.data import Dataset

from svae.data.batch import Batch, as_floats
from svae.labels import MISSING, read_labels


class ArraySet(Dataset[Batch]):
    """Examples held as tensors, images as bytes: a quarter of the memory of floats.

    Args:
        x: Data, ``(N, *shape)``: uint8 in 0..255, or floats in [0, 1].
        y: Labels in 0..K-1, ``(N,)`` integers, -1 for unlabelled examples; or probabilities
            ``(N, K)``, a row of -1 for unlabelled ones; or None.
        factors: True causes, ``(N, n_factors)``, or None.

    Raises:
        ValueError: If ``x``, ``y`` and ``factors`` do not have one row per example.

    Example:
        >>> images = ArraySet(torch.full((5, 1, 8, 8), 255, dtype=torch.uint8), torch.arange(5))
        >>> len(images), images[2].y, images.floats(limit=3).shape
        (5, tensor(2), torch.Size([3, 1, 8, 8]))
    """

    def __init__(self, x: Tensor, y: Tensor | None = None, factors: Tensor | None = None) -> None:
        for name, rows in (("labels", y), ("factors", factors)):
            if rows is not None and len(rows) != len(x):
                raise ValueError(
                    f"{len(x)} examples came with {len(rows)} {name}; expected one row of {name} "
                    "per example. Were the two cut or shuffled separately?"
                )
        self.x = x
        if y is not None:
            y = y.float() if y.is_floating_point() and y.ndim == 2 else y.long()
        self.y = y
        self.factors = factors

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Batch:
        """One example, without a batch dim, ``x`` as floats in [0, 1]."""
        y = None if self.y is None else self.y[index]
        factors = None if self.factors is None else self.factors[index]
        return Batch(as_floats(self.x[index]), y, factors)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.x.shape[1:])

    def batch(self, indices: Int64[Tensor, " batch"]) -> Batch:
        """The examples at ``indices``, as they are stored (bytes stay bytes)."""
        indices = indices.to(self.x.device)
        y = None if self.y is None else self.y.index_select(0, indices)
        factors = None if self.factors is None else self.factors.index_select(0, indices)
        return Batch(self.x.index_select(0, indices), y, factors)

    @property
    def n_bytes(self) -> int:
        """Size in memory."""
        return sum(t.nbytes for t in (self.x, self.y, self.factors) if t is not None)

    def to(self, device: torch.device) -> "ArraySet":
        """The same examples on a device, where :meth:`batch` then gathers them."""
        parts = (None if t is None else t.to(device) for t in (self.x, self.y, self.factors))
        x, y, factors = parts
        assert x is not None
        return ArraySet(x, y, factors)

    @property
    def marked(self) -> Int64[Tensor, " n"]:
        """The label of every example, -1 where there is none; the most probable of soft ones."""
        if self.y is None:
            return torch.full((len(self),), MISSING, device=self.x.device)
        return read_labels(self.y).marked

    def subset(self, indices: Int64[Tensor, " n"]) -> "ArraySet":
        """A set of its own with the examples at ``indices``, in that order."""
        return ArraySet(*self.batch(indices))

    def evenly(self, n: int) -> "ArraySet":
        """A set of ``n`` examples from its whole length, or of all where there are fewer.

        The first examples of a set seldom stand for it: those of MNIST's test set are cleaner than
        the others.
        """
        n = min(n, len(self))
        return self.subset(torch.arange(n) * len(self) // n)

    def with_few_labels(self, n: int, seed: int = 0) -> "ArraySet":
        """The same examples with ``n`` labels kept, stratified, and all others -1.

        Raises:
            ValueError: If there are fewer labels than that, or soft ones.
        """
        if self.y is None or self.y.ndim != 1 or not 0 <= n <= int((self.y >= 0).sum()):
            has = "none" if self.y is None else f"labels of shape {tuple(self.y.shape)}"
            raise ValueError(
                f"cannot keep {n} labels: the set of {len(self)} examples has {has}, expected at "
                "least as many integer labels"
            )
        known = (self.y >= 0).nonzero().flatten()
        kept = known[stratified_order(self.y[known], seed)[:n]]
        y = torch.full_like(self.y, MISSING)
        y[kept] = self.y[kept]
        return ArraySet(self.x, y, self.factors)

    def floats(self, limit: int | None = None) -> Float[Tensor, "n ..."]:
        """The first ``limit`` examples (all by default) as floats in [0, 1]."""
        return as_floats(self.x[:limit])


class BatchLoader:
    r"""Batches of a set, in an order that depends on ``(seed, epoch)`` and nothing else.

    Among W processes, global batch i is ``order[i b W : (i + 1) b W]`` and rank r takes every W-th
    of it from r on, so W processes with batches of b see what one process with b W sees. All
    ranks get equally many batches; where a last batch has fewer than W examples, a rank without
    a share repeats the first of them.

    An epoch's order does not depend on the epochs before it, and ``state_dict`` holds the place
    within the epoch, so training resumes where it stopped. Lightning calls ``set_epoch`` (through
    :attr:`sampler`) and saves and loads the state; in a plain loop every full pass counts as one
    epoch.

    Args:
        data: The set.
        batch_size: Examples per batch and process, b.
        shuffle: A new order every epoch; else that of the set.
        seed: Which orders.
        drop_last: Whether to leave out a last incomplete batch.
        rank: Rank r; by default that of ``torch.distributed``, or 0 without it.
        world_size: Number of processes W; by default that of ``torch.distributed``, or 1.
        mixture: What every stretch of a shuffled epoch is made of; else each example comes once.

    Raises:
        ValueError: If ``batch_size`` is less than 1, the set is empty, or only one of ``rank`` and
            ``world_size`` is given, or they do not fit.

    Example:
        >>> numbers = ArraySet(torch.arange(5.0)[:, None] / 10)
        >>> [len(batch.x) for batch in BatchLoader(numbers, batch_size=2)]
        [2, 2, 1]
    """

    # Lightning looks for both; a `dataset` beside them would make it rebuild the loader.
    batch_sampler: None = None

    def __init__(
        self,
        data: ArraySet,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        mixture: "Mixture | None" = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1. The usual is 128.")
        if len(data) == 0:
            raise ValueError("the set is empty, expected at least one example to make batches of.")
        if (rank is None) != (world_size is None):
            raise ValueError("rank and world_size go together: give both, or neither.")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}, expected 0..{world_size - 1} of {world_size}.")
        self.data = data
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.mixture = mixture
        self.epoch = 0
        self._shard = None if rank is None or world_size is None else (rank, world_size)
        self._position = 0  # batches handed out in this epoch
        self._resume: tuple[int, int] | None = None  # (epoch, batch) of a loaded state

    @property
    def sampler(self) -> "BatchLoader":
        """Itself: where Lightning looks for ``set_epoch``."""
        return self

    @property
    def shard(self) -> tuple[int, int]:
        """``(rank, world_size)``, read late: processes may be joined after the loader is made."""
        if self._shard is not None:
            return self._shard
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def set_epoch(self, epoch: int) -> None:
        """Says which order the next pass takes."""
        self.epoch = epoch

    def order(self, epoch: int) -> Int[Tensor, " n"]:
        """The order of all examples in ``epoch``, before batches and ranks."""
        if not self.shuffle:
            return torch.arange(len(self.data))
        # A large odd factor keeps (seed, epoch) pairs apart: seed 1 at epoch 0 is not seed 0 at 1.
        mixed = (self.seed * 1_000_000_007 + epoch) % 2**63
        generator = torch.Generator().manual_seed(mixed)
        if self.mixture is None:
            return torch.randperm(len(self.data), generator=generator)
        return self.mixture.order(self.data.marked.cpu(), generator)

    def __len__(self) -> int:
        n_batches = len(self.data) / (self.batch_size * self.shard[1])
        return math.floor(n_batches) if self.drop_last else math.ceil(n_batches)

    def __iter__(self) -> Iterator[Batch]:
        # The body runs at the first `next`, after Lightning has set the epoch.
        # The order goes to the data's device once, not a piece of it for every batch.
        epoch, order = self.epoch, self.order(self.epoch).to(self.data.x.device)
        rank, world_size = self.shard
        start = 0
        if self._resume is not None and self._resume[0] == epoch:
            start = self._resume[1]
        self._resume = None
        for i in range(start, len(self)):
            size = self.batch_size * world_size
            share = order[i * size : (i + 1) * size]
            share = share[rank::world_size] if rank < len(share) else share[:1]
            self._position = i + 1  # before the yield: Lightning does not ask again after the last
            yield self.data.batch(share)
        self._position = 0
        self.epoch = epoch + 1

    def state_dict(self) -> dict[str, int]:
        """The place in the epoch: ``epoch``, and ``batch``, the number of batches handed out."""
        return {"epoch": self.epoch, "batch": self._position}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """The next pass goes on from the saved place, if it is of the saved epoch."""
        self.epoch, self._position = state_dict["epoch"], state_dict["batch"]
        self._resume = (self.epoch, self._position)


@dataclass(frozen=True)
class Mixture:
    """Which examples an epoch takes more often than others. Its length stays that of the set.

    Args:
        balanced: Whether all classes come equally often. Those of large classes then do not all
            come in one epoch, those of small ones come several times.
        labelled: Share of labelled examples in every stretch, where some are unlabelled; that of
            the set if None.

    Raises:
        ValueError: If ``labelled`` is not above 0 and below 1.

    Example:
        >>> y = torch.tensor([0, 0, 0, 1, -1, -1, -1, -1])
        >>> order = Mixture(balanced=True, labelled=0.5).order(y, torch.Generator())
        >>> (y[order] == 1).sum(), (y[order] == -1).sum()
        (tensor(2), tensor(4))
    """

    balanced: bool = False
    labelled: float | None = None

    def __post_init__(self) -> None:
        if self.labelled is not None and not 0 < self.labelled < 1:
            raise ValueError(
                f"the share of labelled examples is {self.labelled}, expected above 0 and below 1"
            )

    def order(
        self, y: Int64[Tensor, " n"], generator: torch.Generator | None = None
    ) -> Int64[Tensor, " n"]:
        """Indices of the examples of one epoch, as many as there are labels."""
        n, known = len(y), y >= 0
        n_known = int(known.sum())
        if self.labelled is not None and 0 < n_known < n:
            places = torch.arange(n + 1, dtype=torch.float64) * self.labelled
            taken = places.floor().diff() > 0  # spread evenly
        else:
            taken = known[torch.randperm(n, generator=generator)]
        order = torch.empty(n, dtype=torch.int64)
        order[taken] = self._labelled(y, int(taken.sum()), generator)
        n_others = n - int(taken.sum())
        order[~taken] = _repeated((~known).nonzero().flatten(), n_others, generator)
        return order

    def _labelled(
        self, y: Tensor, n: int, generator: torch.Generator | None
    ) -> Int64[Tensor, " n"]:
        if not self.balanced:
            return _repeated((y >= 0).nonzero().flatten(), n, generator)
        classes = y[y >= 0].unique()
        share = math.ceil(n / max(1, len(classes)))
        parts = [_repeated((y == k).nonzero().flatten(), share, generator) for k in classes]
        if not parts:
            return torch.empty(0, dtype=torch.int64)
        # One of each class after the other, in a new order of the classes every time.
        rows = torch.stack(parts, 1)
        shuffled = torch.rand(rows.shape, generator=generator).argsort(1)
        return rows.gather(1, shuffled).flatten()[:n]


def _repeated(indices: Tensor, n: int, generator: torch.Generator | None) -> Int64[Tensor, " n"]:
    """``n`` of the indices in random orders, all of them once before any comes again."""
    if not n:
        return indices[:0]
    rounds = math.ceil(n / len(indices))
    orders = [torch.randperm(len(indices), generator=generator) for _ in range(rounds)]
    return indices[torch.cat(orders)[:n]]


def stratified_order(
    y: Shaped[Tensor, " n"], seed: int, shuffle: bool = True
) -> Int64[Tensor, " n"]:
    """An order of the examples in which every stretch has the classes in their proportions.

    The j-th example of a class with n examples stands at (j + 1/2) / n, so a stretch holds each
    class to within two examples of its share, and the first K include every one of K equally
    frequent classes. Consecutive stretches are the parts of a stratified split.

    Args:
        y: Labels.
        seed: Which examples of a class come first.
        shuffle: Whether examples of a class are taken in a random order.

    Example:
        >>> stratified_order(torch.tensor([0, 0, 0, 0, 1, 1]), seed=0, shuffle=False)
        tensor([0, 4, 1, 2, 5, 3])
    """
    generator = torch.Generator().manual_seed(seed % 2**63)
    places = torch.randperm(len(y), generator=generator) if shuffle else torch.arange(len(y))
    shuffled = y[places]
    by_class = torch.argsort(shuffled, stable=True)
    _, counts = torch.unique_consecutive(shuffled[by_class], return_counts=True)
    firsts = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    sizes = torch.repeat_interleave(counts, counts)
    keys = (torch.arange(len(y)) - firsts + 0.5) / sizes
    return places[by_class[torch.argsort(keys, stable=True)]]


def held_out(
    whole: ArraySet, n_validation: int, seed: int, limit: int | None = None
) -> tuple[ArraySet, ArraySet]:
    """Training and validation set out of the training examples that a set comes with.

    Both are stratified by class; ``limit`` does not change the second.

    Args:
        whole: The training examples, labelled.
        n_validation: Number of validation examples.
        seed: Which examples go where.
        limit: Number of training examples, for quick runs; None takes all that are left.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> whole = ArraySet(torch.rand(60, 1, 8, 8), torch.arange(60) % 10)
        >>> [len(part) for part in held_out(whole, n_validation=20, seed=0)]
        [40, 20]
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}, expected at least 1, or None for all examples.")
    if not 1 <= n_validation < len(whole):
        raise ValueError(
            f"n_validation is {n_validation}, expected 1..{len(whole) - 1} of the {len(whole)} "
            "training examples. The usual is 5000."
        )
    order = stratified_order(whole.marked, seed)
    return whole.subset(order[n_validation:][:limit]), whole.subset(order[:n_validation])
