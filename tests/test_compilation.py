import contextlib
import itertools
import math
import random
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from svae import guides, independence
from svae.compilation import MAX_RENEWALS, CompiledLoss, NotCompiled, Values
from svae.elbo import SupervisedELBO, without_flow
from svae.flows import ConditionalFlow
from svae.models import SVAE, SupervisedModel
from svae.nets import MLPEncoder
from svae.training import flow_loss
from tests import plain_pyro
from tests.parts import (
    N_X,
    PRIORS,
    SPLIT,
    K,
    Parts,
    batch,
    built,
    flow_prior,
    rows,
    singles,
)

EXACT = {torch.float32: 1e-5, torch.float64: 1e-10}
Found = tuple[Tensor, Values, dict[str, Tensor], dict[str, Tensor]]


def once(loss: Callable[..., tuple[Tensor, Values]], parts: nn.Module, *inputs: Tensor) -> Found:
    """Loss, values, gradients and buffers of one step from the state in hand, which it leaves."""
    parts.zero_grad()
    state = {name: value.clone() for name, value in parts.state_dict().items()}
    torch.manual_seed(3)
    value, named = loss(*inputs)
    value.backward()
    gradients = {n: p.grad.clone() for n, p in parts.named_parameters() if p.grad is not None}
    buffers = {name: buffer.clone() for name, buffer in parts.named_buffers()}
    parts.load_state_dict(state)
    return value.detach(), {n: v.detach() for n, v in named.items()}, gradients, buffers


def assert_same(
    parts: nn.Module, compiled: CompiledLoss, tolerance: float, *inputs: Tensor
) -> None:
    """The compiled loss gives what the loss gives, for the same noise."""
    wanted = once(compiled.loss, parts, *inputs)
    found = once(compiled, parts, *inputs)
    assert compiled.reason is None
    assert compiled.n_graphs >= 1
    for got, expected in zip(found, wanted, strict=True):
        got, expected = (t if isinstance(t, dict) else {"loss": t} for t in (got, expected))
        assert list(got) == list(expected)
        # What cancels to zero, as the gradient of a shift that has just been set to the mean, is
        # nothing but rounding of what it is summed from.
        total = math.sqrt(sum(float(v.double().square().sum()) for v in expected.values()))
        for name, value in expected.items():
            error = (got[name].double() - value.double()).norm()
            epsilon = torch.finfo(value.dtype).eps if value.is_floating_point() else 0.0
            assert error <= tolerance * value.double().norm() + 4 * epsilon * total, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("parts_of", list(singles()))
