"""Who takes part in the comparison, and how each is trained."""

import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from benchmarks.peers import CCVAE, CVAE, DIVA, IBINN, M1M2, M2, VIB, Classifier, VAEClassifier
from benchmarks.peers.common import Sizes
from benchmarks.peers.generators import GAN, TwoStage
from svae.data.batch import as_floats
from svae.factorization import resample_nuisance

__all__ = ["CONTESTANTS", "Contestant", "Trained", "Training", "seconds"]

N_CODE = 64  # dims of codes that flows work on


def seconds() -> float:
    """Of a core, whatever else the machine does, with what compiles; of the wall beside a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    compilers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + compilers.ru_utime + compilers.ru_stime


@dataclass
class Training:
    """What every contestant is trained with.

    Args:
        data: A data module.
        sizes: Of the networks and latents.
        epochs: Passes over the training set, all phases together.
        seed: Of weights, batches and noise.
        flow_share: Share of our passes that fits the style flow.
        setting: What the model is built with; ``learning_rate`` is the loop's.
    """

    data: Any
    sizes: Sizes
    epochs: int
    seed: int
    flow_share: float = 0.5
    setting: dict[str, float] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, float]:
        """The setting but for the learning rate."""
        return {name: value for name, value in self.setting.items() if name != "learning_rate"}

    @property
    def learning_rate(self) -> float:
        """Of the loop."""
        return self.setting.get("learning_rate", 2e-3)

    def fit(
        self,
        model: Any,
        share: float = 1.0,
        clock: "Clock | None" = None,
        objective: Any = None,
        **recipe: Any,
    ) -> Any:
        """Trains a model by the one loop for a share of the epochs."""
        import svae

        torch.manual_seed(self.seed)
        epochs = max(1, round(share * self.epochs))
        svae.fit(
            model,
            self.data,
            seed=self.seed,
            max_epochs=epochs,
            enable_progress_bar=False,
            callbacks=[] if clock is None else [clock],
            objective=objective,
            recipe=svae.training.Recipe(learning_rate=self.learning_rate, **recipe),
        )
        return model.eval()


class Clock(pl.Callback):
    """Validation accuracy after each epoch, with the seconds until then."""

    def __init__(self, predict: Callable[[Tensor], Tensor], data: Any) -> None:
        self.predict, self.data = predict, data
        self.curve: list[tuple[float, float]] = []
        self.spent, self.since = 0.0, 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts to count: looking takes no time."""
        self.since = seconds()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops to count, and looks."""
        self.spent += seconds() - self.since
        x, y = self.data.validation.floats(limit=2000), self.data.validation.y[:2000]
        with torch.no_grad():
            answers = [
                self.predict(part.to(pl_module.device)).argmax(1).cpu() for part in x.split(500)
            ]
        right = torch.cat(answers) == y
        self.curve.append((round(self.spent, 3), float(right.float().mean())))
        self.since = seconds()


@dataclass
class Trained:
    """What is measured.

    Args:
        model: A module; a factorization where it splits its latent.
        splits: Whether it does.
        sample: New pictures of classes, if it makes any.
        bounds: ELBO and IWAE of n draws for each input, if it bounds the likelihood.
        averaged: Log-probabilities over 12 draws of the latent, if it draws one to answer.
        curve: Seconds and validation accuracy, epoch by epoch.
        n_parameters: Of everything that was trained.
    """

    model: Any
    splits: bool = True
    sample: Callable[..., Tensor] | None = None
    bounds: Callable[[Tensor, int], tuple[Tensor, Tensor]] | None = None
    averaged: Callable[[Tensor], Tensor] | None = None
    curve: list[tuple[float, float]] = field(default_factory=list)
    n_parameters: int = 0


@dataclass(frozen=True)
class Contestant:
    """One model of the comparison.

    Args:
        train: From the training to what is measured.
        settings: What is tried before the comparison, its own or its authors' first.
        ours: Whether it is of this package.
    """

    train: Callable[[Training], Trained]
    settings: tuple[dict[str, float], ...]
    ours: bool = False


def _peer(
    make: Callable[..., Any], generates: bool = True, bounds: bool = True, splits: bool = True
) -> Callable[[Training], Trained]:
    """A peer of one phase."""

    def train(training: Training) -> Trained:
        torch.manual_seed(training.seed)
        model = make(training.sizes, **training.weights)
        clock = Clock(model.predict, training.data)
        training.fit(model, clock=clock)
        return _of(model, generates, bounds, clock, splits)

    return train


def _of(model: Any, generates: bool, bounds: bool, clock: Clock, splits: bool = True) -> Trained:
    return Trained(
        model,
        splits and generates,
        model.sample if generates else None,
        _bounds_of(model) if bounds else None,
        getattr(model, "averaged", None),
        clock.curve,
        sum(p.numel() for p in model.parameters()),
    )


def _bounds_of(model: Any) -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
    """ELBO and IWAE from the log-weights of a peer."""

    def bounds(x: Tensor, n: int) -> tuple[Tensor, Tensor]:
        weights = model.log_weights(x, n)
        return weights.mean(0), weights.logsumexp(0) - math.log(n)

    return bounds


def _on_vae(
    make: Callable[..., Any], bounds: bool = True, splits: bool = True
) -> Callable[[Training], Trained]:
    """A peer of two phases: a VAE without labels, and a model of its latent."""

    def train(training: Training) -> Trained:
        torch.manual_seed(training.seed)
        model = make(training.fit(VAEClassifier(training.sizes), 0.6), **training.weights)
        clock = Clock(model.predict, training.data)
        training.fit(model, 0.4, clock)
        return _of(model, True, bounds, clock, splits)

    return train


def _autoencoder(training: Training, share: float) -> Any:
    import svae

    torch.manual_seed(training.seed)
    coder = svae.bridges.Autoencoder(training.data.x_shape, N_CODE, width=training.sizes.width)
    return training.fit(coder, share)


def _ibinn(training: Training) -> Trained:
    model = IBINN(_autoencoder(training, 0.5), training.sizes, N_CODE, **training.weights)
    clock = Clock(model.predict, training.data)
    training.fit(model, 0.5, clock)
    return _of(model, True, False, clock)


def _pythae(flow_prior: bool) -> Callable[[Training], Trained]:
    def train(training: Training) -> Trained:
        from benchmarks.peers.pythae_models import PythaeVAE

        torch.manual_seed(training.seed)
        model = PythaeVAE(training.sizes, flow_prior)
        clock = Clock(model.predict, training.data)
        model.fit(training.data, training.epochs, training.seed, training.learning_rate)
        return _of(model, True, True, clock)

    return train


def _ours(head: str = "gaussian", flow: bool = True) -> Any:
    """The supervised VAE with one head; with an adversary where a setting weighs one."""

    def train(training: Training) -> Trained:
        import svae
        from svae.independence import AdversarialProbe
        from svae.priors import StandardPrior

        torch.manual_seed(training.seed)
        sizes = training.sizes
        k, split = sizes.n_classes, svae.LatentSplit(sizes.n_class, sizes.n_nuisance)
        heads = {
            "gaussian": lambda: svae.GaussianHead(split.n_class, k),
            "linear": lambda: svae.NetworkHead(split.n_class, k),
            "perceptron": lambda: svae.NetworkHead(split.n_class, k, hidden=(64,)),
        }
        build: Any = svae.SVAE.for_images
        vae = build(
            sizes.x_shape,
            k,
            split,
            head=heads[head](),
            style_prior=None if flow else StandardPrior(split.n_nuisance),
            width=sizes.width,
            gain=sizes.gain,
        )
        weights = {"beta_class": 10.0, "label_weight": 50.0, **training.weights}
        adversary = weights.pop("adversary", None)
        probes = adversary and [AdversarialProbe(sizes.n_nuisance, k, adversary)]
        objective = svae.SupervisedELBO(**weights, penalties=probes or [])
        clock = Clock(vae.predict, training.data)
        share = training.flow_share if flow else 0.0
        training.fit(vae, clock=clock, objective=objective, flow_share=share)

        def sample(y: Tensor, generator: torch.Generator | None = None) -> Tensor:
            return vae.sample(y, 1, generator)[0]

        def averaged(x: Tensor) -> Tensor:
            draws = [vae.read(vae.encode(x, sample=True)).softmax(-1) for _ in range(12)]
            return torch.stack(draws).mean(0).log()

        def bounds(x: Tensor, n: int) -> tuple[Tensor, Tensor]:
            return svae.evidence(vae, x, n)

        n_parameters = sum(p.numel() for p in vae.parameters())
        return Trained(vae, True, sample, bounds, averaged, clock.curve, n_parameters)

    return train


def _explained(kind: str) -> Callable[[Training], Trained]:
    """One of our bridges beside the plain classifier, and what shows its codes."""

    def train(training: Training) -> Trained:
        import svae

        torch.manual_seed(training.seed)
        classifier = Classifier(training.sizes)
        clock = Clock(classifier.predict, training.data)
        training.fit(classifier, clock=clock)
        shape = tuple(training.data.x_shape)
        if kind == "concept":
            frozen = svae.Frozen(classifier, "trunk", x_shape=shape)
            shown = training.fit(svae.bridges.Reconstruction(frozen), 0.5)
            bridge = svae.ConceptBridge(frozen, svae.bridges.Classes(), decoder=shown.decoder)
            training.fit(bridge, 0.5)
            trained: list[Any] = [bridge, shown.decoder]
        else:
            frozen = svae.Frozen(classifier, "head", x_shape=shape)
            coder = _autoencoder(training, 0.5)
            bridge = svae.InvarianceBridge(frozen, coder)
            training.fit(
                bridge, 0.5, objective=svae.bridges.InvarianceObjective(**training.weights)
            )
            trained = [bridge, coder]
        fitted = {p for one in (classifier, *trained) for p in one.parameters()}
        n_parameters = sum(p.numel() for p in fitted)
        sample = _from_examples(bridge, training.data)
        return Trained(bridge, True, sample, None, None, clock.curve, n_parameters)

    return train


def _from_examples(bridge: Any, data: Any) -> Callable[..., Tensor]:
    """New pictures of classes by a model that knows no density of the class part.

    That part is taken from training examples of the class at random, the nuisance is drawn.
    """
    rows = [(data.train.y == k).nonzero()[:, 0] for k in range(data.n_classes)]

    def sample(y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        spots = torch.rand(len(y), generator=generator)
        chosen = [rows[k][int(u * len(rows[k]))] for k, u in zip(y.tolist(), spots, strict=True)]
        x = as_floats(data.train.x[torch.stack(chosen)])
        return resample_nuisance(bridge, x, 1, generator)[0]

    return sample


def _tried(name: str, *values: float, **others: float) -> tuple[dict[str, float], ...]:
    return tuple({name: value, **others} for value in values)


_RATES = _tried("learning_rate", 2e-3, 1e-3, 5e-3)
_LABELS = _tried("label_weight", 50.0, 10.0, 250.0)
_STYLES = _tried("beta_style", 0.3, 0.1, 1.0)
CONTESTANTS: dict[str, Contestant] = {
    "classifier": Contestant(_peer(Classifier, generates=False, bounds=False), _RATES),
    "VAE + classifier": Contestant(_peer(VAEClassifier), _RATES),
    "beta-VAE + classifier": Contestant(_peer(VAEClassifier), _tried("beta", 4.0, 2.0, 8.0)),
    "M2": Contestant(_peer(M2), _LABELS),
    "M1+M2": Contestant(_on_vae(M1M2), _LABELS),
    "conditional VAE": Contestant(_peer(CVAE), _RATES),
    "VIB": Contestant(_peer(VIB, generates=False, bounds=False), _tried("beta", 1e-3, 1e-2, 1e-4)),
    "CCVAE": Contestant(_peer(CCVAE), _RATES),
    "DIVA": Contestant(_peer(DIVA), _tried("label_weight", 200.0, 40.0, 1000.0)),
    "LR-VAE-like": Contestant(
        _ours(flow=False), _tried("adversary", 10.0, 3.0, 30.0, beta_class=1.0, beta_style=1.0)
    ),
    "pythae VAE": Contestant(_pythae(flow_prior=False), _RATES),
    "pythae VAE + MAF": Contestant(_pythae(flow_prior=True), _RATES),
    "IB-INN": Contestant(_ibinn, _tried("beta", 1.0, 0.3, 3.0)),
    "two-stage VAE": Contestant(_on_vae(TwoStage, bounds=False, splits=False), _RATES),
    "GAN": Contestant(
        _peer(GAN, bounds=False, splits=False), _tried("learning_rate", 2e-3, 5e-4, 2e-4)
    ),
    "SVAE": Contestant(_ours(), _STYLES, ours=True),
    "SVAE, adversary": Contestant(
        _ours(), _tried("adversary", 3.0, 1.0, 10.0, beta_style=1.0), ours=True
    ),
    "SVAE, no flow": Contestant(_ours(flow=False), _STYLES, ours=True),
    "SVAE, linear head": Contestant(_ours("linear"), _STYLES, ours=True),
    "SVAE, perceptron": Contestant(_ours("perceptron"), _STYLES, ours=True),
    "concept bridge": Contestant(_explained("concept"), _RATES, ours=True),
    "invariance bridge": Contestant(
        _explained("invariance"), _tried("fibre_weight", 30.0, 10.0, 100.0), ours=True
    ),
}
