"""Training of bridges and of the networks beside them: one loss, one phase."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from svae.bridges.building import PairBank, Prepared, prepare, prepare_more
from svae.bridges.concepts import ConceptBridge
from svae.bridges.invariance import CodeDensity
from svae.bridges.objective import ConceptObjective
from svae.bridges.storing import representations, stored
from svae.bridges.translator import Translator
from svae.compilation import CompiledLoss, Loss, Values
from svae.data import ArrayData, ArraySet, Batch
from svae.data.batch import as_floats
from svae.data.pairing import source_inputs
from svae.training.recipe import Recipe, one_cycle
from svae.training.running import check_compile, compiles, total_steps
from svae.training.tally import NonFiniteLoss, Tally

__all__ = [
    "BridgeModule",
    "CodeInputs",
    "Inputs",
    "PixelInputs",
    "RepresentationInputs",
    "coded",
    "represented",
]

_CHUNK = 500  # examples that are represented at a time
N_VALIDATION = 5000  # examples that choose the checkpoint, at most
Inputs = Callable[[Batch], Sequence[Tensor]]


class BridgeModule(pl.LightningModule):
    """Minimises one loss with AdamW under a one-cycle rate.

    The noise of every step is a function of ``seed`` and the step alone.

    Args:
        model: What is trained; parts whose parameters need no gradient stay as they are.
        loss: From the tensors of a step to the loss and its named values.
        inputs: From a batch to those tensors.
        objective: What ``loss`` reads beside the model, if anything.
        recipe: Learning rate and weight decay.
        seed: Seed of the noise.
        compile: Whether the steps run from a compiled graph; ``"auto"`` where there are enough of
            them.

    Raises:
        ValueError: If ``compile`` is none of these.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        inputs: Inputs,
        objective: nn.Module | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        compile: Literal["auto"] | bool = "auto",
    ) -> None:
        super().__init__()
        check_compile(compile)
        self.model, self.objective = model, objective
        self.losses_compare: bool = getattr(model, "losses_compare", True)
        self.compile_steps: Literal["auto"] | bool = compile
        self.recipe, self.seed = recipe or Recipe(), seed
        self._plain, self._inputs = loss, inputs
        self._loss: Loss | None = None
        self._tally = Tally()

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with a one-cycle schedule."""
        total = max(total_steps(self.trainer), 1)
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.groups(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: one_cycle(step / total)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def groups(self) -> list[dict[str, Any]]:
        """Parameters by their rate: a model may name parts that learn slower than the others."""
        slower: dict[str, float] = getattr(self.model, "relative_rates", {})
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                part = name.removeprefix("model.").partition(".")[0]
                groups.setdefault(slower.get(part, 1.0), []).append(parameter)
        rate = self.recipe.learning_rate
        return [{"params": found, "lr": share * rate} for share, found in groups.items()]

    def on_train_epoch_start(self) -> None:
        """Starts the sums of an epoch."""
        self._tally = Tally()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Sets the noise of the step."""
        self._seed(self.global_step, batch_idx)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step."""
        inputs = self._inputs(batch)
        if self._loss is None:
            parts = nn.ModuleDict({"model": self.model})
            if self.objective is not None:
                parts["objective"] = self.objective
            compiled = compiles(self.compile_steps, total_steps(self.trainer))
            self._loss = (
                CompiledLoss(self._plain, parts, max_graphs=1) if compiled else self._plain
            )
        loss, values = self._loss(*inputs)
        self._tally.add(values, self.global_step, batch_idx)
        if (found := self._tally.first_not_finite()) is not None:
            bad, step, where = found
            self._stop(bad, f"batch {where}, step {step}")
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=len(inputs[0]))
        return loss

    def on_train_epoch_end(self) -> None:
        """Logs the means of the epoch."""
        for name, mean in self._tally.means().items():
            self.log(f"train/{name}", mean, sync_dist=True, batch_size=1)

    def on_validation_epoch_start(self) -> None:
        """Lets the model take what it needs of the training examples to be looked at."""
        if (settle := getattr(self.model, "settle", None)) is not None:
            settle(self.trainer.datamodule.train)  # pyright: ignore

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The loss, without what is random in it while training."""
        self._seed(-1, batch_idx)
        inputs = self._inputs(batch)
        _, values = self._plain(*inputs)
        if not bool(torch.isfinite(values["loss"])):
            self._stop(values, f"validation batch {batch_idx}")
        for name, value in values.items():
            self.log(f"validation/{name}", value, batch_size=len(inputs[0]), sync_dist=True)

    def on_fit_end(self) -> None:
        """Lets go of the compiled graph."""
        self._loss = None

    def _seed(self, *numbers: int) -> None:
        mixed = self.seed
        for number in (*numbers, self.global_rank):
            mixed = (mixed * 6364136223846793005 + number + 1442695040888963407) % 2**63
        torch.manual_seed(mixed)

    def _stop(self, values: Values, where: str) -> None:
        bad = [name for name, value in values.items() if not torch.isfinite(value)]
        named = [name for name in bad if name != "loss"] or bad
        raise NonFiniteLoss(
            f"{', '.join(named)} in {where} of epoch {self.current_epoch} is not finite. Lower "
            "the learning rate, or look at the data of that batch. The weights go back to the "
            "last good checkpoint."
        )


