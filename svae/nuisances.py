"""Names for what a nuisance varies, each from measured evidence.

A direction of the nuisance space is walked, and the pictures along it are compared with what known
operators, such as a turn or another hue, make of the picture that the walk began with. A direction
has the name of the operator that explains its changes, or none.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from svae.factorization import Factorization, in_batches, resample_nuisance
from svae.latent import Latent
from svae.metrics.estimate import Estimate, mean
from svae.sketches.frames import Rotation, Shift, Size
from svae.sketches.looks import Measure, measures_for
from svae.sketches.operators import Blur, Operator, Slant, Thickness
from svae.sketches.tones import Brightness, Contrast, Hue, Saturation

__all__ = [
    "Evidence",
    "NamedDirection",
    "Names",
    "free_shares",
    "leading_directions",
    "name_nuisances",
    "sentence",
]

STEPS = (-2.0, -1.0, 1.0, 2.0)  # along a direction, in standard deviations of its draws
SHARE, ASSOCIATION = 0.25, 0.5  # of an operator that gives its name
HARDLY = 0.01  # of the data's deviation: a direction that moves less does nothing
FREE = 0.5  # of a measure's variance, not fixed by the class part: ignored
_CHUNK = 100  # inputs at a time
_TINY = 1e-10
_N_AMOUNTS, _N_VALUES = 170, 100_000_000  # amounts of all operators; values held at a time
_FACTORS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)
_ANGLES = (-60.0, -45.0, -30.0, -20.0, -12.0, -6.0, 6.0, 12.0, 20.0, 30.0, 45.0, 60.0)
_PIXELS = (-4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
_WIDE = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.05, 1.1, 1.25, 1.4, 1.6, 1.9)


@dataclass(frozen=True)
class Evidence:
    r"""What speaks for a name.

    Args:
        name: In words.
        share: Of an operator with the best amount a for each picture, the part of the squared
            change that it explains, :math:`1 - \sum \|x_t - O_a(x_0)\|^2 / \sum \|x_t - x_0\|^2`;
            of a measure, the range of its change along the direction over its standard deviation
            in the data, at most 1.
        association: Squared correlation of the amount, or of the change of the measure, with the
            step t along the direction: noise that an operator happens to fit has none.
        operator: Whether an operator gives it, or a measure.
    """

    name: str
    share: float
    association: float
    operator: bool = False

    @property
    def score(self) -> float:
        """Both at once."""
        return self.share * self.association


@dataclass(frozen=True)
class NamedDirection:
    """A direction of the nuisance space.

    Args:
        label: Of the dim or direction itself, such as ``"dim 3"``.
        name: What it varies, ``"unnamed"`` where nothing explains it, or ``"nothing"`` where
            hardly a picture changes.
        moved: Root mean square change of a value for a step of one standard deviation.
        share: Of the change, explained by what gives the name; 0 where nothing does.
        evidence: All that was looked at, best first.
    """

    label: str
    name: str
    moved: float
    share: float
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Names:
    """What the nuisance of a factorization varies.

    Args:
        directions: Dims, or leading directions, in their order.
        free: Of each measure, the share of its variance that the class part leaves open.
        sentence: Both in plain words.
    """

    directions: tuple[NamedDirection, ...]
    free: Mapping[str, Estimate] = field(default_factory=dict)
    sentence: str = ""

    def flat(self) -> dict[str, float | str]:
        """One level of names, as JSON holds it."""
        found: dict[str, float | str] = {"sentence": self.sentence}
        for one in self.directions:
            key = one.label.replace(" ", "_")
            found |= {f"{key}.name": one.name, f"{key}.share": one.share}
            found[f"{key}.moved"] = one.moved
        for name, share in self.free.items():
            key = f"free.{name.replace(' ', '_')}"
            found |= {key: share.value, f"{key}_low": share.low, f"{key}_high": share.high}
        return found


@torch.no_grad()
def name_nuisances(
    factorization: Factorization,
    x: Float[Tensor, "n_images *event"],
    readers: Mapping[str, Measure] | None = None,
    directions: Float[Tensor, "n n_nuisance"] | None = None,
    n_images: int = 48,
    generator: torch.Generator | None = None,
) -> Names:
    """Names every dim of the nuisance, or every direction that is given.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Inputs over which measures vary; the first ``n_images`` are walked from.
        readers: Further attributes by name, inputs to numbers ``(batch, d)``: judges of what the
            data's table knows.
        directions: Unit vectors of the nuisance space; None for its dims. See
            :func:`leading_directions`.
        n_images: Pictures that every direction is walked from, at least 2.
        generator: Source of the draws.

    Raises:
        ValueError: If there are fewer than two inputs.
    """
    if min(len(x), n_images) < 2:
        raise ValueError(
            f"naming needs at least 2 inputs to walk from, got {len(x)} and n_images={n_images}"
        )
    measures = measures_for(x.shape[1:]) | dict(readers or {})
    # Operators explain pictures; what has none is named by its change alone.
    by_change = set(measures) if x.ndim != 4 else set(readers or {})
    n_images = max(2, min(n_images, _N_VALUES // (_N_AMOUNTS * x[0].numel())))
    start = x[:n_images]
    latent = factorization.encode(start)
    scale = factorization.sample_nuisance(latent, 16, generator).flatten(0, 1).std(0)
    kind = "direction"
    if directions is None:
        directions, kind = torch.eye(latent.z_nuisance.shape[1]).to(scale), "dim"
    first = factorization.decode(latent)
    before = {name: one(first) for name, one in measures.items()}
    spread = {name: float(one(x).std(0).norm()) for name, one in measures.items()}
    bank = _bank(first) if x.ndim == 4 else {}
    typical = float((x - x.mean(0)).square().mean().sqrt())
    found = []
    for i, direction in enumerate(directions):
        steps = [latent.z_nuisance + step * direction * scale for step in STEPS]
        walked = torch.stack([factorization.decode(Latent(latent.z_class, z)) for z in steps])
        evidence = [_of_operator(name, *one, first, walked) for name, one in bank.items()]
        evidence += [
            _of_measure(name, torch.stack([one(w) - before[name] for w in walked]), spread[name])
            for name, one in measures.items()
        ]
        evidence.sort(key=lambda one: -one.score)
        moved = (walked - first).flatten(1).square().mean(1).sqrt() / torch.tensor(STEPS).abs()
        best = next((one for one in evidence if _names(one, by_change)), None)
        if float(moved.mean()) < HARDLY * typical:
            name, best = "nothing", None
        else:
            name = best.name if best else "unnamed"
        share = best.share if best else 0.0
        found.append(
            NamedDirection(f"{kind} {i}", name, float(moved.mean()), share, tuple(evidence))
        )
    free = free_shares(factorization, x, measures, generator=generator)
    return Names(tuple(found), free, sentence(free))


@torch.no_grad()
def free_shares(
    factorization: Factorization,
    x: Float[Tensor, "n_images *event"],
    measures: Mapping[str, Measure],
    n: int = 8,
    n_images: int = 300,
    generator: torch.Generator | None = None,
) -> dict[str, Estimate]:
    r"""Share of each measure's variance that the class part leaves open: what is ignored of it.

    .. math:: \frac{\sum_d \mathbb{E}_x \mathrm{Var}_{z_n} f_d(D(z_c(x), z_n))}
        {\sum_d \mathrm{Var}_x f_d(D(E(x)))}

    0 where the model fixes the measure, 1 where it varies as widely with the nuisance as it does
    in the data; above 1 where draws vary more than the data. Measures that do not vary are left
    out.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Inputs.
        measures: By name, inputs to numbers ``(batch, d)``.
        n: Draws for each input, at least 2.
        n_images: Inputs used, at most.
        generator: Source of the draws.

    Raises:
        ValueError: If ``n`` is less than 2 or there are fewer than two inputs.
    """
    if n < 2 or len(x) < 2:
        raise ValueError(f"a variance needs at least 2 draws of 2 inputs, got {n} of {len(x)}")
    x = x[:n_images]
    again = in_batches(lambda part: factorization.decode(factorization.encode(part)), x)
    drawn = [resample_nuisance(factorization, part, n, generator) for part in x.split(_CHUNK)]
    drawn = torch.cat(drawn, 1)
    found = {}
    for name, measure in measures.items():
        whole = float(measure(again).var(0).sum())
        read = measure(drawn.flatten(0, 1)).unflatten(0, drawn.shape[:2])
        if whole > _TINY and bool(read.isfinite().all()):
            found[name] = mean(read.var(0).sum(1) / whole)
    return found


def sentence(free: Mapping[str, Estimate], least: float = FREE) -> str:
    """What a model ignores and still reads, in plain words.

    Args:
        free: From :func:`free_shares`.
        least: Share from which on a measure is ignored.

    Example:
        >>> sentence({"slant": Estimate(0.81, 0.8, 0.82), "size": Estimate(0.1, 0.0, 0.2)})
        'ignores slant (0.81); still reads size (0.90)'
    """
    order = sorted(free.items(), key=lambda one: -one[1].value)
    ignored = [f"{name} ({min(one.value, 1):.2f})" for name, one in order if one.value >= least]
    kept = [f"{name} ({1 - one.value:.2f})" for name, one in reversed(order) if one.value < least]
    words = [f"ignores {', '.join(ignored) if ignored else 'nothing that was measured'}"]
    if kept:
        words.append(f"still reads {', '.join(kept)}")
    return "; ".join(words)


@torch.no_grad()
def leading_directions(
    factorization: Factorization,
    x: Float[Tensor, "n_images *event"],
    n: int = 4,
    n_images: int = 64,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n n_nuisance"]:
    r"""Unit vectors of the nuisance space along which pictures change the most.

    Leading eigenvectors of :math:`\mathbb{E}_x J^\top J`, J the Jacobian of the decoded input by
    the nuisance in standard deviations of its draws, by central differences of half a deviation.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Inputs.
        n: How many.
        n_images: Inputs used, at most.
        generator: Source of the draws that the deviations are of.

    Raises:
        ValueError: If ``n`` is out of range.
    """
    latent = factorization.encode(x[:n_images])
    n_dims = latent.z_nuisance.shape[1]
    if not 1 <= n <= n_dims:
        raise ValueError(f"there are {n_dims} nuisance dims, so 1 to {n_dims} directions, got {n}")
    scale = factorization.sample_nuisance(latent, 16, generator).flatten(0, 1).std(0)
    jacobian = []
    for axis in torch.diag(scale / 2):
        there, back = (
            factorization.decode(Latent(latent.z_class, latent.z_nuisance + sign * axis))
            for sign in (1, -1)
        )
        jacobian.append((there - back).flatten())
    columns = torch.stack(jacobian).double()
    vectors = torch.linalg.eigh(columns @ columns.T).eigenvectors
    return vectors.flip(1).T[:n].to(x.dtype)


def _names(one: Evidence, by_change: set[str]) -> bool:
    """Whether the evidence is enough for a name."""
    enough = one.share >= SHARE and one.association >= ASSOCIATION
    return enough and (one.operator or one.name in by_change)


def _bank(first: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Of each operator its amounts, in order, and what each makes of the pictures."""
    side = first.shape[-1] / 28  # shifts that suit small digits, in proportion
    made: dict[str, dict[float, Operator]] = {
        "rotation": {a: Rotation(a) for a in _ANGLES},
        "position across": {a: Shift(right=a * side) for a in _PIXELS},
        "position upright": {a: Shift(down=a * side) for a in _PIXELS},
        "size": {math.log(a): Size(a, a) for a in _WIDE},
        "width": {math.log(a): Size(width=a) for a in _WIDE},
        "height": {math.log(a): Size(height=a) for a in _WIDE},
        "slant": {a: Slant(a) for a in _ANGLES},
        "thickness": {math.log(a): Thickness(a) for a in _FACTORS},
        "brightness": {math.log(a): Brightness(a) for a in _FACTORS},
        "contrast": {math.log(a): Contrast(a) for a in _FACTORS},
        "blur": {a: Blur(a) for a in (0.3, 0.5, 0.7, 1.0, 1.4, 2.0)},
    }
    if first.shape[1] == 3:
        made["hue"] = {a: Hue(a) for a in (*(3 * a for a in _ANGLES), -90.0, 90.0)}
        made["saturation"] = {math.log(a): Saturation(a) for a in _FACTORS}
    bank = {}
    for name, operators in made.items():
        pictures = {0.0: first} | {amount: one(first) for amount, one in operators.items()}
        amounts = sorted(pictures)
        order = torch.stack([pictures[a] for a in amounts])
        bank[name] = first.new_tensor(amounts), order.flatten(2)
    return bank


