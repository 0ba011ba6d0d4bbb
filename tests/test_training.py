import contextlib
import copy
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pyro
import pyro.distributions as dist
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor, nn

import svae
from svae.compilation import NotCompiled
from svae.data import ArrayData, ArraySet, Batch, Mixture, as_data
from svae.elbo import SupervisedELBO, without_flow
from svae.flows import ConditionalFlow
from svae.heads import GaussianHead, NetworkHead
from svae.independence import Penalty
from svae.latent import Latent, LatentSplit
from svae.likelihoods import Bernoulli, Columns, DiscretisedLogistic, Likelihood
from svae.models import SVAE, SupervisedModel
from svae.priors import FlowPrior, StandardPrior
from svae.sites import means
from svae.training import (
    CollapsedBlock,
    FlowNotFitted,
    NonFiniteLoss,
    Recipe,
    SVAEModule,
    flow_loss,
    trainer_settings,
)
from svae.training.tally import Tally
from tests.unchecked import as_a_user

# Networks this small have seen too little after one epoch to use their latents.
pytestmark = pytest.mark.filterwarnings("ignore::svae.training.CollapsedBlock")

ROOT = Path(__file__).parents[1]
SPLIT = LatentSplit(2, 2)
PLAIN = {"accelerator": "cpu", "enable_progress_bar": False}


