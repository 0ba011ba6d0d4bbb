"""Both phases of training a supervised VAE, as one Lightning module."""

import warnings
from collections.abc import Callable
from typing import Any, Literal

import pyro
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from svae.compilation import CompiledLoss, Loss, Values
from svae.data import Batch, as_data
from svae.data.batch import as_floats
from svae.elbo import SupervisedELBO, active_units, without_flow
from svae.labels import mean_of_known, read_labels
from svae.models import SVAE
from svae.priors import FlowPrior
from svae.sites import draws, means, site
from svae.training.checks import check_fit, check_parameters, labelled, precision_of
from svae.training.recipe import Recipe, one_cycle
from svae.training.running import (
    check_compile,
    checkpoints,
    compiles,
    load_best,
    total_steps,
)
from svae.training.tally import NonFiniteLoss, Tally

__all__ = ["CollapsedBlock", "FlowNotFitted", "SVAEModule", "flow_loss"]

FUSED = ("cpu", "cuda")
LOGGED = {
    "x": "distortion",
    "z_class": "rate_class",
    "style": "rate_style",
    "label": "label_loss",
    "active_z_class": "active_class",
    "active_style": "active_style",
}


class CollapsedBlock(UserWarning):
    """A latent block carries no information: none of its units is active."""


class FlowNotFitted(UserWarning):
    """Training ended before the phase that fits the style flow."""


