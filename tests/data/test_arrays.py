import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svae.data import ArraySet, BatchLoader, Mixture
from svae.data.arrays import stratified_order


def numbers(n: int) -> ArraySet:
    """A set whose labels are the positions."""
    return ArraySet(torch.zeros(n, 2, dtype=torch.uint8), torch.arange(n))


def seen(loader: BatchLoader) -> list[list[int]]:
    return [batch.y.tolist() for batch in loader if batch.y is not None]


def test_items_are_floats_and_batches_keep_bytes() -> None:
    images = ArraySet(torch.full((3, 1, 2, 2), 51, dtype=torch.uint8), torch.tensor([4, 5, 6]))
    x, y, factors = images[1]
    assert torch.equal(x, torch.full((1, 2, 2), 0.2))
    assert (int(y or 0), factors) == (5, None)
    batch = images.batch(torch.tensor([2, 0]))
    assert batch.x.dtype == torch.uint8
    assert batch.y is not None
    assert batch.y.tolist() == [6, 4]


def test_factors_follow_their_examples() -> None:
    labels = torch.arange(4)
    part = ArraySet(torch.zeros(4, 2), labels, labels[:, None] * 10).subset(torch.tensor([3, 1]))
    assert part.factors is not None
    assert part.factors.tolist() == [[30], [10]]


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="4 examples came with 3 labels"):
        ArraySet(torch.zeros(4, 2), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="4 examples came with 5 factors"):
        ArraySet(torch.zeros(4, 2), None, torch.zeros(5, 1))


def test_order_depends_on_seed_and_epoch_only() -> None:
    loader = BatchLoader(numbers(50), 8, shuffle=True, seed=3)
    epochs = [seen(loader) for _ in range(3)]  # a plain loop: every pass is an epoch
    assert epochs[0] != epochs[1] != epochs[2]
    for epoch in (2, 0, 1):
        fresh = BatchLoader(numbers(50), 8, shuffle=True, seed=3)
        fresh.set_epoch(epoch)
        torch.manual_seed(epoch)  # the global state has no part in it
        assert seen(fresh) == epochs[epoch]
    other = BatchLoader(numbers(50), 8, shuffle=True, seed=4)
    assert all(seen(other) != epoch for epoch in epochs)


def test_one_pass_gives_every_example_once() -> None:
    for drop_last, n_seen in ((False, 50), (True, 48)):
        loader = BatchLoader(numbers(50), 8, shuffle=True, drop_last=drop_last)
        batches = seen(loader)
        assert len(batches) == len(loader)
        assert len(set(sum(batches, []))) == n_seen  # noqa: RUF017
    assert seen(BatchLoader(numbers(5), 2)) == [[0, 1], [2, 3], [4]]


@given(
    n=st.integers(1, 60),
    batch_size=st.integers(1, 9),
    world_size=st.integers(1, 5),
    drop_last=st.booleans(),
)
def test_several_processes_see_what_one_sees(
    n: int, batch_size: int, world_size: int, drop_last: bool
) -> None:
    whole = BatchLoader(numbers(n), batch_size * world_size, True, 7, drop_last, 0, 1)
    ranks = [
        BatchLoader(numbers(n), batch_size, True, 7, drop_last, rank, world_size)
        for rank in range(world_size)
    ]
    assert {len(loader) for loader in ranks} == {len(whole)}
    for _ in range(2):  # epochs
        shares = [seen(loader) for loader in ranks]
        for i, batch in enumerate(seen(whole)):
            parts = [share[i] for share in shares]
            assert all(1 <= len(part) <= batch_size for part in parts)
            # rank r holds examples r, r + W, ...; a rank without a share repeats the first
            for rank, part in enumerate(parts):
                assert part == (batch[rank::world_size] or batch[:1])
            assert {example for part in parts for example in part} == set(batch)
            if len(batch) >= world_size:
                assert sum(map(len, parts)) == len(batch)


def test_state_resumes_within_the_epoch() -> None:
    loader = BatchLoader(numbers(50), 8, shuffle=True)
    seen(loader)
    expected = BatchLoader(numbers(50), 8, shuffle=True)
    expected.set_epoch(1)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    state = loader.state_dict()
    assert state == {"epoch": 1, "batch": 3}
    resumed = BatchLoader(numbers(50), 8, shuffle=True)
    resumed.load_state_dict(state)
    resumed.set_epoch(1)
    rest = seen(expected)[3:]
    assert seen(resumed) == rest
    assert len(seen(resumed)) == len(resumed)  # the next epoch is whole again
    moved = BatchLoader(numbers(50), 8, shuffle=True)
    moved.load_state_dict(state)
    moved.set_epoch(2)
    assert len(seen(moved)) == len(moved)


