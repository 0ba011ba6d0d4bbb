"""One cell of the comparison: a model is trained on one split, and asked all it can be asked."""

import resource
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.suites import SUITES, Suite, loaded

__all__ = ["cell", "score"]


def seen_by(judge: Any, features: Callable[[Any], Any]) -> Any:
    """A judge that gives its own answers, and features of another network."""
    from torch import nn

    from svae.judge import Judge

    class Seen(Judge):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.judge = judge

        def forward(self, x: Any) -> Any:
            return self.judge(x)

        def features(self, x: Any) -> Any:
            return features(x)

    return Seen()


def cell(
    name: str, contestant: str, seed: int, quick: bool, setting: int = 0, tuning: bool = False
) -> dict[str, Any]:
    """Trains one model on one split, and measures it.

    Args:
        name: The suite.
        contestant: The model.
        seed: Of data, weights, batches and noise.
        quick: Few images and two epochs.
        setting: Which of the model's settings.
        tuning: A third of the epochs, and validation data in the place of test data.
    """
    import torch

    torch.set_num_threads(1)
    from benchmarks.contest import CONTESTANTS, Training, seconds
    from benchmarks.peers.common import Sizes

    suite, data = SUITES[name], loaded(name, seed, quick)
    epochs = suite.epochs
    if tuning:
        data.test, epochs = data.validation, max(1, suite.epochs // 3)
    width = 16 if quick else suite.width
    sizes = Sizes(tuple(data.x_shape), data.n_classes, width=width, gain=suite.gain)
    given = CONTESTANTS[contestant].settings[setting]
    training = Training(data, sizes, 2 if quick else epochs, seed, suite.flow_share, given)
    started = seconds()
    trained = CONTESTANTS[contestant].train(training)
    found: dict[str, Any] = {"seconds_training": round(seconds() - started, 1), "setting": given}
    found["peak_memory_gb"] = peak_memory()
    n = 200 if quick else 1000 if tuning else 5000
    found |= measured(trained, data, suite, seed, n, scored=tuning)
    found["n_parameters"] = trained.n_parameters
    found["seconds_to_target"] = next(
        (spent for spent, accuracy in trained.curve if accuracy >= suite.target), None
    )
    found["seconds_per_epoch"] = found["seconds_training"] / training.epochs
    return found


def peak_memory() -> float:
    """Gigabytes of this process, or of its GPU."""
    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**30, 2)
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(size / (2**30 if sys.platform == "darwin" else 2**20), 2)


def score(found: dict[str, Any]) -> float:
    """What settings are chosen by: accuracy and what a split latent is for, averaged.

    The mean of accuracy, class kept, diversity (or its inverse where there is more than in the
    data) and coverage within classes. Generators without a split latent have the negative Frechet
    distance, classifiers the accuracy.
    """
    if "preservation" not in found:
        return -found["fid"] if "fid" in found else found["test_accuracy"]
    spread = found["diversity_ratio"]
    spread = min(spread, 1 / spread) if spread > 0 else 0.0
    parts = [found["test_accuracy"], found["preservation"], spread]
    return sum([*parts, found["conditional_coverage"]]) / 4


def measured(
    trained: Any, data: Any, suite: Suite, seed: int, n: int, scored: bool = False
) -> dict[str, Any]:
    """Everything that such a model can be asked, of n test examples; or what is scored."""
    import torch

    from benchmarks.contest import seconds
    from svae import metrics
    from svae.auditing import Audit, AuditSettings, audit
    from svae.factorization import in_batches
    from svae.judge import load_judge

    model, judge = trained.model, load_judge(data)
    if suite.colour:
        from experiments.networks import squeezenet_features

        judge = seen_by(judge, squeezenet_features())
    generator = torch.Generator().manual_seed(seed)
    x, y = data.test.floats(limit=n), data.test.y[:n]
    sample = trained.sample
    if trained.splits:
        how = AuditSettings(
            n_codes=1000 if n < 5000 else 4000,  # probes are half of what measuring takes
            n_test=n,
            by_dim=False,
            n_flips=min(n, 500),
            seed=seed,
        )
        result = audit(
            model, data, judge, how, sample and (lambda labels: sample(labels, generator))
        )
    else:
        result = Audit()
        logits = in_batches(model.predict, x)
        result.numbers |= {
            "test_accuracy": metrics.accuracy(logits, y),
            "nll": metrics.negative_log_likelihood(logits, y),
            "ece": metrics.expected_calibration_error(logits, y),
        }
        if sample is not None:
            with torch.no_grad():
                drawn = torch.cat([sample(part, generator) for part in y.split(500)])
            real, fake = in_batches(judge.features, x), in_batches(judge.features, drawn)
            result.numbers["fid"] = metrics.frechet_distance(real, fake)
            within = metrics.conditional_frechet_distance
            if int(torch.bincount(y).min()) >= 20:
                result.numbers["fid_conditional"] = within(real, y, fake, y)
    if scored:
        return result.flat()
    found = result.numbers
    if trained.averaged is not None:
        torch.manual_seed(seed)
        found["test_accuracy_12_samples"] = metrics.accuracy(in_batches(trained.averaged, x), y)
    found |= robustness(model.predict, x, y, suite, generator)
    with torch.no_grad():
        if trained.bounds is not None:
            torch.manual_seed(seed)
            few = x[: n // 10]
            rows = [trained.bounds(part, 64) for part in few.split(25)]
            for name, values in zip(("elbo", "iwae"), zip(*rows, strict=True), strict=True):
                found[name] = metrics.mean(torch.cat(values))
        if sample is not None:
            labels = torch.arange(500) % data.n_classes
            sample(labels[:20], generator)
            start = seconds()
            sample(labels, generator)
            found["samples_per_second"] = len(labels) / max(seconds() - start, 1e-6)
    return result.flat()


def robustness(
    predict: Callable[[Any], Any], x: Any, y: Any, suite: Suite, generator: Any
) -> dict[str, Any]:
    """Accuracy on attacked, rotated and noisy inputs."""
    import torch
    from torchvision.transforms.functional import rotate

    from svae.attacks import fgsm, pgd
    from svae.factorization import in_batches
    from svae.metrics import accuracy

    few, labels = x[:500], y[:500]
    noisy = (x + 0.3 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    changed = {
        "fgsm": (fgsm(predict, few, labels, suite.strength), labels),
        "pgd": (pgd(predict, few, labels, suite.strength), labels),
        "rotated": (rotate(x, 30.0), y),
        "noisy": (noisy, y),
    }
    with torch.no_grad():
        return {
            f"{name}_accuracy": accuracy(in_batches(predict, seen), known)
            for name, (seen, known) in changed.items()
        }
