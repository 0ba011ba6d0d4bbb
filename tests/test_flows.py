import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from svae.flows import (
    ActNorm,
    Bijection,
    ConditionalFlow,
    Coupling,
    Permutation,
    Rotation,
    held_start,
)
from svae.nets import MapEncoder, MLPEncoder
from svae.saving import describe, rebuild
from tests.unchecked import as_a_user

HIDDEN = (8, 8)
# name → (features, context) → map; every law below holds for every one of them.
MAPS: dict[str, Callable[[int, int], Bijection]] = {
    "actnorm": lambda features, _: ActNorm(features),
    "permutation": lambda features, _: Permutation(features, seed=3),
    "rotation": lambda features, _: Rotation(features, seed=3),
    "coupling": lambda features, context: Coupling(features, context, HIDDEN),
    "flipped coupling": lambda features, context: Coupling(features, context, HIDDEN, flip=True),
    "spline": lambda features, context: Coupling(features, context, HIDDEN, bins=4),
    "flow": lambda features, context: ConditionalFlow(features, context, 2, HIDDEN),
    "spline flow": lambda features, context: ConditionalFlow(features, context, 2, HIDDEN, bins=4),
    "rotating flow": lambda features, context: ConditionalFlow(
        features, context, 2, HIDDEN, rotate=True
    ),
    "flow of maps": lambda features, context: ConditionalFlow(
        features, context, 2, HIDDEN, embed=MapEncoder(MAP, context, 2) if context else None
    ),
    "flow of vectors": lambda features, context: ConditionalFlow(
        features, context, 2, HIDDEN, embed=MLPEncoder((4,), context, (6,)) if context else None
    ),
}
MAP = (2, 3, 6)
RAW = {"flow of maps": MAP, "flow of vectors": (4,)}  # shapes of contexts that are embedded
SIZES = [(2, 0), (2, 3), (5, 0), (5, 3), (1, 0), (1, 3)]
CASES = [
    (name, *size) for name in MAPS for size in SIZES if not ("coupling" in name and size[0] == 1)
] + [("coupling", 1, 0), ("coupling", 1, 3)]
BATCHES = [(), (5,), (2, 3), (1,)]  # (1,): a batch of one example


def built(name: str, features: int, context: int, dtype: torch.dtype = torch.float64) -> Bijection:
    """A map far from the identity, as after training."""
    bijection = MAPS[name](features, context).to(dtype).eval()
    for parameter in bijection.parameters():
        nn.init.normal_(parameter, std=0.4)
    return bijection


def inputs(
    batch: tuple[int, ...],
    case: tuple[str, int, int],
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor | None]:
    name, features, context = case
    x = torch.randn(*batch, features, dtype=dtype)
    shape = RAW.get(name, (context,))
    return x, torch.randn(*batch, *shape, dtype=dtype) if context else None


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_inverse_undoes_forward(
    case: tuple[str, int, int], dtype: torch.dtype, tolerance: float
) -> None:
    bijection = built(*case, dtype)
    if "spline" in case[0]:
        tolerance *= 10  # the steepest pieces of a spline amplify the rounding of their knots
    for batch in BATCHES:
        x, context = inputs(batch, case, dtype)
        y, log_det = bijection(x, context)
        again, back = bijection.inverse(y, context)
        assert y.shape == x.shape
        assert log_det.shape == back.shape == batch
        assert y.dtype == log_det.dtype == again.dtype == dtype
        assert (again - x).abs().max() <= tolerance
        assert (log_det + back).abs().max() <= tolerance
        other, _ = bijection(bijection.inverse(x, context)[0], context)
        assert (other - x).abs().max() <= tolerance


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_log_det_is_that_of_the_jacobian(case: tuple[str, int, int], direction: str) -> None:
    bijection = built(*case)
    x, context = inputs((), case)
    function = getattr(bijection, direction)
    jacobian = torch.autograd.functional.jacobian(lambda value: function(value, context)[0], x)
    assert isinstance(jacobian, Tensor)
    log_det = function(x, context)[1]
    assert torch.allclose(log_det, torch.linalg.slogdet(jacobian).logabsdet, atol=1e-8)


@pytest.mark.parametrize("case", [case for case in CASES if case[0] != "permutation"], ids=str)
def test_a_trained_map_is_no_identity(case: tuple[str, int, int]) -> None:
    # Without this the laws above could hold for maps that do nothing.
    x, context = inputs((4,), case)
    assert not torch.allclose(built(*case)(x, context)[0], x, atol=1e-2)