def test_loader_rejects_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="batch_size is 0, expected at least 1"):
        BatchLoader(numbers(5), 0)
    with pytest.raises(ValueError, match="set is empty"):
        BatchLoader(numbers(0), 2)
    with pytest.raises(ValueError, match="give both"):
        BatchLoader(numbers(5), 2, rank=0)
    with pytest.raises(ValueError, match=r"rank is 2, expected 0\.\.1"):
        BatchLoader(numbers(5), 2, rank=2, world_size=2)


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    seed=st.integers(-3, 2**40),
    data=st.data(),
)
def test_every_stretch_of_a_stratified_order_has_the_shares(
    counts: list[int], seed: int, data: st.DataObject
) -> None:
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(1))]
    order = stratified_order(y, seed)
    assert torch.equal(order.sort().values, torch.arange(len(y)))
    start = data.draw(st.integers(0, len(y)))
    stop = data.draw(st.integers(start, len(y)))
    found = torch.bincount(y[order[start:stop]], minlength=len(counts))
    expected = torch.tensor(counts) * (stop - start) / len(y)
    # Each end is exact to within one example of its own class and the rounding of the others.
    assert (found - expected).abs().max() <= 2 + len(counts) * max(counts) / len(y)


def test_stratified_order_shuffles_within_a_class() -> None:
    y = torch.zeros(30, dtype=torch.long)
    a, again, b = (stratified_order(y, seed) for seed in (0, 0, 1))
    assert torch.equal(a, again)
    assert not torch.equal(a, b)


def test_a_set_moves_with_all_its_parts() -> None:
    examples = ArraySet(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4))
    assert examples.n_bytes == 4 * 64 + 4 * 8
    moved = examples.to(torch.device("meta"))
    assert moved.x.device.type == "meta"
    assert moved.y is not None
    assert moved.y.device.type == "meta"
    assert moved.x.dtype == torch.uint8
    assert ArraySet(examples.x).to(torch.device("meta")).y is None


@given(
    counts=st.lists(st.integers(0, 30), min_size=2, max_size=5),
    n_missing=st.integers(0, 40),
    share=st.sampled_from([None, 0.25, 0.5, 0.9]),
    balanced=st.booleans(),
    seed=st.integers(0, 100),
)
def test_a_mixture_has_its_shares_in_every_stretch(
    counts: list[int], n_missing: int, share: float | None, balanced: bool, seed: int
) -> None:
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    y = torch.cat([y, torch.full((n_missing,), -1)])
    n, n_known = len(y), sum(counts)
    if not n:
        return
    order = Mixture(balanced, share).order(y, torch.Generator().manual_seed(seed))
    assert order.shape == (n,)
    again = Mixture(balanced, share).order(y, torch.Generator().manual_seed(seed))
    assert torch.equal(order, again)
    drawn = y[order]
    mixed = share is not None and 0 < n_known < n
    wanted = share * torch.arange(1, n + 1) if mixed and share is not None else None
    if wanted is None:
        assert int((drawn >= 0).sum()) == n_known
    else:
        assert ((drawn >= 0).cumsum(0) - wanted).abs().max() <= 1 + 1e-6
    classes = [k for k, count in enumerate(counts) if count]
    found = torch.bincount(drawn[drawn >= 0], minlength=len(counts))
    if balanced and classes:
        assert found[classes].max() - found[classes].min() <= 1
    elif not mixed:
        assert torch.equal(found, torch.tensor(counts))


def test_some_are_taken_from_the_whole_length() -> None:
    part = ArraySet(torch.arange(10.0).unsqueeze(1), torch.arange(10) % 2)
    some = part.evenly(4)
    assert some.x.flatten().tolist() == [0, 2, 5, 7]
    assert some.y is not None
    assert some.y.tolist() == [0, 0, 1, 1]
    assert len(part.evenly(40)) == 10


def test_few_labels_are_stratified_and_the_rest_unlabelled() -> None:
    y = torch.arange(100) % 4
    few = ArraySet(torch.zeros(100, 2), y).with_few_labels(8)
    assert torch.bincount(few.marked[few.marked >= 0]).tolist() == [2, 2, 2, 2]
    assert torch.equal(few.marked[few.marked >= 0], y[few.marked >= 0])
    with pytest.raises(ValueError, match="cannot keep 200 labels: the set of 100 examples"):
        few.with_few_labels(200)


def test_soft_labels_stay_rows() -> None:
    soft = torch.eye(3)[torch.arange(6) % 3]
    part = ArraySet(torch.zeros(6, 2), soft)
    assert part.batch(torch.tensor([1, 2])).y.shape == (2, 3)  # pyright: ignore
    assert part.marked.tolist() == [0, 1, 2, 0, 1, 2]
    with pytest.raises(ValueError, match=r"share of labelled examples is 1\.0"):
        Mixture(labelled=1.0)
