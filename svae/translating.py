"""Is there anything to draw, and does the flow draw it? A bridge against the mean translator."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from svae import metrics
from svae.bridges.sources import Vectors
from svae.bridges.storing import stored
from svae.bridges.translation import MeanTranslator, TranslationBridge
from svae.bridges.translator import Translator
from svae.data.arrays import ArraySet
from svae.data.module import ArrayData
from svae.data.pairing import SPLITS, PairedData, check_pairs, source_inputs
from svae.factorization import in_batches
from svae.metrics import Estimate
from svae.training import fit_steps

__all__ = [
    "Comparison",
    "compare",
    "explained",
    "noises",
    "pairs_of",
    "residual_gap",
    "translated",
]

_CHUNK = 500
_DRAWS = 8  # of each source, for the diversity
_BATCH = 128  # pairs in a step of the second flows
_LEAST = 10  # pairs to fit one of them to
_NORMAL = torch.distributions.Normal(0.0, 1.0)
_DETERMINED = 0.9  # of the code's variance


@dataclass
class Comparison:
    """What a bridge gives beside the mean translator.

    Attributes:
        explained: Share of the variance of the target's codes that the source determines, as far
            as the mean translator sees.
        frechet_flow: Fréchet distance of the bridge's translations to real inputs; None without
            ``features``, as the next.
        frechet_mean: The same of the mean translator's.
        frechet_target: The same of what the target itself decodes from the codes of these inputs:
            no translation to it is better.
        diversity: Spread of the draws of one source, over that of real inputs of its group; None
            without groups.
    """

    explained: Estimate
    frechet_flow: Estimate | None = None
    frechet_mean: Estimate | None = None
    frechet_target: Estimate | None = None
    diversity: Estimate | None = None

    @property
    def case(self) -> str:
        """``determined`` if the source fixes nine tenths of the code's variance or more.

        Else ``ambiguous``: there is much to draw.
        """
        return "determined" if self.explained.value >= _DETERMINED else "ambiguous"

    @property
    def better(self) -> str | None:
        """Which are the better translations: ``draws``, the ``mean``, or ``either``.

        By Fréchet distances; ``either`` where their intervals overlap, None without ``features``.
        """
        flow, mean = self.frechet_flow, self.frechet_mean
        if flow is None or mean is None:
            return None
        if flow.low <= mean.high and mean.low <= flow.high:
            return "either"
        return "draws" if flow.value < mean.value else "mean"

    @property
    def sentence(self) -> str:
        """The case in words, with the numbers that decide it."""
        open_ = "little" if self.case == "determined" else "much"
        said = (
            f"the source determines {self.explained.value:.0%} of the target's code, there is "
            f"{open_} to draw"
        )
        if self.frechet_flow is None or self.frechet_mean is None:
            return said
        flow, mean = self.frechet_flow.value, self.frechet_mean.value
        which = {
            "draws": "draws are the better translations",
            "mean": "the mean is the better translation",
            "either": "draws and the mean are as good",
        }[str(self.better)]
        return f"{said}; {which} (Fréchet distance {flow:.3g} of draws, {mean:.3g} of the mean)"


@torch.no_grad()
def compare(
    bridge: TranslationBridge,
    mean: MeanTranslator,
    x: Float[Tensor, "n_images *event"],
    source: Any = None,
    groups: Int[Tensor, " n_images"] | None = None,
    features: Callable[[Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Comparison:
    """Measures a bridge against the mean translator of the same source and target.

    Args:
        bridge: Fitted.
        mean: Fitted to the same data.
        x: Held-out inputs of the target.
        source: The source's inputs that belong to them; their ``view`` if None.
        groups: Numbers that inputs share where their sources say the same, for the diversity.
        features: What Fréchet distances are measured in, such as ``judge.features``.
        generator: Source of the draws.

    Raises:
        ValueError: If no two inputs share a group, or the two translate to different targets.
    """
    if not _same_codes(mean, bridge, x[:2]):
        raise ValueError(
            "the mean translator has another target than the bridge: build both with the same"
        )
    found = Comparison(explained(mean, x, source))
    if features is not None:
        real = in_batches(features, x)
        pictures = {
            "frechet_flow": translated(bridge, x, source, generator),
            "frechet_mean": translated(mean, x, source),
            "frechet_target": in_batches(lambda part: bridge.show(bridge.code(part)).to(x), x),
        }
        for name, drawn in pictures.items():
            distance = metrics.frechet_distance(real, in_batches(features, drawn))
            setattr(found, name, distance)
    if groups is not None:
        sizes = torch.bincount(groups)[groups]
        if not bool((sizes > 1).any()):
            raise ValueError("no two inputs share a group: diversity needs two or more of each")
        rows = (sizes > 1).nonzero().flatten()
        given = None if source is None else _chosen(source, rows.tolist())
        drawn = (
            bridge.translate(part, _DRAWS, generator).to(x)
            for part in _sources(bridge, x[rows], given, _CHUNK // _DRAWS)
        )
        found.diversity = metrics.spread_ratio(drawn, x[rows], groups[rows])
    return found


def _same_codes(one: Translator, other: Translator, x: Tensor) -> bool:
    if one.target is other.target:  # whose codes may be draws
        return True
    codes = [some.units.inverse(some.code(x)) for some in (one, other)]
    return one.n_code == other.n_code and torch.allclose(*codes, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def pairs_of(
    translator: Translator, data: ArrayData, split: str = "test", rows: Sequence[int] | None = None
) -> tuple[Tensor, Any]:
    """Inputs of the target, and those of the source that belong to them.

    Args:
        translator: Whose ``view`` says it where the data are no pairs.
        data: Pairs, or inputs of the target.
        split: ``train``, ``validation`` or ``test``.
        rows: Which of them; all if None.
    """
    part, given = getattr(data, split), source_inputs(data, split)
    if rows is not None:
        chosen = list(rows)
        part = part.subset(torch.tensor(chosen))
        given = None if given is None else _chosen(given, chosen)
    x = part.floats()
    return x, _joined(_sources(translator, x, None)) if given is None else given


@torch.no_grad()
def noises(
    bridge: TranslationBridge,
    x: Float[Tensor, "n_images *event"],
    source: Any = None,
    seed: int = 0,
) -> Float[Tensor, "n_images D"]:
    """The v of inputs of the target, with the noise on codes that the flow was fitted with.

    Args:
        bridge: Fitted.
        x: Inputs of the target.
        source: The source's inputs that belong to them; their ``view`` if None.
        seed: Of the noise.
    """
    shown = _representations(bridge, x, source)
    parts = zip(x.split(_CHUNK), shown.split(_CHUNK), strict=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = [bridge.latent(some, its, True).z_nuisance for some, its in parts]
        return torch.cat(found).to(x.device)


@torch.no_grad()
def translated(
    translator: Translator,
    x: Float[Tensor, "n_images *event"],
    source: Any = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n_images *event"]:
    """One translation for each input, from the source that belongs to it."""
    parts = _sources(translator, x, source)
    return torch.cat([translator.translate(part, 1, generator)[0].to(x) for part in parts])


@torch.no_grad()
def explained(
    mean: MeanTranslator, x: Float[Tensor, "n_images *event"], source: Any = None
) -> Estimate:
    r"""Share of the variance of the target's codes that the source determines.

    .. math:: 1 - \frac{\sum_i \|\Theta(y_i) - m(\Phi(x_i))\|^2}
        {\sum_i \|\Theta(y_i) - \bar\Theta\|^2}

    Args:
        mean: Fitted.
        x: Held-out inputs of the target.
        source: The source's inputs that belong to them; their ``view`` if None.
    """
    code = in_batches(mean.code, x)
    guess = in_batches(mean.code_of, _representations(mean, x, source))
    errors = (code - guess).square().sum(1).double()
    spread = (code - code.mean(0)).square().sum(1).double()
    return metrics.mean(1 - errors / spread.mean())


def residual_gap(
    bridge: TranslationBridge, data: ArrayData, seed: int = 0, **trainer: Any
) -> Estimate:
    r"""How many nats of v a second flow can still tell from the source, on held-out data.

    .. math:: \mathbb{E}[\log q_2(v \mid \Phi(x)) - \log \mathcal{N}(v; 0, I)]
        \;\le\; I(v; \Phi(x)) + \mathrm{KL}(p(v)\,\|\,\mathcal{N})

    The right side is what the bridge's own loss on new data is above its least value, and 0 where
    v is standard normal whatever the source. Second flows, built as the first, are fitted to v,
    and the one that says most counts: one to those of the training examples, of which there are
    many, but which an overfitted bridge makes more normal than those of new ones; another to those
    of the validation and of half of the test examples, drawn at random. Of maps two more see them
    flat: a perceptron can tell what a convolution of its own kind missed. All are measured on the
    other half. A negative gap says that none has learnt anything that holds.

    References:
        Network-to-Network Translation with Conditional Invertible Neural Networks (Rombach et
        al., 2020), https://arxiv.org/abs/2005.13580

    Args:
        bridge: Fitted.
        data: What it was fitted to.
        seed: Of weights, batches and noise.
        trainer: Keywords of :func:`svae.fit`, such as ``max_epochs=5`` over the training examples;
            the flows of the others take as many steps.

    Raises:
        ValueError: If there are fewer than ten examples to fit one of the two to, or none to
            measure them on.
    """
    n = len(data.test) // 2
    for what, count, least in (
        ("training", len(data.train), _LEAST),
        ("validation and half of the test", len(data.validation) + n, _LEAST),
        ("the other half of the test", n, 1),
    ):
        if count < least:
            raise ValueError(
                f"the residual gap needs {least} {what} pairs or more, got {count}: give more data"
            )
    sides = {}
    generator = torch.Generator().manual_seed(seed)
    for name in SPLITS:
        # In a random order: the first half of a set seldom stands for the other.
        order = torch.randperm(len(getattr(data, name)), generator=generator)
        x, source = pairs_of(bridge, data, name, order.tolist())
        sides[name] = _representations(bridge, x, source), noises(bridge, x, source, seed)
    new, held = ([side[part] for side in sides["test"]] for part in (slice(n), slice(n, None)))
    fresh = [torch.cat(both) for both in zip(sides["validation"], new, strict=True)]
    steps = int(trainer.pop("max_epochs", 4)) * math.ceil(len(sides["train"][0]) / _BATCH)
    gaps = [
        _told(bridge, shown, v, held, steps, seed, shape, **trainer)
        for shape in dict.fromkeys((bridge.shape, (math.prod(bridge.shape),)))
        for shown, v in (sides["train"], fresh)
    ]
    return max(gaps, key=lambda gap: gap.value)


def _told(
    bridge: TranslationBridge,
    shown: Tensor,
    v: Tensor,
    held: Sequence[Tensor],
    steps: int,
    seed: int,
    shape: tuple[int, ...],
    **trainer: Any,
) -> Estimate:
    """What a flow fitted to the v of some examples knows of others, by a source of that shape."""
    torch.manual_seed(seed)
    size = {name: bridge.settings[name] for name in ("n_blocks", "hidden", "context")}
    second = TranslationBridge(Vectors(shape), _Itself(bridge.n_code), **size)
    # Slices, not rows: what a layer shows may lie on disk, and stays there.
    first, others = slice(len(v) // 10), slice(len(v) // 10, None)
    rows = {"train": others, "validation": first, "test": first}
    none = torch.zeros(len(v), dtype=torch.int64)
    train, validation, test = (ArraySet(v[some], none[some]) for some in rows.values())
    codes = ArrayData(train, validation, test, ("any",), bounded=False)
    pairs = PairedData(
        codes, {name: shown[some].reshape(-1, *shape) for name, some in rows.items()}
    )
    fit_steps(second, pairs, steps, _BATCH, seed=seed, **trainer)
    held_shown, held_v = held[0].reshape(-1, *shape), held[1]
    with torch.no_grad():
        # Densities of standardised numbers, back in those of v.
        scale = second.units.scale.log().sum()
        parts = zip(held_v.split(_CHUNK), held_shown.split(_CHUNK), strict=True)
        told = [second.log_prob(second.code(one), its) for one, its in parts]
        found = (torch.cat(told) - scale).to(held_v.device)
        return metrics.mean((found - _NORMAL.log_prob(held_v).sum(1)).double())


class _Itself(nn.Module):
    """A target whose code is the input."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.x_shape = (n,)

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, code: Tensor) -> Tensor:
        return code


@torch.no_grad()
def _representations(translator: Translator, x: Tensor, source: Any) -> Tensor:
    parts = _sources(translator, x, source)
    return stored(map(translator.shown, parts), len(x))


def _sources(
    translator: Translator, x: Tensor, source: Any, size: int = _CHUNK
) -> Iterator[Tensor | Sequence[Any]]:
    """The source's inputs that belong to ``x``, part by part: those given, or their view."""
    if source is not None:
        check_pairs(source, len(x))
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        yield translator.viewed(x[rows]) if source is None else source[rows]


def _joined(parts: Iterable[Tensor | Sequence[Any]]) -> Tensor | list[Any]:
    found = list(parts)
    if all(isinstance(part, Tensor) for part in found):
        return torch.cat(found)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return [one for part in found for one in part]


def _chosen(source: Tensor | Sequence[Any], rows: list[int]) -> Tensor | list[Any]:
    return source[rows] if isinstance(source, Tensor) else [source[i] for i in rows]