@pytest.mark.parametrize("case", [case for case in CASES if case[2]], ids=str)
def test_a_row_of_context_acts_on_its_row_only(case: tuple[str, int, int]) -> None:
    bijection = built(*case)
    x, context = inputs((5,), case)
    assert context is not None
    changed = context.clone()
    changed[2] += 1
    for function in (bijection.forward, bijection.inverse):
        before, after = function(x, context)[0], function(x, changed)[0]
        others = torch.tensor([0, 1, 3, 4])
        assert torch.allclose(before[others], after[others], atol=1e-12)
        conditional = case[0] not in ("actnorm", "permutation", "rotation")
        assert conditional != torch.allclose(before[2], after[2], atol=1e-6)


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("name", [name for name in MAPS if "flow" in name])
def test_density_integrates_to_one(name: str, context: int) -> None:
    torch.manual_seed(1)
    flow = MAPS[name](2, context).double().eval()
    assert isinstance(flow, ConditionalFlow)
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.3)
    axis = torch.linspace(-20, 20, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    given = inputs((1,), (name, 2, context))[1]
    with torch.no_grad():
        rows = None if given is None else given.expand(len(grid), *given.shape[1:])
        total = flow.log_prob(grid, rows).exp().sum() * (axis[1] - axis[0]) ** 2
    assert total == pytest.approx(1, abs=1e-3)


def test_density_is_that_of_the_samples() -> None:
    # E[log p] under samples equals minus the entropy: base entropy plus the inverse's log-det.
    flow = built("flow", 2, 0)
    assert isinstance(flow, ConditionalFlow)
    noise = torch.randn(500, 2, dtype=torch.float64)
    value, log_det = flow.inverse(noise)
    base = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum(-1)
    assert torch.allclose(flow.log_prob(value), base - log_det, atol=1e-9)


def test_samples_have_a_row_for_every_context() -> None:
    flow = built("flow", 2, 3, torch.float32)
    assert isinstance(flow, ConditionalFlow)
    context = torch.randn(4, 3)
    first = flow.sample(6, context, torch.Generator().manual_seed(0))
    again = flow.sample(6, context, torch.Generator().manual_seed(0))
    assert first.shape == (6, 4, 2)
    assert torch.equal(first, again)
    noise = torch.randn(6, 4, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(flow(first, context.expand(6, 4, 3))[0], noise, atol=1e-4)
    assert ConditionalFlow(2).eval().sample(6).shape == (6, 2)


def test_an_embedding_is_computed_once_for_a_context() -> None:
    flow = built("flow of maps", 2, 3, torch.float32)
    assert isinstance(flow, ConditionalFlow)
    assert flow.embed is not None
    seen: list[torch.Size] = []
    flow.embed.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    context = torch.randn(4, *MAP)
    values = flow.sample(50, context)
    assert values.shape == (50, 4, 2)
    flow(values[0], context)
    flow.inverse(values[0], context)
    flow.log_prob(values[0], context)
    assert seen == 4 * [context.shape]


@pytest.mark.parametrize("name", RAW)
def test_an_embedding_is_part_of_the_flow(name: str) -> None:
    flow = built(name, 2, 3, torch.float32)
    again = rebuild(describe(flow)).eval()
    again.load_state_dict(flow.state_dict())
    x, context = inputs((5,), (name, 2, 3), torch.float32)
    for mine, theirs in zip(flow(x, context), again(x, context), strict=True):
        assert torch.equal(mine, theirs)
    flow(x, context)[0].sum().backward()
    assert isinstance(flow, ConditionalFlow)
    assert flow.embed is not None
    assert all(p.grad is not None and p.grad.isfinite().all() for p in flow.embed.parameters())


@pytest.mark.parametrize(("context", "width"), [(3, 4), (0, 4)])
def test_an_embedding_of_another_width_is_refused(context: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"gives {width} features .* context of {context}"):
        ConditionalFlow(2, context, embed=MLPEncoder((5,), width))
    with pytest.raises(ValueError, match="at least 1"):
        ConditionalFlow(2, embed=nn.Flatten())


@pytest.mark.parametrize("flip", [False, True])
def test_a_coupling_keeps_one_half(flip: bool) -> None:
    coupling = Coupling(5, 2, HIDDEN, flip)
    for parameter in coupling.parameters():
        nn.init.normal_(parameter)
    x, context = torch.randn(3, 5), torch.randn(3, 2)
    y = coupling(x, context)[0]
    moved = (x != y).all(0)
    assert moved.tolist() == [(i < 3) is flip for i in range(5)]


@pytest.mark.parametrize("features", [1, 2, 5])
@pytest.mark.parametrize("context", [0, 2])
def test_a_coupling_starts_as_the_identity(features: int, context: int) -> None:
    x = torch.randn(4, features)
    given = torch.randn(4, context) if context else None
    y, log_det = Coupling(features, context, HIDDEN)(x, given)
    assert torch.equal(y, x)
    assert torch.equal(log_det, torch.zeros(4))


def test_log_scales_are_bounded() -> None:
    coupling = Coupling(4, 0, HIDDEN, max_log_scale=0.5)
    for parameter in coupling.parameters():
        nn.init.normal_(parameter, std=50)
    log_det = coupling(torch.randn(50, 4))[1]
    assert log_det.abs().max() <= 2 * 0.5 + 1e-5
    assert log_det.abs().max() > 0.5


def test_permutations_differ_between_blocks() -> None:
    orders = [Permutation(16, seed=i)(torch.arange(16.0))[0] for i in range(3)]
    assert len({tuple(order.tolist()) for order in orders}) == 3


@pytest.mark.parametrize("features", [1, 2, 5, 64])
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e-3])
def test_a_rotation_is_orthogonal_whatever_its_parameters(features: int, scale: float) -> None:
    rotation = Rotation(features, seed=1)
    rotation.raw_vectors.data *= scale
    product = rotation.matrix @ rotation.matrix.mT
    assert torch.allclose(product, torch.eye(features), atol=1e-5)
    reflections = [
        torch.eye(features) - 2 * torch.outer(v, v) / v.square().sum()
        for v in rotation.raw_vectors.detach().T
    ]
    expected = reflections[0]
    for reflection in reflections[1:]:
        expected = expected @ reflection
    assert torch.allclose(rotation.matrix, expected, atol=1e-5)


