"""The numbers that say whether a factorization's nuisance is one, each with its opposite.

Preservation is worthless without diversity, leakage without reconstruction, accuracy without
fidelity: :func:`audit` measures all of them on one test set.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from svae import metrics
from svae.factorization import (
    Factorization,
    check_protocol,
    in_batches,
    read,
    reconstruct,
    resample_nuisance,
)
from svae.judge import Judge
from svae.labels import read_labels
from svae.latent import Latent
from svae.metrics import Estimate
from svae.metrics.flips import Flips, attribute_share, flips
from svae.metrics.leakage import leakage

__all__ = ["Audit", "AuditSettings", "audit"]

Numbers = dict[str, Estimate | float | int | str]


@dataclass(frozen=True)
class AuditSettings:
    """How much is drawn and how much is used.

    Args:
        n_draws: Nuisance draws per image for preservation and diversity.
        n_samples: Posterior samples for the averaged accuracy.
        n_codes: Training codes that the probes are fitted on, at most.
        n_test: Test examples used, at most; all if None.
        n_flips: Test examples whose nuisance is drawn anew for the flip rate, at most.
        flip_draws: Draws for each of them.
        by_dim: Whether every nuisance dim is also drawn anew by itself.
        seed: Seed of every draw.
    """

    n_draws: int = 2
    n_samples: int = 12
    n_codes: int = 20_000
    n_test: int | None = None
    n_flips: int = 1000
    flip_draws: int = 8
    by_dim: bool = True
    seed: int = 0


@dataclass
class Audit:
    """What was measured: names to estimates or plain facts, and the seconds each part took."""

    numbers: Numbers = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def flat(self) -> dict[str, float | int | str]:
        """One level of names; an interval stands under ``<name>_low`` and ``<name>_high``."""
        flat: dict[str, float | int | str] = {}
        for name, number in self.numbers.items():
            if isinstance(number, Estimate):
                flat[name] = number.value
                flat[f"{name}_low"], flat[f"{name}_high"] = number.low, number.high
            else:
                flat[name] = number
        return flat

    def save(self, path: str | Path) -> None:
        """Writes :meth:`flat` as JSON."""
        Path(path).write_text(json.dumps(self.flat(), indent=1) + "\n", encoding="utf-8")

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the seconds of a block under ``name``."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


@torch.no_grad()
def audit(
    factorization: Factorization,
    data: Any,
    judge: Judge | None = None,
    settings: AuditSettings | None = None,
    sample: Callable[[Tensor], Tensor] | None = None,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
    layers: Mapping[str, Factorization] | None = None,
) -> Audit:
    """Measures a factorization on the test set of ``data``.

    Args:
        factorization: Any model that fulfils the protocol.
        data: Data module with ``train``, ``validation`` and ``test``.
        judge: Independent classifier that decides what a decoded image shows, and gives the
            features that fidelity is measured in; one trained on this data by default.
        settings: How much is drawn.
        sample: New images of given classes, ``(batch,)`` labels to ``(batch, ...)``; without it
            fidelity is measured on one nuisance resample of each test image.
        perceptual: Two batches of inputs to how different they look, ``(batch,)``, such as LPIPS
            where you have its weights; :func:`svae.metrics.structural_distance` for pictures by
            default, and none for rows.
        layers: Factorizations of single layers by name, such as ``profile.bridges``: flips and
            distances of each are certified too.

    Returns:
        The numbers by name, as the page on metrics defines them.

    Raises:
        TypeError: If a method of the protocol is missing.
        ValueError: If a method gives another shape, or no test example has a label.
    """
    settings = settings or AuditSettings()
    if judge is None:
        from svae.judge import load_judge

        judge = load_judge(data)
    result = Audit()
    found = result.numbers
    x, y = _examples(data.test, settings.n_test)
    check_protocol(factorization, x[:2])
    draws = torch.Generator().manual_seed(settings.seed)

    with result.part("classification"):
        logits = in_batches(factorization.predict, x)
        found["test_accuracy"] = metrics.accuracy(logits, y)
        found["nll"] = metrics.negative_log_likelihood(logits, y)
        found["ece"] = metrics.expected_calibration_error(logits, y)
        with _seeded(settings.seed):
            averaged = in_batches(lambda part: _averaged(factorization, part, settings), x)
        found[f"test_accuracy_{settings.n_samples}_samples"] = metrics.accuracy(averaged, y)

    with result.part("preservation"):
        judged = in_batches(judge, x)
        found["judge_accuracy"] = metrics.accuracy(judged, y)
        found["reconstruction_preservation"] = metrics.reconstruction_preservation(
            factorization, x, judge
        )
        found["preservation"] = metrics.preservation(
            factorization, x, judge, settings.n_draws, draws
        )
        found["preservation_swapped"] = metrics.preservation_swapped(
            factorization, x, judge, draws
        )
        found["preservation_self"] = metrics.preservation(
            factorization, x, factorization.predict, 1, draws
        )
        found["preservation_swapped_self"] = metrics.preservation_swapped(
            factorization, x, factorization.predict, draws
        )
        found["switch_rate"] = metrics.switch_rate(factorization, x, y, judge, draws)

    with result.part("flips"):
        if perceptual is None and x.dim() == 4 and min(x.shape[2:]) > 2:
            perceptual = metrics.structural_distance
        whole, numbers = _redrawn(factorization, x, judge, settings, perceptual)
        found |= numbers | _flips_of_parts(factorization, x, whole, settings)
        for name, one in (layers or {}).items():
            its = numbers
            if one is not factorization:  # as the last layer of an explained network may be
                check_protocol(one, x[:2])
                its = _redrawn(one, x, judge, settings, perceptual)[1]
            found |= {f"{key}_layer_{name}": value for key, value in its.items()}

    with result.part("diversity"):
        found["diversity_ratio"] = metrics.diversity_ratio(
            factorization, x, y, settings.n_draws, draws
        )
        once = torch.cat(
            [resample_nuisance(factorization, part, 1, draws)[0] for part in x.split(500)]
        )

    with result.part("leakage"):
        sets = [(x, y)]
        for part, limit in ((data.validation, None), (data.train, settings.n_codes)):
            sets.append(_examples(part, limit))
        for kind in (True, False):
            word = "samples" if kind else "means"
            with _seeded(settings.seed):
                codes = [(_encoded(factorization, part, kind), labels) for part, labels in sets]
            for block in ("nuisance", "class"):
                test, validation, train = (
                    (getattr(code, f"z_{block}").flatten(1), labels) for code, labels in codes
                )
                if block == "class" and kind:
                    continue
                probes = leakage(train, validation, test, seed=settings.seed)
                prefix = f"leakage_{word}" if block == "nuisance" else f"probe_class_{word}"
                found["chance"] = probes.pop("chance").value
                found |= {f"{prefix}_{probe}": value for probe, value in probes.items()}
                if block == "nuisance" and kind:
                    # What a linear probe finds where nothing is to be found.
                    found["leakage_null"] = metrics.permutation_null(
                        train, validation, test, seed=settings.seed
                    )
            if not kind:
                found |= _attributes(data, codes[2], codes[0], settings)

    with result.part("fidelity"):
        real, fake_once = in_batches(judge.features, x), in_batches(judge.features, once)
        redrawn = in_batches(lambda part: reconstruct(factorization, part), x)
        found["fid_reconstructed"] = metrics.frechet_distance(
            real, in_batches(judge.features, redrawn)
        )
        other_x, other_y = _examples(data.train, len(x))
        other = in_batches(judge.features, other_x)
        found["conditional_coverage"] = metrics.conditional_coverage(real, y, fake_once, y)
        found["conditional_coverage_floor"] = metrics.conditional_coverage(real, y, other, other_y)
        fake = fake_once
        if sample is not None:
            with _seeded(settings.seed):
                drawn = torch.cat([sample(part) for part in y.split(500)])
            fake = in_batches(judge.features, drawn)
        for suffix, features, labels in (("", fake, y), ("_floor", other, other_y)):
            found |= _fidelity(real, y, features, labels, suffix, settings.seed)
    return result


def _flips_of_parts(
    factorization: Factorization, x: Tensor, whole: Flips, settings: AuditSettings
) -> Numbers:
    """Flips of the model's answer by answered class and by nuisance dim."""
    rate, mean = metrics.clustered_proportion, metrics.clustered_mean
    found: Numbers = {}
    x, draws = x[: settings.n_flips], torch.Generator().manual_seed(settings.seed)
    answers = in_batches(factorization.predict, x).argmax(1)
    for label in answers.unique().tolist():
        found[f"flip_rate_class_{label}"] = rate(whole.flipped[:, answers == label])
    if settings.by_dim:
        n_dims = factorization.encode(x[:2]).z_nuisance.shape[1]
        for i in range(n_dims):
            one = flips(factorization, x, 1, draws, [i])
            found[f"flip_rate_dim_{i}"] = rate(one.flipped)
            found[f"moved_pixels_dim_{i}"] = mean(one.moved)
    return found