def clusters(n: int = 200, batch_size: int = 16) -> ArrayData:
    """Three classes of vectors in [0, 1]: ten steps of an epoch are 160 examples."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 3
    centres = torch.rand(3, 6, generator=generator)
    x = (centres[y] + 0.1 * torch.randn(n, 6, generator=generator)).clamp(0, 1)
    return as_data((x, y), batch_size=batch_size)


def small(flow: bool = True, seed: int = 0) -> SVAE:
    torch.manual_seed(seed)
    prior = FlowPrior(ConditionalFlow(2, 3, n_blocks=1, hidden=(8,))) if flow else StandardPrior(2)
    return SVAE.for_vectors(6, 3, SPLIT, style_prior=prior, hidden=(16,))


def fit(vae: SVAE, data: object | None = None, **settings: Any) -> Path | None:
    return svae.fit(
        vae, clusters() if data is None else data, **{"max_epochs": 2, **PLAIN, **settings}
    )


def weights(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(module.state_dict())


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert different == []


class Diary(Checkpoint):
    """Losses of every step, scores and weights of every epoch.

    Lightning calls checkpoints last, when the module has logged the means of the epoch.
    """

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}
        self.scores: list[float] = []
        self.weights: list[dict[str, Tensor]] = []
        self.metrics: list[dict[str, float]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses[trainer.global_step] = float(outputs["loss"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.metrics.append({k: float(v) for k, v in trainer.callback_metrics.items()})
        self.scores.append(float(trainer.callback_metrics["validation/loss"]))
        self.weights.append(weights(cast(SVAEModule, pl_module).vae))


class At(pl.Callback):
    """Does something to the module before a step."""

    def __init__(self, step: int, act: Callable[[SVAEModule], object]) -> None:
        self.step, self.act = step, act

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            self.act(pl_module)


def interrupt(_: SVAEModule) -> None:
    raise KeyboardInterrupt


def loss_of(vae: SVAE, data: ArrayData) -> float:
    torch.manual_seed(0)
    with torch.no_grad():
        return float(SupervisedELBO(particles=32)(vae.eval(), data.train.floats(), _y(data))[0])


def _y(data: ArrayData) -> Tensor:
    return cast(Tensor, data.train.y)


def test_twenty_steps_lower_the_loss() -> None:
    data, vae = clusters(), small(flow=False)
    before = loss_of(vae, data)
    fit(vae, data)
    assert loss_of(vae, data) < 0.8 * before
    assert not vae.training


def test_twenty_steps_lower_the_loss_of_the_flow() -> None:
    data, vae, diary = clusters(), small(), Diary()
    # Long enough, and with little noise on the codes, that they know the class.
    recipe = Recipe(flow_share=2 / 12, flow_learning_rate=0.02)
    objective = SupervisedELBO(beta_style=0.01)
    fit(vae, data, callbacks=diary, max_epochs=12, recipe=recipe, objective=objective)
    phase = [diary.losses[step] for step in range(101, 121)]
    # ActNorm alone standardises the first batch; from there on it must be learned.
    assert sum(phase[-5:]) < sum(phase[:5]) - 0.2
    x = data.validation.floats()
    torch.manual_seed(0)
    trained = flow_loss(vae, *means(vae.guide, x, sample=True))
    torch.manual_seed(0)
    assert trained < flow_loss(without_flow(vae), *means(vae.guide, x, sample=True))


@pytest.mark.parametrize("joint", [False, True])
def test_same_seed_same_weights(joint: bool) -> None:
    recipe = Recipe(joint=joint)
    found = []
    for seed, noise in ((1, 1), (1, 1), (1, 2)):
        vae = small(seed=seed)
        torch.manual_seed(len(found))  # what came before must not matter
        fit(vae, clusters(80), seed=noise, recipe=recipe)
        found.append(weights(vae))
    assert_equal(found[0], found[1])
    assert any(not torch.equal(found[0][name], found[2][name]) for name in found[0])


def test_training_leaves_no_global_parameters() -> None:
    fit(small(), clusters(80))
    assert len(pyro.get_param_store()) == 0


def test_the_best_weights_by_validation_are_left(tmp_path: Path) -> None:
    def spoil(module: SVAEModule) -> None:
        for p in module.vae.parameters():
            p.data.add_(torch.randn_like(p))

    diary, vae = Diary(), small(flow=False)
    fit(vae, callbacks=[diary, At(30, spoil)], max_epochs=4, out=tmp_path)
    assert diary.scores.index(min(diary.scores)) == 2
    assert diary.scores[3] > diary.scores[2] + 1
    assert_equal(weights(vae), diary.weights[2])


def test_phases_train_their_own_parts() -> None:
    diary, vae = Diary(), small()
    start = weights(vae)

    def spoil(module: SVAEModule) -> None:
        for p in cast(nn.Module, module.vae.guide).parameters():
            p.data.add_(torch.randn_like(p))

    fit(vae, callbacks=[diary, At(10, spoil)], max_epochs=4, recipe=Recipe(flow_share=0.5))
    flow = {name for name in start if "style_prior" in name}
    others = {name for name, _ in vae.named_parameters()} - flow

    def changed(a: dict[str, Tensor], b: dict[str, Tensor]) -> set[str]:
        return {name for name in a if not torch.equal(a[name], b[name])}

    first, second, third, fourth = diary.weights
    assert changed(start, first) == changed(first, second) == others
    assert changed(third, fourth) <= flow
    assert len(changed(third, fourth)) >= len(
        list(cast(SupervisedModel, vae.model).style_prior.parameters())
    )
    # The second phase starts from the best weights of the first.
    assert diary.scores[0] < diary.scores[1]
    assert changed(first, third) <= flow
    assert changed(first, weights(vae)) <= flow


def test_joint_training_moves_everything() -> None:
    diary, vae = Diary(), small()
    start = weights(vae)
    fit(vae, callbacks=diary, recipe=Recipe(joint=True, flow_share=0.0))
    trained = {name for name, p in vae.named_parameters()}
    assert all(not torch.equal(start[name], diary.weights[0][name]) for name in trained)
    assert all(not torch.equal(diary.weights[1][name], diary.weights[0][name]) for name in trained)


@pytest.mark.parametrize(
    "step",
    [4, 15, 22, 46],
    ids=["first-epoch", "first-phase", "second-phase-not-yet-saved", "second-phase"],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    step: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"max_epochs": 5, "recipe": Recipe(flow_share=0.6), "seed": 3}

    def spoil(module: SVAEModule) -> None:
        for p in module._flows.parameters():
            p.data.add_(0.3)

    # So that the best weights of the second phase, and those to go on from, are not the same.
    worse = At(30, spoil)
    whole, vae = Diary(), small()
    fit(vae, callbacks=[whole, worse], out=tmp_path / "whole", **settings)
    assert whole.scores[2] < whole.scores[3]
    with pytest.raises(SystemExit):
        fit(small(), callbacks=[At(step, interrupt), worse], out=tmp_path / "cut", **settings)
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    assert f"interrupted in epoch {step // 10 + 1} of 5" in caplog.text
    assert f"with resume goes on from {last}" in caplog.text
    rest, resumed = Diary(), small(seed=9)  # its initial weights must not matter
    fit(resumed, callbacks=[rest, worse], out=tmp_path / "cut", resume=True, **settings)
    first = step - step % 10 + 1
    assert list(rest.losses) == list(range(first, 51))
    assert rest.losses == {k: v for k, v in whole.losses.items() if k >= first}
    for alone, again in zip(whole.metrics[-len(rest.metrics) :], rest.metrics, strict=True):
        assert again == {name: alone[name] for name in again}
    assert_equal(weights(resumed), weights(vae))


def test_a_compiled_run_equals_one_as_written() -> None:
    diaries = [Diary(), Diary()]
    for diary, compiled in zip(diaries, (True, False), strict=True):
        fit(small(), callbacks=diary, compile=compiled, seed=3)
    found, wanted = diaries
    assert found.losses == pytest.approx(wanted.losses, rel=1e-4)
    for a, b in zip(found.metrics, wanted.metrics, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("step", [4, 25], ids=["first-phase", "second-phase"])
def test_a_compiled_run_resumes_bit_for_bit(step: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"max_epochs": 4, "seed": 3, "compile": True}
    whole, vae = Diary(), small()
    fit(vae, callbacks=whole, out=tmp_path / "whole", **settings)
    with pytest.raises(SystemExit):
        fit(small(), callbacks=At(step, interrupt), out=tmp_path / "cut", **settings)
    rest, resumed = Diary(), small(seed=9)
    fit(resumed, callbacks=rest, out=tmp_path / "cut", resume=True, **settings)
    first = step - step % 10 + 1
    assert rest.losses == {k: v for k, v in whole.losses.items() if k >= first}
    assert_equal(weights(resumed), weights(vae))


def test_compiling_says_how_long_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    fit(small(), clusters(80), compile=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if "graph" in line]
    assert len(lines) == 2
    assert lines[0].startswith("the step of model and guide runs from a graph, made in ")
    assert lines[1].startswith("the step of the flow runs from a graph, made in ")
    fit(small(), clusters(80))  # too short a run to pay a compilation back
    assert "graph" not in capsys.readouterr().out
    with as_a_user(), pytest.raises(ValueError, match=r"compile must be .* got 'always'"):
        SVAEModule(small(), compile="always")  # pyright: ignore[reportArgumentType]


class Peeking(nn.Module):
    """A guide that looks at a value, which no graph can."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(6, 4)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        loc = self.net(x)
        loc = loc if loc.mean() > 0 else -loc
        with pyro.plate("batch", len(x)):
            for name, part in zip(("z_class", "style"), loc.split(2, -1), strict=True):
                pyro.sample(name, dist.Normal(part, 0.1).to_event(1))


