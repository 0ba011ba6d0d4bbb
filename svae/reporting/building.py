"""Measures, draws and writes the page."""

import csv
import importlib.metadata
import json
import logging
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from svae import plots
from svae.auditing import Audit, AuditSettings, audit
from svae.factorization import Factorization, check_protocol, in_batches
from svae.nuisances import name_nuisances
from svae.reporting import parts
from svae.reporting.inlining import inlined
from svae.saving import writable
from svae.shortcuts import factor_effects, reactions

if TYPE_CHECKING:
    from svae.judge import Judge
    from svae.profiling import LayerProfile

__all__ = ["ReportSettings", "report"]

logger = logging.getLogger("svae")
MAX_BYTES = 5_000_000
_WORST = 20  # classes that the page lists; all are in the files beside it
# Numbers of the certificate, in the order of reading, with what they say.
MEANINGS = {
    "flip_rate": "share of nuisance draws to which the model gives another answer",
    "preservation": "share of nuisance draws in which an independent judge sees the same class",
    "switch_rate": "share of swaps in which the judge's class follows the class part",
    "diversity_ratio": "how far draws differ, over how far real inputs of a class do",
    "conditional_coverage": "share of real inputs of a class that have a draw near them",
    "moved_pixels": "how far draws are from their input, over how far two inputs are",
    "moved_features": "the same in the judge's features",
    "moved_perceptual": "how different draws look, over how different two inputs do",
    "cycle_distance": "distance of the class part read from a draw to the one it was drawn with",
    "margin_change": "by how much the logit of the answer rises over the next",
    "leakage_samples_strongest": "accuracy with which a probe reads the class from the nuisance",
    "leakage_null": "accuracy of a linear probe where the labels are shuffled",
    "chance": "share of the most frequent class",
    "test_accuracy": "share of test labels that are answered right",
    "ece": "distance of confidence and accuracy",
    "reconstruction_preservation": "share of plain reconstructions that keep the judge's class",
}


@dataclass(frozen=True)
class ReportSettings:
    """How much a report shows.

    Args:
        n_test: Test examples that the certificate is measured on, at most.
        n_codes: Training codes that its probes are fitted to, at most.
        n_points: Points of each map of codes.
        n_pictures: Inputs that sliders and pairs are shown for.
        seed: Of every draw.
    """

    n_test: int = 2000
    n_codes: int = 4000
    n_points: int = 300
    n_pictures: int = 8
    seed: int = 0


def report(
    factorization: Factorization,
    data: Any,
    out: str | Path = "report",
    *,
    judge: "Judge | None" = None,
    audited: Audit | Mapping[str, Any] | None = None,
    profile: "LayerProfile | None" = None,
    layers: Mapping[str, Factorization] | None = None,
    settings: ReportSettings | None = None,
) -> Path:
    """Writes one self-contained page, and its numbers and pictures beside it.

    The page needs no network and no server. It holds the sentence that names what is ignored, the
    certificate, sliders over every nuisance dim, swaps, maps of attribution and invariance, maps
    of codes, responses, semi-factuals and counterfactuals, settings and versions. A part that
    cannot be made is left out, and the page says why; numbers are written before pictures.

    Args:
        factorization: Any model that fulfils the protocol.
        data: Data module with ``train``, ``validation`` and ``test``.
        out: Folder of everything written: ``index.html``, ``report.json``, ``certificate.csv``
            and ``pictures/``.
        judge: Independent classifier; one trained on this data by default.
        audited: What :func:`svae.audit` gave before; measured by default.
        profile: Of layers, where there are several.
        layers: Factorizations of single layers by name, whose flips are certified too; those of
            the profile by default.
        settings: How much is shown.

    Returns:
        The page.

    Raises:
        TypeError: If a method of the protocol is missing.
        ValueError: If a method gives another shape, or the page would exceed 5 MB.
    """
    settings, started = settings or ReportSettings(), time.perf_counter()
    out = writable(out)
    x = data.test.floats(limit=max(settings.n_test, settings.n_points))
    check_protocol(factorization, x[:2])
    generator = torch.Generator().manual_seed(settings.seed)
    names_of_classes = [str(name) for name in data.class_names]
    drawable = _drawable(names_of_classes)
    why: dict[str, str] = {}

    if audited is None:
        how = AuditSettings(
            n_test=settings.n_test, n_codes=settings.n_codes, n_flips=500, seed=settings.seed
        )
        if layers is None and profile is not None:
            layers = profile.bridges
        audited = audit(factorization, data, judge, how, layers=layers)
    numbers = dict(audited.flat() if isinstance(audited, Audit) else audited)
    names = parts.attempted(
        "names",
        lambda: name_nuisances(factorization, x[:300], n_images=24, generator=generator),
        why,
    )
    if names is not None:
        numbers |= names.flat()
    _write(out, numbers)

    shown = _one_of_each(factorization, x, settings.n_pictures)
    is_picture = x.ndim == 4 and x.shape[1] in (1, 3)
    drawn: dict[str, dict[str, str]] = {}
    page: dict[str, Any] = {"sliders": None, "pairs": None, "points": None, "reactions": None}
    if is_picture:
        made = dict(parts.pictures(factorization, shown, drawable, generator))
        for name, (words, make) in made.items():
            figure = parts.attempted(name, make, why)
            if figure is not None:
                drawn[name] = _picture(out, name, words, figure)
        found = parts.attempted(
            "maps",
            lambda: parts.maps(factorization, shown[:6], drawable, generator),
            why,
        )
        if found is not None:
            figure, of_maps = found
            numbers |= of_maps
            words = "Inputs, pixels that the answer needs, and those that vary with the nuisance"
            drawn["maps"] = _picture(out, "maps", words, figure)
        page["sliders"] = parts.attempted(
            "sliders", lambda: parts.sliders(factorization, shown, names), why
        )
        page["pairs"] = parts.attempted(
            "pairs",
            lambda: parts.pairs(factorization, shown[:6], x, names_of_classes, generator),
            why,
        )
        page["points"] = parts.attempted(
            "points",
            lambda: parts.points(
                factorization, x[: settings.n_points], names_of_classes, settings.seed
            ),
            why,
        )
        page["reactions"] = parts.attempted(
            "reactions", lambda: reactions(factorization.predict, x[:200]), why
        )
        for one in page["reactions"] or ():
            numbers[f"reaction_{one.name}"] = one.effect.value
    page["factors"] = parts.attempted("factors", lambda: _factors(factorization, data), why)
    if profile is not None:
        numbers |= {f"layer.{name}": value for name, value in profile.flat().items()}
        drawn["profile"] = _picture(
            out, "profile", "What each layer knows and ignores", plots.profile(profile)
        )
    numbers["seconds"] = round(time.perf_counter() - started, 1)
    _write(out, numbers)
    text = (
        _environment()
        .get_template("page.html")
        .render(
            title=f"What {type(factorization).__name__} ignores of {data.name}",
            sentence=names.sentence if names is not None else "",
            certificate=_rows(numbers),
            by_class=_by(numbers, "flip_rate_class_", lambda k: names_of_classes[int(k)])[:_WORST],
            n_classes=len(names_of_classes),
            by_dim=_by(numbers, "flip_rate_dim_", lambda i: f"dim {i}"),
            by_layer=_by(numbers, "flip_rate_layer_", str),
            directions=names.directions if names is not None else (),
            pictures=drawn,
            profile_table=profile.table() if profile is not None else "",
            why=why,
            settings=asdict(settings),
            versions=_versions(),
            n_images=len(x),
            **page,
        )
    )
    content = text.encode()
    if len(content) > MAX_BYTES:
        raise ValueError(
            f"the page would have {len(content) / 1e6:.1f} MB, at most {MAX_BYTES / 1e6:.0f} are "
            "allowed. Show fewer points or pictures: ReportSettings(n_points=100, n_pictures=4). "
            f"Numbers and pictures are in {out}"
        )
    path = out / "index.html"
    path.write_bytes(content)
    logger.info("%s, %.1f MB, %.0f s", path, len(content) / 1e6, numbers["seconds"])
    return path