def test_loss_and_gradient_equal_those_as_written(
    parts_of: dict[str, Callable[[], Any]], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    parts = built(**{name: part() for name, part in parts_of.items()}).to(dtype)
    compiled = CompiledLoss(parts.loss, parts, compiler=False)
    flows = any(isinstance(module, ConditionalFlow) for module in parts.modules())
    weights = torch.tensor([*parts.objective.weights(7).values()], dtype=dtype)
    tolerance = 1e-4 if flows and dtype == torch.float32 else EXACT[dtype]
    assert_same(parts, compiled, tolerance, *batch(dtype=dtype), weights)


def test_inductor_gives_the_same() -> None:
    torch.manual_seed(0)
    parts = built(particles=2, free_bits={"style": 50.0}).double()
    compiled = CompiledLoss(parts.loss, parts, compiler=True)
    assert_same(parts, compiled, EXACT[torch.float64], *batch(dtype=torch.float64))


@pytest.mark.slow
@pytest.mark.parametrize("parts_of", list(rows()))
def test_inductor_gives_the_same_for_every_part(parts_of: dict[str, Callable[[], Any]]) -> None:
    # In the precision of a training; graphs are compared in float64 before they are compiled.
    torch.manual_seed(0)
    parts = built(**{name: part() for name, part in parts_of.items()})
    compiled = CompiledLoss(parts.loss, parts, compiler=True)
    flows = any(isinstance(module, ConditionalFlow) for module in parts.modules())
    assert_same(parts, compiled, 1e-4 if flows else EXACT[torch.float32], *batch())


def images(dropout: float = 0.2) -> Parts:
    torch.manual_seed(0)
    vae = SVAE.for_images((1, 8, 8), K, SPLIT, width=4, dropout=dropout, style_prior=flow_prior())
    parts = Parts(vae)
    parts.view = (without_flow(vae),)
    return parts.train()


def test_dropout_and_batch_norm() -> None:
    parts = images()
    x, y = torch.rand(12, 1, 8, 8), torch.arange(12) % K
    compiled = CompiledLoss(parts.loss, parts)
    before = {name: b.clone() for name, b in parts.named_buffers()}
    assert_same(parts, compiled, 1e-5, x, y)
    compiled(x, y)
    moved = [n for n, b in parts.named_buffers() if not torch.equal(b, before[n])]
    assert any("running_mean" in name for name in moved)
    assert any("num_batches_tracked" in name for name in moved)


def test_the_style_flow_alone() -> None:
    vae = built(prior=flow_prior()).vae
    model = vae.model
    assert isinstance(model, SupervisedModel)
    vae.eval()
    model.style_prior.train()  # its first batch initialises it, once
    codes = torch.randn(20, SPLIT.n_class), 3 * torch.randn(20, SPLIT.n_nuisance)

    def loss(z_class: Tensor, style: Tensor) -> tuple[Tensor, Values]:
        value = flow_loss(vae, z_class, style)
        return value, {"flow_loss": value}

    compiled = CompiledLoss(loss, vae, compiler=False)
    first, named = compiled(*codes)
    torch.testing.assert_close(named["flow_loss"], first.detach())
    assert compiled.n_graphs == 1
    assert_same(vae, compiled, 1e-4, *codes)
    first.backward()
    trained = {name for name, p in vae.named_parameters() if p.grad is not None}
    assert trained == {n for n, _ in vae.named_parameters() if "style_prior" in n}


def test_starting_from_the_first_batch_leaves_other_buffers() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.flow = nn.BatchNorm1d(3), ConditionalFlow(3, hidden=(4,))

        def loss(self, x: Tensor) -> tuple[Tensor, Values]:
            return -self.flow.log_prob(self.norm(x) + torch.randn_like(x)).mean(), {}

    torch.manual_seed(0)
    written, compiled_of = Both(), Both()
    compiled_of.load_state_dict(written.state_dict())
    x = 2 * torch.randn(30, 3) + 1
    compiled = CompiledLoss(compiled_of.loss, compiled_of, compiler=False)
    for loss in (written.loss, compiled):
        torch.manual_seed(5)
        loss(x)[0].backward()
    assert compiled.n_graphs == 1
    for (name, a), b in zip(
        written.state_dict().items(), compiled_of.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(a, b, msg=name)
    assert bool(compiled_of.flow.blocks[0].initialised)


@pytest.mark.parametrize("name", plain_pyro.MODELS)
def test_a_users_own_model_and_guide(name: str) -> None:
    torch.manual_seed(0)
    vae = SVAE(plain_pyro.MODELS[name](), plain_pyro.StructuredGuide(), (plain_pyro.N_X,))
    parts = Parts(vae, SupervisedELBO(particles=3, analytic=False))
    x = torch.rand(9, plain_pyro.N_X)
    y = torch.arange(9) % plain_pyro.N_CLASSES
    assert_same(parts, CompiledLoss(parts.loss, parts, compiler=False), 1e-5, x, y)


def test_autocast_is_part_of_the_graph() -> None:
    parts = built(prior=flow_prior())
    x, y = batch()
    compiled = CompiledLoss(parts.loss, parts, compiler=False)
    parts.loss(x, y)  # the flow starts from it
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(parts, compiled, 1e-6, x, y)
        low = once(compiled, parts, x, y)
    full = once(compiled, parts, x, y)
    assert compiled.n_graphs == 2  # the first in half precision, the second not
    assert not torch.equal(low[0], full[0])
    assert {value.dtype for value in low[1].values()} == {torch.float32}


def test_weights_are_inputs_and_no_constants() -> None:
    parts = built(warm_up=10, penalty=independence.HSIC(2.0))
    x, y = batch()
    compiled = CompiledLoss(parts.loss, parts, compiler=False)
    seen = set()
    for step in (0, 3, 7, 10):
        weights = torch.tensor([*parts.objective.weights(step).values()])
        assert_same(parts, compiled, 1e-5, x, y, weights)
        seen.add(float(once(compiled, parts, x, y, weights)[0]))
    assert len(seen) == 4
    assert compiled.n_graphs == 1


def test_every_call_has_new_noise_and_a_seed_repeats_it() -> None:
    parts = built()
    x, y = batch()
    compiled = CompiledLoss(parts.loss, parts, compiler=False)
    torch.manual_seed(1)
    first, second = (float(compiled(x, y)[0].detach()) for _ in range(2))
    torch.manual_seed(1)
    again = float(compiled(x, y)[0].detach())
    assert first == again
    assert first != second


def test_compiling_draws_nothing_and_changes_nothing() -> None:
    parts = images()
    x, y = torch.rand(12, 1, 8, 8), torch.arange(12) % K
    written = once(parts.loss, parts, x, y)
    compiled = once(CompiledLoss(parts.loss, parts, compiler=True), parts, x, y)
    torch.testing.assert_close(compiled[0], written[0])
    for name, value in written[3].items():
        torch.testing.assert_close(compiled[3][name], value, msg=name)


def test_a_smaller_last_batch_runs_as_written() -> None:
    parts = built()
    compiled = CompiledLoss(parts.loss, parts, compiler=False, max_graphs=1)
    assert_same(parts, compiled, 1e-5, *batch(15))
    assert_same(parts, compiled, 1e-5, *batch(4))
    assert compiled.n_graphs == 1
    twice = CompiledLoss(parts.loss, parts, compiler=False, max_graphs=2)
    twice(*batch(15))
    twice(*batch(4))
    assert twice.n_graphs == 2


class Awkward(nn.Module):
    """A guide whose mean is changed by something that a record cannot hold."""

    def __init__(self, twist: Callable[["Awkward", Tensor], Tensor]) -> None:
        super().__init__()
        self.net = nn.Linear(N_X, SPLIT.n_features)
        self.twist = twist
        self.count = 0
        self.scale = 1.0
        self.table: dict[Any, Any] = {"offsets": [0.0, 0.5]}
        self.offsets = [torch.zeros(()), torch.ones(())]
        self.settings = SimpleNamespace(shift=0.0)
        self.rng = random.Random(0)
        self.numbers = itertools.count(1)
        self.hidden = torch.zeros(())
        self.running: Tensor
        self.register_buffer("running", torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        shift = self.table["offsets"][0] + self.offsets[0] + self.settings.shift
        loc = SPLIT.split(self.twist(self, self.net(x)) * self.scale + shift)
        with pyro.plate("batch", len(x)):
            pyro.sample("z_class", dist.Normal(loc.z_class, 0.1).to_event(1))
            pyro.sample("style", dist.Normal(loc.z_nuisance, 0.1).to_event(1))


def by_value(guide: Awkward, loc: Tensor) -> Tensor:
    return loc if loc.mean() > 0 else 2 * loc


def by_item(guide: Awkward, loc: Tensor) -> Tensor:
    return loc * loc.max().item()


def by_shape(guide: Awkward, loc: Tensor) -> Tensor:
    return loc * len(loc[loc > 0])


def by_numpy(guide: Awkward, loc: Tensor) -> Tensor:
    return loc + float(np.random.normal())  # noqa: NPY002 - as users do


def by_random(guide: Awkward, loc: Tensor) -> Tensor:
    return loc * random.random()


def by_counting(guide: Awkward, loc: Tensor) -> Tensor:
    guide.count += 1
    return loc / guide.count


def by_hidden_tensor(guide: Awkward, loc: Tensor) -> Tensor:
    guide.hidden += 1
    return loc + guide.hidden


def numpys_place() -> object:
    """How far NumPy's global generator has come."""
    state: Any = np.random.get_state()  # noqa: NPY002
    return state[2]


def by_own_generator(guide: Awkward, loc: Tensor) -> Tensor:
    return loc + guide.rng.random()


def by_iterator(guide: Awkward, loc: Tensor) -> Tensor:
    return loc * next(guide.numbers)


def by_seeding(guide: Awkward, loc: Tensor) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return loc + torch.randn_like(loc)


def by_caching(guide: Awkward, loc: Tensor) -> Tensor:
    if len(loc) not in guide.table:
        guide.table[len(loc)] = torch.linspace(0, 1, len(loc)).unsqueeze(-1)
    return loc + guide.table[len(loc)]


def by_born_attribute(guide: Awkward, loc: Tensor) -> Tensor:
    guide.mean = loc.detach()
    return loc


def by_history(guide: Awkward, loc: Tensor) -> Tensor:
    guide.offsets.append(loc.detach().mean())
    return loc - guide.offsets[-1]


OUTER = nn.Parameter(torch.ones(1))


def by_outer_parameter(guide: Awkward, loc: Tensor) -> Tensor:
    return loc * OUTER


@pytest.mark.parametrize(
    ("twist", "reason"),
    [
        (by_value, r"test_compilation\.py:\d+ \(.*loc\.mean\(\) > 0.*\): the value of a tensor"),
        (by_item, r"test_compilation\.py:\d+ \(.*\.item\(\)\): the value of a tensor"),
        (by_shape, r"test_compilation\.py:\d+ \(.*loc > 0.*\): a shape depends on the values"),
        (by_numpy, "a number comes from elsewhere than torch's generator"),
        (by_random, "a number comes from elsewhere than torch's generator"),
        (by_own_generator, "a number comes from elsewhere than torch's generator"),
        (by_iterator, "(two records differ|the loss of the graph is another)"),
        (by_seeding, "the (loss|use of the generator) of the graph is another"),
        (by_caching, r"vae\.guide\.table changes while the loss runs"),
        (by_born_attribute, r"vae\.guide\.mean changes while the loss runs"),
        (by_history, r"vae\.guide\.offsets changes while the loss runs"),
        (by_outer_parameter, r"a parameter of shape \(1,\) is read that the module does not hold"),
        (by_counting, r"vae\.guide\.count changes while the loss runs"),
        (by_hidden_tensor, r"vae\.guide\.hidden changes while the loss runs"),
    ],
)
def test_what_cannot_be_recorded_runs_as_written_and_says_why(
    twist: Callable[[Awkward, Tensor], Tensor], reason: str
) -> None:
    guide = Awkward(twist)
    parts = built(guide=guide)
    x, y = batch()
    compiled = CompiledLoss(parts.loss, parts, compiler=False)
    before = numpys_place()
    with pytest.warns(NotCompiled, match=f"runs as it is written, only slower: .*{reason}"):
        compiled(x, y)[0].backward()
    assert compiled.n_graphs == 0
    after = numpys_place()
    if twist is by_numpy:  # as far as one call has drawn, not what was recorded in vain
        np.random.seed(0)  # noqa: NPY002 - as before every test
        parts.loss(x, y)
        before = numpys_place()
    assert after == before
    # What was recorded in vain has left nothing: one call, one count.
    assert guide.count == int(twist is by_counting)
    assert float(guide.hidden) == int(twist is by_hidden_tensor)
    assert len(guide.offsets) == 2 + int(twist is by_history)
    assert all(not isinstance(t, FakeTensor) for t in [*guide.offsets, *guide.table.values()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one warning, not one a step
        torch.manual_seed(0)
        found = compiled(x, y)[0]
    assert compiled.reason is not None
    depend_on_calls = (by_numpy, by_random, by_own_generator, by_iterator, by_counting)
    if twist not in (*depend_on_calls, by_history, by_hidden_tensor):
        torch.manual_seed(0)
        torch.testing.assert_close(found, parts.loss(x, y)[0])


def test_buffers_may_change_places() -> None:
    class Swapping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))
            self.a: Tensor
            self.b: Tensor
            self.register_buffer("a", torch.tensor(2.0))
            self.register_buffer("b", torch.tensor(5.0))

        def loss(self, x: Tensor) -> tuple[Tensor, Values]:
            self.a, self.b = self.b, self.a + 1
            return (self.weight * x * self.a).sum(), {}

    written, recorded = Swapping(), Swapping()
    compiled = CompiledLoss(recorded.loss, recorded, compiler=False)
    for _ in range(4):
        wanted, found = written.loss(torch.ones(3))[0], compiled(torch.ones(3))[0]
        assert float(found.detach()) == float(wanted.detach())
        assert (float(recorded.a), float(recorded.b)) == (float(written.a), float(written.b))
    assert compiled.n_graphs == 1


def test_model_and_guide_may_share_a_module() -> None:
    shared = nn.Linear(N_X, 8)
    vae = built(guide=guides.MeanFieldGuide(MLPEncoder((N_X,), 8, hidden=(8,)), SPLIT)).vae
    guide, model = vae.guide, vae.model
    assert isinstance(guide, guides.MeanFieldGuide)
    guide.encoder = nn.Sequential(shared, nn.Tanh())
    assert isinstance(model, nn.Module)
    model.extra = shared
    parts = Parts(vae)
    assert_same(parts, CompiledLoss(parts.loss, parts, compiler=False), 1e-5, *batch())
    assert type(shared.weight) is nn.Parameter


def test_parameters_of_pyro_are_trained() -> None:
    from pyro.nn import PyroModule, PyroParam

    class Guide(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(N_X, SPLIT.n_features)
            scale: Any = PyroParam(torch.full((7,), 0.3), constraint=dist.constraints.positive)
            self.scale = scale

        def forward(self, x: Tensor, y: Tensor | None = None) -> None:
            loc, scale = SPLIT.split(self.net(x)), SPLIT.split(self.scale.expand(len(x), 7))
            with pyro.plate("batch", len(x)):
                pyro.sample("z_class", dist.Normal(loc.z_class, scale.z_class).to_event(1))
                pyro.sample("style", dist.Normal(loc.z_nuisance, scale.z_nuisance).to_event(1))

    parts = built(guide=Guide())
    x, y = batch()
    parts.vae.check(x)
    compiled = CompiledLoss(parts.loss, parts, compiler=False)
    compiled(x, y)[0].backward()
    assert compiled.n_graphs == 1
    gradients = [p.grad for name, p in parts.named_parameters() if "scale_unconstrained" in name]
    assert len(gradients) == 1
    assert gradients[0] is not None
    assert len(pyro.get_param_store()) == 0


def test_a_replaced_buffer_is_kept() -> None:
    def average(guide: Awkward, loc: Tensor) -> Tensor:
        guide.running = 0.9 * guide.running + 0.1 * loc.detach().mean()
        return loc - guide.running

    parts = built(guide=Awkward(average))
    compiled = CompiledLoss(parts.loss, parts, compiler=False)
    assert_same(parts, compiled, 1e-5, *batch())
    guide = parts.vae.guide
    assert isinstance(guide, Awkward)
    before = float(guide.running)
    compiled(*batch())
    assert float(guide.running) != before


def change_scale(guide: Awkward) -> None:
    guide.scale *= 0.5


def change_table(guide: Awkward) -> None:
    guide.table["offsets"][0] += 1.0


def change_mode(guide: Awkward) -> None:
    guide.train(not guide.training)


def change_tensor_in_list(guide: Awkward) -> None:
    guide.offsets[0].add_(1.0)


def change_object(guide: Awkward) -> None:
    guide.settings.shift += 1.0


def change_module(guide: Awkward) -> None:
    guide.net = nn.Linear(N_X, SPLIT.n_features)


def freeze(guide: Awkward) -> None:
    guide.net.bias.requires_grad_(False)


def replace(guide: Awkward) -> None:
    guide.net.weight = nn.Parameter(guide.net.weight.detach() + 1)


CHANGES = [
    *(change_scale, change_table, change_tensor_in_list, change_object, change_mode),
    *(change_module, freeze, replace),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_from_outside_is_recorded_anew(change: Callable[[Awkward], None]) -> None:
    guide = Awkward(lambda guide, loc: loc + guide.training)
    parts = built(guide=guide)
    compiled = CompiledLoss(parts.loss, parts, compiler=False)
    assert_same(parts, compiled, 1e-5, *batch())
    change(guide)
    assert_same(parts, compiled, 1e-5, *batch())
    assert compiled.n_graphs == 2


def test_what_changes_all_the_time_is_not_recorded_for_ever() -> None:
    guide = Awkward(lambda _, loc: loc)
    parts = built(guide=guide)
    compiled = CompiledLoss(parts.loss, parts, compiler=False)
    warned: Any = contextlib.nullcontext()
    for step in range(MAX_RENEWALS + 3):
        if step == MAX_RENEWALS + 1:
            warned = pytest.warns(NotCompiled, match=r"vae\.guide\.scale changes again and again")
        with warned:
            torch.manual_seed(0)
            found = compiled(*batch())[0]
        warned = contextlib.nullcontext()
        torch.manual_seed(0)
        torch.testing.assert_close(found, parts.loss(*batch())[0])
        change_scale(guide)
    assert compiled.n_graphs == MAX_RENEWALS + 1


def test_a_factor_on_the_loss_reaches_the_gradient() -> None:
    parts = built()
    compiled = CompiledLoss(parts.loss, parts, compiler=False)
    whole = once(compiled, parts, *batch())[2]
    parts.zero_grad()
    for _ in range(2):
        torch.manual_seed(3)
        (0.5 * compiled(*batch())[0]).backward()
    for name, parameter in parts.named_parameters():
        torch.testing.assert_close(parameter.grad, whole.get(name))
    loss = compiled(*batch())[0]
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        loss.backward()


def test_without_gradients_nothing_is_recorded() -> None:
    parts = built()
    compiled = CompiledLoss(parts.loss, parts, compiler=False)
    with torch.no_grad():
        compiled(*batch())
    x, y = batch()
    compiled(x.requires_grad_(), y)[0].backward()
    assert x.grad is not None
    assert compiled.n_graphs == 0


def test_a_missing_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Callable[..., object]:
        def run(*_: object) -> object:
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found in ...")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    parts = built()
    compiled = CompiledLoss(parts.loss, parts, compiler=True)
    with pytest.warns(NotCompiled, match=r"no working C\+\+ compiler was found; install g\+\+"):
        compiled(*batch())


def test_the_seconds_are_reported_once() -> None:
    seconds: list[float] = []
    parts = built()
    compiled = CompiledLoss(parts.loss, parts, compiler=False, on_compiled=seconds.append)
    for _ in range(3):
        compiled(*batch())
    assert len(seconds) == 1
    assert seconds[0] > 0


def test_at_least_one_graph() -> None:
    with pytest.raises(ValueError, match="max_graphs must be at least 1, got 0"):
        CompiledLoss(lambda: (torch.zeros(()), {}), nn.Linear(1, 1), max_graphs=0)


@pytest.mark.gpu
@pytest.mark.parametrize("prior", PRIORS, ids=lambda kind: kind.__name__)
def test_a_replayed_step_is_the_same_and_never_waits(prior: type) -> None:
    torch.manual_seed(0)
    parts = built(prior=PRIORS[prior]()).cuda()
    x, y = (t.cuda() for t in batch())
    compiled = CompiledLoss(parts.loss, parts)
    assert_same(parts, compiled, 1e-4, x, y)
    other = 1 - x  # the inputs of the graph are not those it was recorded with
    assert_same(parts, compiled, 1e-4, other, y)
    torch.manual_seed(1)
    first, second = (compiled(x, y)[0].detach() for _ in range(2))
    torch.manual_seed(1)
    again = compiled(x, y)[0].detach()
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    torch.cuda.set_sync_debug_mode("error")
    try:
        compiled(x, y)[0].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