def _of_operator(
    name: str, amounts: Tensor, pictures: Tensor, first: Tensor, walked: Tensor
) -> Evidence:
    """The best amount for each picture, between two that were made, and what it explains."""
    total = missed = 0.0
    best = []
    for picture in walked.flatten(2):
        line = pictures[1:] - pictures[:-1]
        along = ((picture - pictures[:-1]) * line).sum(2) / line.square().sum(2).clamp_min(_TINY)
        along = along.clamp(0, 1)
        rest = (picture - pictures[:-1] - along[..., None] * line).square().sum(2)
        least, place = rest.min(0)
        here = along.gather(0, place[None])[0]
        best.append(amounts[place] + here * (amounts[place + 1] - amounts[place]))
        missed += float(least.sum())
        total += float((picture - first.flatten(1)).square().sum())
    share = 1 - missed / total if total > _TINY else 0.0
    return Evidence(name, share, _association(torch.stack(best)[..., None]), operator=True)


def _of_measure(name: str, changes: Tensor, spread: float) -> Evidence:
    """How far a measure is moved along the direction, and how steadily."""
    if spread < _TINY or not bool(changes.isfinite().all()):
        return Evidence(name, 0.0, 0.0)
    share = float(changes.square().sum(2).mean().sqrt()) / spread
    return Evidence(name, min(share, 1.0), _association(changes))


def _association(changes: Float[Tensor, "n_steps n_images d"]) -> float:
    """Squared correlation of the steps with the best linear combination of the changes."""
    steps = changes.new_tensor(STEPS)[:, None].expand(changes.shape[:2]).flatten().double()
    rows = changes.flatten(0, 1).double()
    if float(rows.abs().max()) < _TINY:
        return 0.0
    rows = rows / rows.abs().amax(0).clamp_min(_TINY)
    fitted = rows @ torch.linalg.lstsq(rows, steps[:, None], driver="gelsd").solution
    return float(1 - (steps - fitted[:, 0]).square().sum() / steps.square().sum())