def test_a_guide_that_cannot_be_compiled_trains_as_written() -> None:
    diaries = [Diary(), Diary()]
    for diary, compiled in zip(diaries, (True, False), strict=True):
        vae = SVAE(small(flow=False).model, Peeking(), (6,))
        torch.manual_seed(0)
        cast(Any, vae.guide).net.reset_parameters()
        warned: Any = contextlib.nullcontext()
        if compiled:
            warned = pytest.warns(NotCompiled, match=r"loc\.mean\(\) > 0")
        with warned:
            fit(vae, clusters(80), callbacks=diary, compile=compiled, max_epochs=1)
    assert diaries[0].losses == diaries[1].losses


class Norms(pl.Callback):
    """Norms of the gradient as the optimizer gets it."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_before_zero_grad(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms = [g.norm() for g in grads if g is not None]
        if norms:
            self.seen.append(float(torch.stack(norms).norm()))


@pytest.mark.parametrize("compiled", [True, False])
def test_clipping_and_accumulation_reach_the_gradient(compiled: bool) -> None:
    norms, diary = Norms(), Diary()
    settings: dict[str, Any] = {"gradient_clip_val": 0.5, "accumulate_grad_batches": 2}
    fit(small(), callbacks=[norms, diary], compile=compiled, max_epochs=1, **settings)
    assert max(norms.seen) == pytest.approx(0.5, rel=1e-3)
    assert max(diary.losses) == 5  # ten batches, two for each step


def test_nothing_to_resume_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vae = small(flow=False)
    fit(vae, clusters(80), resume=True, out=tmp_path, max_epochs=1)
    assert "nothing to resume" in caplog.text
    assert str(tmp_path / "checkpoints" / "last.ckpt") in caplog.text
    with pytest.raises(ValueError, match="resume=True needs out="):
        fit(vae, resume=True)


class _Spoilt(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * math.nan


class Bomb(Penalty):
    """Not finite at its n-th training batch, or only its gradient is."""

    name = "bomb"

    def __init__(self, at: int, value: float = math.nan, gradient: bool = False) -> None:
        super().__init__()
        self.left, self.value, self.gradient = at, value, gradient

    def forward(self, vae: SVAE, x: Tensor, y: Tensor, latent: Latent) -> Tensor:
        total = 0 * latent.z_class.sum()
        self.left -= torch.is_grad_enabled()
        if self.left or not torch.is_grad_enabled():
            return total
        return cast(Tensor, _Spoilt.apply(total)) if self.gradient else total + self.value


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_first_nan_stops_and_checkpoints_stay(value: float, tmp_path: Path) -> None:
    objective = SupervisedELBO(penalties=[Bomb(14, value)])
    message = rf"^bomb = {value} in batch 3 of epoch 1 \(step 13\).*learning rate.*best\.ckpt"
    with pyro.validation_enabled(True), pytest.raises(NonFiniteLoss, match=message):
        fit(small(), objective=objective, out=tmp_path, max_epochs=4)
    for name in ("best", "last"):
        state = torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert state["global_step"] == 10
        assert all(bool(torch.isfinite(v).all()) for v in state["state_dict"].values())


def test_a_nan_from_the_last_step_of_an_epoch_is_not_saved(tmp_path: Path) -> None:
    objective = SupervisedELBO(penalties=[Bomb(20, gradient=True)])
    stopped = pytest.raises(NonFiniteLoss, match="nan in validation batch 0 of epoch 1")
    with pyro.validation_enabled(True), stopped:
        fit(small(), objective=objective, out=tmp_path, max_epochs=4)
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 10


def test_a_tally_knows_the_means_and_the_first_that_is_not_finite() -> None:
    tally = Tally()
    assert tally.first_not_finite() is None
    assert tally.means() == {}
    for step, value in enumerate([1.0, 3.0]):
        tally.add({"loss": torch.tensor(value), "rate": torch.tensor(2.0)}, step, step)
    assert tally.first_not_finite() is None
    assert {name: float(mean) for name, mean in tally.means().items()} == {"loss": 2, "rate": 2}
    for step, value in ((7, math.inf), (8, math.nan), (9, 1.0)):
        tally.add({"loss": torch.tensor(5.0), "rate": torch.tensor(value)}, step, step - 6)
    found = tally.first_not_finite()
    assert found is not None
    values, step, batch = found
    assert {name: float(value) for name, value in values.items()} == {"loss": 5, "rate": math.inf}
    assert (step, batch) == (7, 1)


@pytest.mark.gpu
def test_training_on_an_accelerator_waits_once_an_interval() -> None:
    class Strict(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            due = (trainer.global_step + 1) % 5 == 0
            # The first steps compile and capture.
            strict = trainer.global_step > 2 and not due
            torch.cuda.set_sync_debug_mode("error" if strict else "default")

        def on_train_batch_end(self, *_: Any) -> None:
            torch.cuda.set_sync_debug_mode("default")

    settings = {"accelerator": "gpu", "enable_progress_bar": False, "log_every_n_steps": 5}
    diary, data = Diary(), clusters()
    svae.fit(small(), data, compile=True, max_epochs=4, callbacks=[Strict()], **settings)
    assert set(data._moved) == {"train", "validation"}
    svae.fit(small(), clusters(), compile=False, max_epochs=2, callbacks=[diary], **settings)
    assert all(math.isfinite(loss) for loss in diary.losses.values())


def test_a_nan_in_the_flow_is_named() -> None:
    def spoil(module: SVAEModule) -> None:
        next(module._flows.parameters()).data.fill_(math.nan)

    stopped = pytest.raises(NonFiniteLoss, match="flow_loss = nan in batch 4 of epoch 1")
    with pyro.validation_enabled(True), stopped:
        fit(small(), callbacks=At(14, spoil))


def test_a_collapsed_block_is_a_named_warning() -> None:
    vae = small(flow=False)
    rows = cast(Any, vae.guide).parameters_of
    nn.init.zeros_(rows.weight[2:4].data)
    with pytest.warns(CollapsedBlock) as seen:
        fit(vae, clusters(80), max_epochs=1, recipe=Recipe(learning_rate=1e-9))
    warned = [str(warning.message) for warning in seen]
    assert any("style block has collapsed: none of its 2 units" in text for text in warned)
    assert any("beta_style" in text for text in warned)


def test_a_block_in_use_is_none(recwarn: pytest.WarningsRecorder) -> None:
    vae, diary = small(flow=False), Diary()
    with torch.no_grad():
        cast(Any, vae.guide).parameters_of.weight[:2].mul_(50)
    fit(vae, clusters(80), max_epochs=1, recipe=Recipe(learning_rate=1e-9), callbacks=diary)
    assert not [w for w in recwarn if "class block" in str(w.message)]
    assert diary.metrics[0]["validation/active_class"] == 2


@pytest.mark.parametrize("kept", [0, 100, 3000])
def test_a_damaged_checkpoint(kept: int, tmp_path: Path) -> None:
    fit(small(), clusters(80), out=tmp_path)
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"cannot resume from .*last\.ckpt: it is damaged"):
        fit(small(), clusters(80), out=tmp_path, resume=True, max_epochs=3)


def test_a_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    fit(small(), clusters(80), out=tmp_path)
    wider = SVAE.for_vectors(6, 3, SPLIT, hidden=(17,))
    with pytest.raises(ValueError, match=r"another architecture \((?s:.)*size mismatch"):
        fit(wider, clusters(80), out=tmp_path, resume=True, max_epochs=3)


def test_data_that_do_not_fit_the_model() -> None:
    x, y = torch.rand(60, 7), torch.arange(60) % 3
    with pytest.raises(ValueError, match=r"built for x of shape \(6,\), the data have \(7,\)"):
        fit(small(), (x, y))
    with pytest.raises(ValueError, match="model has 3 classes, the data 4"):
        fit(small(), (x[:, :6], torch.arange(60) % 4))


def test_unlabelled_data_say_why_not() -> None:
    data = clusters()
    bare = ArraySet(data.train.x)
    with pytest.raises(ValueError, match="labels"):
        fit(small(), bare)
    with pytest.raises(ValueError, match="needs labels"):
        SVAEModule(small()).training_step(Batch(torch.rand(4, 6)), 0)


def test_a_model_without_parameters_to_train() -> None:
    vae = small().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameters to train"):
        fit(vae, clusters(80), objective=SupervisedELBO())


def test_only_svaes_are_fitted() -> None:
    with pytest.raises(TypeError, match=r"cannot fit Linear: expected an svae\.SVAE"):
        svae.fit(nn.Linear(2, 2), clusters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flow_share": 1.0}, "flow_share .* 1.0"),
        ({"flow_share": -0.1}, "flow_share .* -0.1"),
        ({"learning_rate": 0.0}, "must be positive .* 0.0"),
        ({"flow_learning_rate": -1.0}, "must be positive .* -1.0"),
        ({"weight_decay": -1.0}, "at least 0.* -1.0"),
        ({"mean_share": 1.5}, "mean_share .* 1.5"),
        ({"flow_batch_size": 1}, "at least 2, got 1"),
    ],
)
def test_recipes_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**settings)


def test_logs_hold_every_term(tmp_path: Path) -> None:
    logs = fit(small(), out=tmp_path, max_epochs=2, seed=1)
    assert logs is not None
    header, *rows = (logs / "metrics.csv").read_text().splitlines()
    wanted = {"loss", "distortion", "rate_class", "rate_style", "label_loss"}
    assert {f"train/{name}" for name in wanted} <= set(header.split(","))
    wanted |= {"accuracy", "active_class", "active_style"}
    assert {f"validation/{name}" for name in wanted} <= set(header.split(","))
    assert "train/flow_loss" in header
    assert len(rows) >= 2
    assert list(logs.glob("events.out.tfevents.*"))


def test_epoch_means_are_means_of_steps() -> None:
    diary = Diary()
    fit(small(flow=False), callbacks=diary, max_epochs=1)
    steps = list(diary.losses.values())
    assert len(steps) == 10
    assert diary.metrics[0]["train/loss"] == pytest.approx(sum(steps) / 10, rel=1e-5)


@pytest.mark.parametrize(
    "head", [GaussianHead(2, 3), NetworkHead(2, 3)], ids=["gaussian", "linear"]
)
def test_half_precision_keeps_log_densities_in_float32(head: Any) -> None:
    flow = FlowPrior(ConditionalFlow(2, 3, n_blocks=1, hidden=(8,)))
    vae = SVAE.for_vectors(6, 3, SPLIT, head=head, style_prior=flow, hidden=(16,)).eval()
    x, y = torch.rand(32, 6), torch.arange(32) % 3
    objective = SupervisedELBO(particles=256)
    exact = objective(vae, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert cast(Any, vae.guide).encoder(x).dtype == torch.bfloat16
        rows = objective.terms(vae.model, vae.guide, x, y)
        loss, terms = objective(vae, x, y)
        assert flow_loss(vae, *means(vae.guide, x, sample=True)).dtype == torch.float32
    for name, term in {**rows, **terms, "loss": loss}.items():
        assert term.dtype == torch.float32, name
    for name, term in exact[1].items():
        torch.testing.assert_close(terms[name], term, atol=0.05, rtol=0.05)


def test_training_in_half_precision() -> None:
    data, vae, diary = clusters(), small(), Diary()
    before = loss_of(vae, data)
    fit(vae, data, precision="bf16-mixed", callbacks=diary)
    assert all(math.isfinite(loss) for loss in diary.losses.values())
    assert {p.dtype for p in vae.parameters()} == {torch.float32}
    assert loss_of(without_flow(vae), data) < before


class NearlyCertain(nn.Module):
    """A guide whose noise is too small to see, so that processes can be compared."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.Linear(16, 4))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            for name, loc in zip(("z_class", "style"), self.net(x).split(2, -1), strict=True):
                pyro.sample(name, dist.Normal(loc, 1e-5).to_event(1))