def test_rotations_learn_and_differ_between_blocks() -> None:
    flow = ConditionalFlow(4, 0, 2, HIDDEN, rotate=True)
    rotations = [block for block in flow.blocks if isinstance(block, Rotation)]
    assert len(rotations) == 2
    assert not torch.allclose(rotations[0].matrix, rotations[1].matrix, atol=0.1)
    # A flow that mixes two correlated features can make them independent with the mixing alone.
    rotation, mix = Rotation(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    optimizer = torch.optim.Adam(rotation.parameters(), 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        covariance = rotation.matrix @ mix @ rotation.matrix.mT
        covariance[0, 1].square().backward()
        optimizer.step()
    assert (rotation.matrix @ mix @ rotation.matrix.mT)[0, 1].abs() < 1e-3


def test_actnorm_standardises_its_first_training_batch() -> None:
    norm, x = ActNorm(3), 4 + 2 * torch.randn(200, 3)
    y, log_det = norm(x)
    assert torch.allclose(y.mean(0), torch.zeros(3), atol=1e-4)
    assert torch.allclose(y.std(0), torch.ones(3), atol=1e-4)
    assert torch.allclose(log_det, -x.std(0).log().sum().expand(200), atol=1e-4)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    norm(100 * x)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def test_actnorm_waits_for_training() -> None:
    norm, x = ActNorm(3).eval(), 5 + torch.randn(50, 3)
    assert torch.equal(norm(x)[0], x)
    norm.train()
    norm.inverse(x)
    assert not norm.initialised
    assert norm(x)[0].mean().abs() < 1e-4


def uses(flow: ConditionalFlow) -> dict[str, Callable[[], object]]:
    x = torch.randn(6, 3)
    return {
        "forward": lambda: flow.eval()(x),
        "inverse": lambda: flow.eval().inverse(x),
        "inverse in training": lambda: flow.train().inverse(x),
        "log_prob": lambda: flow.eval().log_prob(x),
        "sample": lambda: flow.sample(2),
        "held start": lambda: held(flow.train(), x),
    }


def held(flow: ConditionalFlow, x: Tensor) -> object:
    with held_start():
        return flow(x)


@pytest.mark.parametrize("use", list(uses(ConditionalFlow(3))))
def test_a_flow_that_must_start_is_used_after_that_only(use: str) -> None:
    uses(ConditionalFlow(3, 0, 2, HIDDEN))[use]()  # no error unless asked for
    flow = ConditionalFlow(3, 0, 2, HIDDEN, must_start=True)
    assert not flow.started
    with pytest.raises(RuntimeError, match=r"not seen data yet.*training mode.*load weights"):
        uses(flow)[use]()
    flow.train()(torch.randn(20, 3))
    assert flow.started
    uses(flow)[use]()
    loaded = ConditionalFlow(3, 0, 2, HIDDEN, must_start=True)
    loaded.load_state_dict(flow.state_dict())
    uses(loaded)[use]()
    uses(copy.deepcopy(flow))[use]()


@pytest.mark.parametrize("how", ["state_dict", "deepcopy"])
def test_actnorm_remembers_that_it_is_initialised(how: str) -> None:
    flow = ConditionalFlow(3, 0, 1, HIDDEN)
    flow(5 + torch.randn(50, 3))
    if how == "deepcopy":
        copied = copy.deepcopy(flow)
    else:
        copied = ConditionalFlow(3, 0, 1, HIDDEN)
        copied.load_state_dict(flow.state_dict())
    copied.train()
    x = torch.randn(20, 3)
    for mine, theirs in zip(flow(x), copied(x), strict=True):
        assert torch.equal(mine, theirs)


def test_actnorm_of_one_example_and_of_a_constant_feature() -> None:
    norm = ActNorm(2)
    assert torch.equal(norm(torch.tensor([[3.0, 4.0]]))[0], torch.zeros(1, 2))
    assert torch.equal(norm.log_scale, torch.zeros(2))
    constant = ActNorm(2)
    constant(torch.stack([torch.randn(50), torch.ones(50)], -1))
    assert constant.log_scale[1].item() == pytest.approx(math.log(1e-2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", [name for name in MAPS if "flow" in name])
def test_log_dets_are_float32_under_autocast(name: str, dtype: torch.dtype) -> None:
    flow = built(name, 5, 3, torch.float32)
    x, context = inputs((4,), (name, 5, 3), torch.float32)
    assert context is not None
    x, context = x.to(dtype), context.to(dtype)
    expected = flow(x.float(), context.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        given = flow(x, context)
        back = flow.inverse(given[0], context)
    for mine, theirs in zip(given, expected, strict=True):
        assert mine.dtype == torch.float32
        # Only an embedding computes in half precision.
        assert name in RAW or torch.equal(mine, theirs)
    assert back[0].dtype == back[1].dtype == torch.float32
    assert (back[0] - x.float()).abs().max() < (1e-3 if "spline" in name else 1e-4)


def test_gradients_reach_every_parameter_and_the_context() -> None:
    flow = built("flow", 4, 2, torch.float32)
    assert isinstance(flow, ConditionalFlow)
    x, context = torch.randn(6, 4), torch.randn(6, 2, requires_grad=True)
    flow.log_prob(x, context).sum().backward()
    assert context.grad is not None
    assert (context.grad.abs().sum(-1) > 0).all()
    for name, parameter in flow.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("numbers", [(0, 0, 1), (2, -1, 1), (2, 0, 0)])
def test_numbers_out_of_range(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1 feature, 0 context features and 1 block"):
        ConditionalFlow(*numbers)


@pytest.mark.parametrize(
    ("x", "context", "match"),
    [
        (torch.zeros(3, 4), torch.zeros(3, 2), "vectors of 5 features, got 4"),
        (torch.zeros(3, 5), None, "context of 2 features, got none"),
        (torch.zeros(3, 5), torch.zeros(3, 4), "context of 2 features, got 4.*context=4"),
        (torch.zeros(3, 5), torch.zeros(1, 2), r"shape \(3,\) .* of \(1,\).*expand the context"),
    ],
)
def test_other_widths_are_refused(x: Tensor, context: Tensor | None, match: str) -> None:
    flow = ConditionalFlow(5, 2, 1, HIDDEN)
    with as_a_user(), pytest.raises(ValueError, match=match):
        flow(x, context)
    with as_a_user(), pytest.raises(ValueError, match=match):
        flow.inverse(x, context)