class PixelInputs:
    """What a network that shows codes is trained on: the pictures."""

    def __call__(self, batch: Batch) -> Sequence[Tensor]:
        return [as_floats(batch.x)]


class CodeInputs:
    """What is fitted to codes is trained on: codes, and what a source shows.

    Args:
        shape: Shape of what the source shows.
    """

    def __init__(self, shape: Sequence[int] = (0,)) -> None:
        self.shape = tuple(shape)

    def __call__(self, batch: Batch) -> Sequence[Tensor]:
        assert batch.factors is not None
        return [batch.x, batch.factors]

    def loss(self, of_pairs: Loss) -> Loss:
        """The loss of such a step, from that of codes and representations."""

        def of(code: Tensor, flat: Tensor) -> tuple[Tensor, Values]:
            return of_pairs(code, flat.unflatten(1, self.shape))

        return of


class RepresentationInputs:
    """What a concept bridge is trained on: representations, values, and some pairs of each bank.

    Args:
        banks: Pairs of representations.
    """

    def __init__(self, banks: Sequence[PairBank]) -> None:
        self.banks = list(banks)

    def __call__(self, batch: Batch) -> Sequence[Tensor]:
        assert batch.factors is not None
        pairs = []
        for bank in self.banks:
            rows = torch.randint(len(bank.first), (max(2, len(batch.x) // 2),))
            pairs += [side[rows].to(batch.x.device) for side in (bank.first, bank.second)]
        return [batch.x, batch.factors.long(), *pairs]

    def loss(self, bridge: ConceptBridge, objective: ConceptObjective) -> Loss:
        """The loss of such a step."""
        shape = bridge.frozen.shape

        def of(flat: Tensor, values: Tensor, *pairs: Tensor) -> tuple[Tensor, Values]:
            sides = zip(self.banks, pairs[::2], pairs[1::2], strict=True)
            return objective(bridge, flat.unflatten(1, shape), values, list(sides))

        return of


def coded(model: Translator | CodeDensity, data: ArrayData, seed: int) -> ArrayData:
    """Codes of the data, and what a source shows of each; on disk where that is large."""
    n = min(len(data.validation), N_VALIDATION)
    few = data.validation.subset(torch.arange(n))
    sides = []
    with torch.no_grad():
        for name, examples in (("train", data.train), ("validation", few)):
            # In units of before, if there were any.
            codes = model.units.inverse(stored(map(model.code, _chunks(examples)), len(examples)))
            shown = codes[:, :0]
            if isinstance(model, Translator):
                # Pairs bring the source's inputs; else they are a view of the target's.
                given = source_inputs(data, name)
                show, parts = (
                    (model.representation, _chunks(examples))
                    if given is None
                    else (model.shown, _pieces(given[: len(examples)]))
                )
                kind = "training examples" if name == "train" else f"{name} examples"
                # Words, labels and vectors say themselves what is wrong with them.
                run = representations if hasattr(model.source, "layer") else _located
                shown = stored(run(show, parts, kind), len(examples))
            sides.append((codes, shown))
        # Now that all could be computed: a training that is refused leaves the model as it was.
        codes, shown = sides[0]
        if isinstance(model, Translator):
            model.standardise(shown)
        model.units.take(codes)
        pairs = [(model.units(codes), shown.flatten(1)) for codes, shown in sides]
    return _as_seen(data, seed, *pairs)


def _located(show: Callable[[Any], Tensor], parts: Iterable[Any], what: str) -> Iterator[Tensor]:
    """What a source shows, part by part; what it refuses is counted from the first example."""
    first = 0
    for part in parts:
        try:
            shown = show(part)
        except (TypeError, ValueError) as error:
            if not first:
                raise
            raise type(error)(f"{error} (Counted from number {first} of the {what}.)") from error
        yield shown
        first += len(part)


def _chunks(examples: ArraySet) -> Iterator[Tensor]:
    return (as_floats(part) for part in examples.x.split(_CHUNK))


def _pieces(rows: Any) -> Iterator[Any]:
    return (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))


def represented(bridge: ConceptBridge, data: ArrayData, seed: int) -> tuple[ArrayData, Prepared]:
    """The data as the bridge sees them, which is built on the way: representations and values."""
    prepared = prepare(bridge, data.train, seed)
    n = min(len(data.validation), N_VALIDATION)
    sets = [prepared, prepare_more(bridge, data.validation.subset(torch.arange(n)))]
    # Flat: no pictures, whatever their shape.
    pairs = ((one.representations.flatten(1), one.values.float()) for one in sets)
    return _as_seen(data, seed, *pairs), prepared


def _as_seen(
    data: ArrayData, seed: int, train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor]
) -> ArrayData:
    """A data module of two tensors, the second as factors: labels are of one set only."""
    train_set, validation_set = (
        ArraySet(one, torch.zeros(len(one), dtype=torch.int64), other)
        for one, other in (train, validation)
    )
    return ArrayData(
        train_set,
        validation_set,
        validation_set,
        ("any",),
        name=str(data.name),
        batch_size=max(data.batch_size, 2),
        seed=seed,
        bounded=False,
    )