def _redrawn(
    factorization: Factorization,
    x: Tensor,
    judge: Judge,
    settings: AuditSettings,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None,
) -> tuple[Flips, Numbers]:
    """Flips where the whole nuisance is drawn anew, and their means."""
    mean, draws = metrics.clustered_mean, torch.Generator().manual_seed(settings.seed)
    x, n = x[: settings.n_flips], settings.flip_draws
    whole = flips(factorization, x, n, draws, None, judge.features, perceptual)
    found: Numbers = {
        "flip_rate": metrics.clustered_proportion(whole.flipped),
        "margin_change": mean(whole.margin),
        "moved_pixels": mean(whole.moved),
        "cycle_distance": mean(whole.cycled),
    }
    if whole.features is not None:
        found["moved_features"] = mean(whole.features)
    if whole.looks is not None:
        found["moved_perceptual"] = mean(whole.looks)
    return whole, found


def _attributes(
    data: Any, train: tuple[Latent, Tensor], test: tuple[Latent, Tensor], settings: AuditSettings
) -> Numbers:
    """Share of each known factor's variance that is read from either block, and of a shuffled one.

    Examples without a label are left out of the codes, so there is nothing where some are.
    """
    blocks = ("class", "nuisance")
    factors = [data.train.factors, data.test.factors]
    sizes = [len(train[1]), len(test[1])]
    if any(f is None for f in factors) or len(data.test) < sizes[1]:
        return {}
    values = [f[:size].float() for f, size in zip(factors, sizes, strict=True)]
    n_factors = values[0].shape[1]
    names = getattr(data, "factor_names", ()) or [str(i) for i in range(n_factors)]
    found: Numbers = {}
    generator = torch.Generator().manual_seed(settings.seed)
    order = torch.randperm(sizes[0], generator=generator)
    for block in blocks:
        codes = [getattr(latent, f"z_{block}") for latent, _ in (train, test)]
        for i, name in enumerate(names):
            pair = [(z, v[:, i]) for z, v in zip(codes, values, strict=True)]
            found[f"attribute_{name}_in_{block}"] = attribute_share(pair[0], pair[1])
        shuffled = (codes[0], values[0][order, 0]), (codes[1], values[1][:, 0])
        found[f"attribute_null_in_{block}"] = attribute_share(*shuffled)
    return found