def train_in_processes(devices: int, out: Path, **settings: Any) -> None:
    """Four epochs of global batches of 16; every process writes what it saw."""
    torch.set_num_threads(1)
    vae = small()
    vae = SVAE(vae.model, NearlyCertain(), (6,))
    diary = Diary()
    data = clusters(batch_size=16 // devices)
    fit(vae, data, callbacks=diary, max_epochs=4, devices=devices, out=out, **settings)
    rank = os.environ.get("LOCAL_RANK", "0")
    # Not the best weights, which all processes read from one file.
    torch.save(diary.weights[-1], out / f"weights{rank}.pt")
    losses = [{k: v for k, v in m.items() if k != "loss"} for m in diary.metrics]
    (out / f"losses{rank}.json").write_text(json.dumps(losses))


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.test_training import train_in_processes\n"
        "if __name__ == '__main__':\n"
        "    train_in_processes(2, Path(sys.argv[1]))\n"
    )
    one, two = tmp_path / "one", tmp_path / "two"
    two.mkdir()
    done = subprocess.run(
        [sys.executable, str(script), str(two)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    train_in_processes(1, one)
    weights_of = [torch.load(two / f"weights{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert_equal(*weights_of)
    curves = [json.loads((path / "losses0.json").read_text()) for path in (one, two)]
    assert [sorted(epoch) for epoch in curves[0]] == [sorted(epoch) for epoch in curves[1]]
    for alone, together in zip(*curves, strict=True):
        for name, value in alone.items():
            if name == "validation/rate_style" and "train/flow_loss" in alone:
                continue  # a sampled log-ratio: its noise does not shrink with the guide's
            assert together[name] == pytest.approx(value, rel=2e-3, abs=2e-3), name
    single = torch.load(one / "weights0.pt", weights_only=True)
    for name, value in weights_of[0].items():
        torch.testing.assert_close(value, single[name], atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize(
    ("wanted", "strategy"),
    [
        ({}, None),
        ({"devices": 1}, None),
        ({"devices": "1"}, None),
        ({"devices": "auto", "accelerator": "cpu", "strategy": "auto"}, "auto"),
        ({"devices": "0,1"}, "ddp_find_unused_parameters_true"),
        ({"devices": 2}, "ddp_find_unused_parameters_true"),
        ({"devices": [0, 1]}, "ddp_find_unused_parameters_true"),
        ({"devices": 1, "num_nodes": 2}, "ddp_find_unused_parameters_true"),
        ({"devices": 2, "strategy": "ddp"}, "ddp_find_unused_parameters_true"),
        ({"devices": 2, "strategy": "ddp_spawn"}, "ddp_spawn_find_unused_parameters_true"),
        (
            {"devices": 2, "strategy": "ddp_find_unused_parameters_false"},
            "ddp_find_unused_parameters_false",
        ),
    ],
)
def test_several_devices_allow_parts_without_gradient(
    wanted: dict[str, Any], strategy: str | None, tmp_path: Path
) -> None:
    assert trainer_settings(tmp_path, wanted).get("strategy") == strategy


def test_a_users_pair_without_a_shape_trains() -> None:
    vae = small(flow=False)
    fit(SVAE(vae.model, vae.guide), clusters(80), max_epochs=1)


def test_double_precision_trains() -> None:
    vae, diary = small(), Diary()
    fit(vae, clusters(80), precision="64-true", callbacks=diary, max_epochs=2)
    assert {p.dtype for p in vae.parameters()} == {torch.float64}
    assert all(math.isfinite(loss) for loss in diary.losses.values())
    with pytest.raises(ValueError, match=r'bf16-true would keep .* Use "bf16-mixed"'):
        fit(small(), clusters(80), precision="bf16-true")


def test_accumulated_batches_have_noise_of_their_own() -> None:
    class Seen(pl.Callback):
        def __init__(self) -> None:
            self.states: list[bytes] = []

        def on_train_batch_start(self, *_: Any) -> None:
            self.states.append(torch.get_rng_state().numpy().tobytes())

    class After(SVAEModule):
        """Callbacks run before the module's own hook, so the state is looked at in the step."""

        def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
            seen.states.append(torch.get_rng_state().numpy().tobytes())
            return super().training_step(batch, batch_idx)

    seen = Seen()
    trainer = pl.Trainer(
        **{**trainer_settings(Path(), PLAIN, keep=False), "callbacks": []},
        accumulate_grad_batches=2,
        enable_checkpointing=False,
    )
    trainer.fit_loop.max_epochs = 1
    trainer.fit(After(small(flow=False)), clusters())
    assert len(seen.states) == 10
    assert len(set(seen.states)) == 10


def test_a_checkpoint_of_the_user_changes_nothing(tmp_path: Path) -> None:
    def worst(module: SVAEModule) -> None:
        for p in module._flows.parameters():
            p.data.add_(0.3)

    found = []
    for name in ("without", "with"):
        vae = small()
        callbacks: list[Any] = [At(30, worst)]
        if name == "with":
            folder = tmp_path / "mine"
            callbacks.insert(0, ModelCheckpoint(folder, every_n_train_steps=3, save_top_k=-1))
        fit(vae, callbacks=callbacks, out=tmp_path / name, max_epochs=4)
        found.append(weights(vae))
    assert_equal(*found)


def test_an_end_before_the_flow_is_said() -> None:
    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            trainer.should_stop = True

    with pytest.warns(FlowNotFitted, match="ended at step 10 of 40, before the style flow"):
        fit(small(), callbacks=[Stop()], max_epochs=4)


def test_training_without_an_end_says_what_is_needed() -> None:
    with pytest.raises(ValueError, match="give max_epochs or max_steps"):
        fit(small(), max_epochs=-1, max_time={"seconds": 1})


def test_after_a_nan_the_weights_are_those_of_the_best() -> None:
    vae, diary = small(flow=False), Diary()
    with pytest.raises(NonFiniteLoss, match="weights go back to the last good checkpoint"):
        fit(vae, objective=SupervisedELBO(penalties=[Bomb(15)]), callbacks=diary, max_epochs=3)
    assert_equal(weights(vae), diary.weights[0])


def test_parameters_in_the_global_store_are_refused() -> None:
    def guide(x: Tensor, y: Tensor | None = None) -> None:
        scale = pyro.param("lost", torch.ones(2))
        with pyro.plate("batch", len(x)):
            for name in ("z_class", "style"):
                pyro.sample(name, dist.Normal(x[:, :2], scale).to_event(1))

    with pytest.raises(ValueError, match=r"pyro\.param keeps \['lost'\] .* nn\.Parameter"):
        fit(SVAE(small(flow=False).model, guide, (6,)), clusters(80))
    assert len(pyro.get_param_store()) == 0


def test_parameters_that_nothing_would_train_are_refused() -> None:
    vae = small(flow=False)
    guide = vae.guide
    hidden = SVAE(vae.model, lambda x, y=None: guide(x, y), (6,))
    with pytest.raises(
        ValueError, match=r"6 parameters take part .* neither model nor guide holds"
    ):
        fit(hidden, clusters(80))
    cast(nn.Module, guide).requires_grad_(False)
    fit(hidden, clusters(80), max_epochs=1)


class Pair(nn.Module):
    """Model and guide as two methods of one module, as Pyro's tutorials write them."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = small(flow=False)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        self.pair.model(x, y)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        self.pair.guide(x, y)


@pytest.mark.parametrize("compiled", [True, False])
def test_two_methods_of_one_module_are_trained(compiled: bool) -> None:
    pair = Pair()
    before = weights(pair)
    fit(SVAE(pair.model, pair.guide), clusters(80), compile=compiled, max_epochs=1)
    moved = [not torch.equal(before[name], p) for name, p in pair.named_parameters()]
    assert all(moved)


def partly_labelled() -> ArrayData:
    data = clusters()
    data.keep_labels(9)
    data.mixture = Mixture(balanced=True, labelled=0.5)
    return data


def test_few_labels_train_and_missing_ones_are_not_counted(tmp_path: Path) -> None:
    data = partly_labelled()
    assert int((data.train.marked >= 0).sum()) == 9
    vae = small(flow=False)
    fit(vae, data, max_epochs=20, out=tmp_path)
    accuracy = (vae.predict(data.test.floats()).argmax(1) == data.test.marked).float().mean()
    assert accuracy > 0.9
    log = next(tmp_path.rglob("metrics.csv")).read_text()
    assert "train/accuracy" in log
    assert "validation/accuracy" not in log  # nothing to compare with


def test_soft_labels_train() -> None:
    data = clusters()
    soft = torch.full((len(data.train), 3), 0.1)
    soft[torch.arange(len(soft)), _y(data)] = 0.8
    rows = ArraySet(data.train.x, soft)
    data = ArrayData(rows, data.validation, data.test, ("a", "b", "c"), batch_size=16)
    vae = small(flow=False)
    fit(vae, data, max_epochs=20)
    probabilities = vae.predict(data.test.floats()).softmax(1)
    assert (probabilities.argmax(1) == data.test.marked).float().mean() > 0.9


def test_without_any_label_nothing_is_trained() -> None:
    with pytest.raises(ValueError, match="no training example has a label"):
        clusters().keep_labels(0)
    with pytest.raises(ValueError, match="2 of 3 classes have no training example"):
        clusters().keep_labels(1)


class ReadsTheLabel(nn.Module):
    """x depends on y beside z_class."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.rand(3, 6))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            y = pyro.sample("y", dist.Categorical(x.new_ones(len(x), 3)), obs=y)
            for name in ("z_class", "style"):
                pyro.sample(name, dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.offset[y], 0.1).to_event(1), obs=x)


def test_a_model_that_reads_the_label_needs_all_labels() -> None:
    vae = SVAE(ReadsTheLabel(), small().guide, (6,))
    fit(vae, clusters(), max_epochs=1)
    with pytest.raises(ValueError, match="site 'x' depends on the label directly"):
        fit(SVAE(ReadsTheLabel(), small().guide, (6,)), partly_labelled(), max_epochs=1)


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        (Bernoulli(binary=True), r"Bernoulli takes x in .*Boolean.*have \[0\..*binarise=True"),
        (DiscretisedLogistic(), r"LogisticLevels takes x in 8-bit levels k / 255"),
        (Columns(2, (4,)), r"Rows takes x in 2 finite numbers and one-hot groups of sizes \[4\]"),
    ],
)
def test_data_outside_of_the_support(likelihood: Likelihood, message: str) -> None:
    vae = SVAE.for_vectors(6, 3, SPLIT, likelihood=likelihood, hidden=(8,))
    with pytest.raises(ValueError, match=message):
        fit(vae, clusters(), max_epochs=1)


def test_binarised_data_are_drawn_anew_and_fit_a_bernoulli() -> None:
    data = clusters()
    data.draw_binary()
    assert set(data.test.floats().unique().tolist()) == {0.0, 1.0}
    seen = []

    class Look(pl.Callback):
        def on_train_batch_start(
            self, trainer: pl.Trainer, pl_module: Any, batch: Batch, batch_idx: int
        ) -> None:
            seen.append(batch.x)

    vae = SVAE.for_vectors(6, 3, SPLIT, likelihood=Bernoulli(binary=True), hidden=(8,))
    fit(vae, data, max_epochs=2, callbacks=[Look()])
    assert set(torch.cat(seen).unique().tolist()) == {0.0, 1.0}
    # Over both epochs the same grey examples have been both.
    n = len(data.train_dataloader())
    assert torch.cat(seen[:n]).mean(0).sub(torch.cat(seen[n:]).mean(0)).abs().max() > 0


def test_frozen_parts_keep_every_bit() -> None:
    torch.manual_seed(0)
    shape = (1, 8, 8)
    first = SVAE.for_images(shape, 3, SPLIT, width=4, style_prior=StandardPrior(2))
    model = first.model
    assert isinstance(model, SupervisedModel)
    model.requires_grad_(False)
    before = weights(model)
    guide = SVAE.for_images(shape, 3, SPLIT, width=4).guide
    assert isinstance(guide, nn.Module)
    started = weights(guide)
    x = torch.rand(60, *shape)
    fit(SVAE(model, guide, shape), as_data((x, torch.arange(60) % 3), batch_size=16), max_epochs=2)
    assert_equal(before, weights(model))
    assert any(not torch.equal(started[name], value) for name, value in weights(guide).items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_weights": [1.0, 2.0]}, "class_weights is for 2 classes, the data have 3"),
        ({"confusion": [[0.9, 0.1], [0.2, 0.8]]}, "confusion is for 2 classes.*row and column"),
    ],
)
def test_numbers_by_class_fit_the_classes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(small(), clusters(), objective=SupervisedELBO(**settings), max_epochs=1)