class SVAEModule(pl.LightningModule):
    """Both phases of training an :class:`svae.SVAE`.

    The noise of every step is a function of ``seed`` and the step alone, so a resumed run repeats
    the losses of an uninterrupted one.

    Args:
        vae: Model and guide.
        objective: Terms and weights.
        recipe: Learning rates and phases.
        seed: Seed of the noise.
        compile: Whether the steps run from a compiled graph, see
            :class:`svae.compilation.CompiledLoss`. ``"auto"`` does so where a phase has enough
            steps to pay the compilation back; True does always, and False never, for debugging.

    Raises:
        ValueError: If ``compile`` is none of these.
    """

    def __init__(
        self,
        vae: SVAE,
        objective: SupervisedELBO | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        compile: Literal["auto"] | bool = "auto",
    ) -> None:
        super().__init__()
        check_compile(compile)
        self.compile_steps: Literal["auto"] | bool = compile
        self.vae = vae
        self.objective = objective or SupervisedELBO()
        self.recipe = recipe or Recipe()
        self.seed = seed
        # In a tuple, so that its weights are not registered a second time.
        self._first = (vae if self.recipe.joint else without_flow(vae),)
        self._flows = nn.ModuleList(m for m in vae.modules() if isinstance(m, FlowPrior))
        self.switch_step = 0
        self._fitting_flow = False
        self._codes: tuple[Tensor, Tensor] | None = None
        self._codes_epoch = -1
        self._losses: dict[bool, Loss] = {}
        self._scheduled: tuple[tuple[float, ...], Tensor] | None = None
        self._tallies = {False: Tally(), True: Tally()}  # by phase, as an epoch may hold both
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._scored_phase = 0

    @property
    def fitting_flow(self) -> bool:
        """Whether the step in hand, or the last one, fits the style flow alone."""
        return self._fitting_flow

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with one one-cycle schedule for each phase."""
        recipe = self.recipe
        total = total_steps(self.trainer)
        switch = self.switch_step = self._border(total)
        flow = {id(p) for p in self._flows.parameters()}
        others = [p for p in self.parameters() if id(p) not in flow and p.requires_grad]
        if not others:
            raise ValueError(
                "model and guide have no parameters to train. A plain function's networks are not "
                "seen: make model and guide nn.Modules that hold them as attributes."
            )
        groups = [{"params": others, "lr": recipe.learning_rate}]
        if flow:
            parameters = list(self._flows.parameters())
            groups.append({"params": parameters, "lr": recipe.flow_learning_rate})
        # Lightning refuses to clip gradients for a fused optimizer under mixed precision.
        fused = "mixed" not in str(self.trainer.precision) and self.device.type in FUSED
        optimizer = torch.optim.AdamW(
            groups, weight_decay=recipe.weight_decay, fused=True if fused else None
        )

        def first(step: int) -> float:
            return one_cycle(step / max(switch, 1))

        def second(step: int) -> float:
            if step < switch:
                return first(step) if recipe.joint else 0.0
            return one_cycle((step - switch) / max(total - switch, 1))

        factors: list[Callable[[int], float]] = [first, second][: len(groups)]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def setup(self, stage: str) -> None:
        """Checks model and data against each other before anything is computed."""
        if str(self.trainer.precision) in ("16-true", "bf16-true"):
            raise ValueError(
                f"precision {self.trainer.precision} would keep log-densities and weights in half "
                'precision. Use "bf16-mixed", or "32-true" and "64-true".'
            )
        data = as_data(self.trainer.datamodule)  # pyright: ignore
        check_fit(self.vae, data)
        self.objective.check(data.n_classes)
        self._first[0].x_shape = self.vae.x_shape
        check_parameters(self, self.vae, self._first[0], data, self.device)

    def _border(self, total: int) -> int:
        """The step between the phases, at an epoch's border where there is one."""
        if not len(self._flows) or not self.recipe.flow_share:
            return total
        border = total * (1 - self.recipe.flow_share)
        epochs = self.trainer.max_epochs or -1
        if epochs > 1:
            per_epoch = total / epochs
            border = min(max(round(border / per_epoch), 1), epochs - 1) * per_epoch
        return round(border)

    def on_train_end(self) -> None:
        """Says so where the flow was never fitted, as after an early stop in the first phase."""
        total = int(self.trainer.estimated_stepping_batches)
        if self.switch_step < total and self.global_step <= self.switch_step:
            warnings.warn(
                f"training ended at step {self.global_step} of {total}, before the style flow was "
                f"fitted (from step {self.switch_step} on): the nuisance may know the class. Let "
                "it run to the end, or watch something that only the second phase logs.",
                FlowNotFitted,
                stacklevel=2,
            )

    def train(self, mode: bool = True) -> "SVAEModule":
        """Training mode, but for parts that are frozen: no statistic of theirs moves."""
        super().train(mode)
        for part in self.vae.modules() if mode else ():
            parameters = list(part.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                part.eval()
        return self

    def on_fit_end(self) -> None:
        """Lets go of the compiled graphs and the codes, which a trained model has no use for."""
        self._losses.clear()
        self._codes, self._codes_epoch = None, -1

    def on_train_epoch_start(self) -> None:
        """Starts the sums of an epoch."""
        self._tallies = {False: Tally(), True: Tally()}
        self._seed_augmentation()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Sets the noise of the step, and the modes of its phase."""
        # Not from the step alone: after an epoch it is already that of the next one.
        self._fitting_flow = self.global_step >= self.switch_step
        if self.fitting_flow and self.vae.training:
            if not self._scored_phase:
                load_best(self.trainer, self)
            self.vae.eval()
            self._flows.train()
        if self.fitting_flow and self._codes_epoch != self.current_epoch:
            self._draw_codes()
        # All processes choose the same codes, and each takes its share of them.
        rank = 0 if self.fitting_flow else self.global_rank
        self._seed_all(_mixed(self.seed, self.global_step, rank, *self._part(batch_idx)))

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Sets the noise of the next batch's augmentation, which comes before its step."""
        self._seed_augmentation(batch_idx + 1)

    def _part(self, batch_idx: int) -> list[int]:
        """Which of the batches that one step accumulates; nothing for the first of them."""
        part = batch_idx % self.trainer.accumulate_grad_batches
        return [part] if part else []

    def _seed_all(self, seed: int) -> None:
        """As torch.manual_seed, which formats the whole stack where CUDA is there but not used."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def _seed_augmentation(self, batch_idx: int = 0) -> None:
        part = self._part(batch_idx)
        self._seed_all(_mixed(self.seed, self.global_step, self.global_rank, 1, *part))

    # Pyro's own validation stops at a NaN too, without saying in which term.
    @pyro.validation_enabled(False)
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step of the phase that the run is in."""
        x, y = labelled(batch, precision_of(self.vae))
        if self.fitting_flow:
            assert self._codes is not None
            n_codes = len(self._codes[0])
            rows = torch.randint(n_codes, (self.recipe.flow_batch_size,), device=self.device)
            rows = rows[self.global_rank :: self.trainer.world_size]
            inputs = [block[rows] for block in self._codes]
        else:
            inputs = [x, y, self._weights(x)]
        loss, values = self._loss(*inputs)
        tally = self._tallies[self.fitting_flow]
        tally.add(values, self.global_step, batch_idx)
        due = (self.global_step + 1) % self.trainer.log_every_n_steps == 0  # pyright: ignore
        if due or self.device.type == "cpu":  # elsewhere a look at the values waits for them
            self._stop_if_not_finite(tally)
        if due:
            self.log_dict({f"step/{k}": v.detach() for k, v in values.items()}, batch_size=len(x))
            self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=len(x))
        return loss

    @property
    def _loss(self) -> Loss:
        """The loss of the phase, compiled where that was asked for or pays."""
        flow = self.fitting_flow
        if flow not in self._losses:
            loss = self._flow_loss if flow else self._elbo_loss
            total = int(self.trainer.estimated_stepping_batches)
            n_steps = total - self.switch_step if flow else self.switch_step
            if compiles(self.compile_steps, n_steps):
                parts = nn.ModuleDict({"vae": self.vae, "objective": self.objective})
                loss = CompiledLoss(loss, parts, max_graphs=1, on_compiled=self._say_compiled)
            self._losses[flow] = loss
        return self._losses[flow]

    def _elbo_loss(self, x: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, Values]:
        named = dict(zip(self.objective.weights(), weights.unbind(), strict=True))
        loss, terms = self.objective(self._first[0], x, y, named)
        return loss, _named(loss, terms)

    def _flow_loss(self, z_class: Tensor, style: Tensor) -> tuple[Tensor, Values]:
        loss = flow_loss(self.vae, z_class, style)
        return loss, {"flow_loss": loss}

    def _weights(self, x: Tensor) -> Tensor:
        """The weights of the step as a tensor on the device, made only when they change."""
        weights = tuple(self.objective.weights(self.global_step).values())
        if self._scheduled is None or self._scheduled[0] != weights:
            dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
            filled = [x.new_full((1,), weight, dtype=dtype) for weight in weights]
            self._scheduled = weights, torch.cat(filled)
        return self._scheduled[1]

    def _say_compiled(self, seconds: float) -> None:
        what = "the flow" if self.fitting_flow else "model and guide"
        self.print(f"the step of {what} runs from a graph, made in {seconds:.0f} s")

    @torch.no_grad()
    def _draw_codes(self) -> None:
        """Posterior draws of all training examples, anew in every epoch.

        As many as the epoch will use, lest the flow learn a few by heart. The encoder runs once
        an epoch, and on clean images also where training augments them.
        """
        train = self.trainer.datamodule.train  # pyright: ignore[reportAttributeAccessIssue]
        self._seed_all(_mixed(self.seed, self.current_epoch, self.global_rank, 2))
        n_used = int(self.trainer.num_training_batches) * self.recipe.flow_batch_size
        n = max(1, round(n_used / len(train)))
        parts = []
        for rows in torch.arange(len(train)).split(1000):
            x = as_floats(train.batch(rows).x.to(self.device)).to(precision_of(self.vae))
            z_class, style = draws(self.vae.guide, x, n)
            n_means = round(self.recipe.mean_share * n * len(x))
            if n_means:
                at_mean = torch.randperm(n * len(x), device=self.device) < n_means
                mean = means(self.vae.guide, x)[1].repeat(n, 1)
                style = torch.where(at_mean.unsqueeze(-1), mean, style)
            parts.append((z_class, style))
        z_class, style = (torch.cat(block) for block in zip(*parts, strict=True))
        self._codes, self._codes_epoch = (z_class, style), self.current_epoch

    def on_train_epoch_end(self) -> None:
        """Logs the means of the epoch."""
        means = self._tallies[False].means() | self._tallies[True].means()
        for name, mean in means.items():
            self.log(f"train/{name}", mean, sync_dist=True, batch_size=1)

    @pyro.validation_enabled(False)
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The objective under the prior of the phase, accuracy and active units."""
        x, y = labelled(batch, precision_of(self.vae))
        self._seed_all(_mixed(self.seed, batch_idx, -1))
        vae = self.vae if self.fitting_flow else self._first[0]
        loss, terms = self.objective(vae, x, y)
        z_class, style = means(vae.guide, x)
        logits = vae.logits(z_class)
        self._seen.append((z_class, style))
        values = _named(loss, terms)
        values = {k: v for k, v in values.items() if not k.startswith("active")}
        if not torch.isfinite(loss):  # the last step spoilt the weights: they must not be saved
            self._stop_if_not_finite(self._tallies[self.fitting_flow])
            self._stop(values, f"validation batch {batch_idx}")
        labels = read_labels(y)
        values.pop("accuracy", None)
        if bool(labels.known.any()):
            right = (logits.argmax(-1) == labels.hard).float()
            values["accuracy"] = mean_of_known(right, labels.known)
        for name, value in values.items():
            self.log(
                f"validation/{name}",
                value,
                batch_size=len(x),
                sync_dist=True,
                prog_bar=name == "accuracy",
            )

    def on_validation_epoch_end(self) -> None:
        """Counts active units; a block without any is a named warning."""
        blocks = zip(*self._seen, strict=True)
        self._seen = []
        for name, parts in zip(("class", "style"), blocks, strict=True):
            codes = torch.cat(parts)
            if len(codes) < 2:
                continue
            active = active_units(codes)
            self.log(f"validation/active_{name}", active, sync_dist=True)
            if not active and not self.trainer.sanity_checking:
                warnings.warn(
                    f"the {name} block has collapsed: none of its {codes.shape[-1]} units is "
                    f"active. Lower its weight (beta_{name}), warm it up for longer, or give it "
                    f"free bits.",
                    CollapsedBlock,
                    stacklevel=2,
                )
        phase = int(self.fitting_flow)
        if phase != self._scored_phase and not self.trainer.sanity_checking:
            # The prior has changed, so losses of the first phase are no longer comparable.
            self._scored_phase = phase
            for checkpoint in checkpoints(self.trainer):
                checkpoint.best_k_models = {}
                checkpoint.kth_best_model_path = ""
                checkpoint.best_model_score = None
                checkpoint.current_score = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps which phase the best checkpoint belongs to."""
        checkpoint["scored_phase"] = self._scored_phase

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores what :meth:`on_save_checkpoint` kept."""
        self._scored_phase = checkpoint["scored_phase"]

    def _stop_if_not_finite(self, tally: Tally) -> None:
        found = tally.first_not_finite()
        if found is not None:
            values, step, batch_idx = found
            self._stop(values, f"batch {batch_idx}", step)

    def _stop(self, values: Values, where: str, step: int | None = None) -> None:
        bad = [name for name, value in values.items() if not torch.isfinite(value)]
        named = [name for name in bad if name != "loss"] or bad
        shown = ", ".join(f"{name} = {float(values[name].detach())}" for name in named)
        saved = [c.best_model_path for c in checkpoints(self.trainer) if c.best_model_path]
        raise NonFiniteLoss(
            f"{shown} in {where} of epoch {self.current_epoch} (step "
            f"{self.global_step if step is None else step}). Lower the learning rate, or look at "
            "the data of that batch. The weights go back to the last good checkpoint, which is "
            f"{saved[0] if saved else 'none yet'}."
        )


def flow_loss(vae: SVAE, z_class: Tensor, style: Tensor) -> Tensor:
    """Negative log-likelihood of style codes given the class codes under the flow, in nats.

    With codes that carry no gradient, the flow alone learns from it.
    """
    prior = site(vae.model, "style", vae.placeholder(z_class), z_class=z_class)
    return -prior.log_prob(style).mean()


def _named(loss: Tensor, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {LOGGED.get(name, name): value for name, value in terms.items() if name != "y"}
    return {"loss": loss, **named}


def _mixed(*numbers: int) -> int:
    """One seed from several numbers; neighbours give unrelated streams."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 6364136223846793005 + number + 1442695040888963407) % 2**64
        mixed ^= mixed >> 29
    return mixed % 2**63