def _fidelity(
    real: Tensor, real_y: Tensor, fake: Tensor, fake_y: Tensor, suffix: str, seed: int
) -> Numbers:
    draws = torch.Generator().manual_seed(seed)
    near = metrics.neighbourhood(real, fake)
    size = min(1000, len(real), len(fake))
    within = metrics.conditional_frechet_distance
    return {
        f"fid{suffix}": metrics.frechet_distance(real, fake),
        f"kid{suffix}": metrics.kernel_distance(real, fake, size=size, generator=draws),
        **{f"{name}{suffix}": value for name, value in near._asdict().items()},
        **(
            {f"fid_conditional{suffix}": within(real, real_y, fake, fake_y)}
            if min(_smallest(real_y, real_y), _smallest(real_y, fake_y)) >= 20
            else {}
        ),
    }


def _smallest(classes: Tensor, y: Tensor) -> int:
    """Number of examples of the rarest of the classes."""
    return min(int((y == label).sum()) for label in classes.unique())


def _examples(part: Any, limit: int | None) -> tuple[Tensor, Tensor]:
    n = len(part) if limit is None else min(limit, len(part))
    batch = part.batch(torch.arange(n))
    x = batch.x.float() / 255 if batch.x.dtype == torch.uint8 else batch.x
    labels = read_labels(batch.y)
    if not bool(labels.known.any()):
        raise ValueError(
            f"none of the {n} test examples has a label (all are -1): accuracy, preservation and "
            "leakage need labelled test examples"
        )
    return x[labels.known], labels.hard[labels.known]


def _encoded(factorization: Factorization, x: Tensor, sample: bool) -> Latent:
    return in_batches(lambda part: factorization.encode(part, sample=sample), x)


def _averaged(factorization: Factorization, x: Tensor, settings: AuditSettings) -> Tensor:
    draws = [
        read(factorization, factorization.encode(x, sample=True)).softmax(-1)
        for _ in range(settings.n_samples)
    ]
    return torch.stack(draws).mean(0).log()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The global generators from ``seed`` inside, and as they were after."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