def _drawable(names: list[str]) -> list[str]:
    """Names as figures can write them: by number where the font lacks the script."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties())).get_charmap()
    return [
        name if all(ord(letter) in known for letter in name) else f"class {i}"
        for i, name in enumerate(names)
    ]


def _one_of_each(factorization: Factorization, x: torch.Tensor, n: int) -> torch.Tensor:
    """Inputs with as many different answers as there are, in the order of the classes."""
    answers = factorization.predict(x[:500]).argmax(1)
    first = [int((answers == k).nonzero()[0]) for k in answers.unique().tolist()][:n]
    others = [i for i in range(len(answers)) if i not in first]
    return x[(first + others)[:n]]


def _factors(factorization: Factorization, data: Any) -> Any:
    if data.test.factors is None:
        return None
    n = min(2000, len(data.test))
    x, y = data.test.floats(limit=n), data.test.marked[:n]
    known = y >= 0
    factors = data.test.factors[:n].float()
    names = data.factor_names or [str(i) for i in range(factors.shape[1])]
    logits = in_batches(factorization.predict, x)
    return factor_effects(logits[known], y[known], factors[known], names)


def _rows(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "meaning": meaning,
            "value": numbers[name],
            "low": numbers.get(f"{name}_low"),
            "high": numbers.get(f"{name}_high"),
        }
        for name, meaning in MEANINGS.items()
        if parts.finite(numbers.get(name))
    ]


def _by(
    numbers: Mapping[str, Any], prefix: str, called: Callable[[str], str]
) -> list[dict[str, Any]]:
    """Rates by class, dim or layer, the highest first."""
    found = []
    for name, value in numbers.items():
        if name.startswith(prefix) and f"{name}_low" in numbers and parts.finite(value):
            low, high = numbers[f"{name}_low"], numbers[f"{name}_high"]
            label = called(name.removeprefix(prefix))
            found.append({"label": label, "value": value, "low": low, "high": high})
    return sorted(found, key=lambda one: -one["value"])


def _picture(out: Path, name: str, words: str, figure: Any) -> dict[str, str]:
    path = plots.save(figure, out / "pictures" / f"{name}.png")
    return {"uri": inlined(path), "words": words}


def _write(out: Path, numbers: Mapping[str, Any]) -> None:
    """The numbers as JSON and as a table."""
    (out / "report.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    with (out / "certificate.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["name", "value", "low", "high"])
        for name, value in numbers.items():
            if parts.finite(value) and not name.endswith(("_low", "_high")):
                ends = [numbers.get(f"{name}{end}", "") for end in ("_low", "_high")]
                rows.writerow([name, value, *ends])


def _versions() -> dict[str, str]:
    packages = ("svae", "torch", "pyro-ppl", "zuko", "captum", "umap-learn")
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _environment() -> Any:
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters["rounded"] = lambda value: f"{value:.4g}"
    return made
