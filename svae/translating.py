"""Is there anything to draw, and does the flow draw it? A bridge against the mean translator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from svae import metrics
from svae.bridges.sources import Vectors
from svae.bridges.translation import MeanTranslator, TranslationBridge
from svae.bridges.translator import Translator
from svae.data.module import ArrayData
from svae.data.pairing import paired, source_inputs
from svae.factorization import in_batches
from svae.metrics import Estimate
from svae.training import fit

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
        """``determined`` where the mean is the better translation, ``ambiguous`` where draws are.

        By Fréchet distances where there are any, else by whether the source determines nine tenths
        of the code's variance.
        """
        if self.frechet_flow is None or self.frechet_mean is None:
            determined = self.explained.value >= _DETERMINED
        else:
            determined = self.frechet_mean.value <= self.frechet_flow.value
        return "determined" if determined else "ambiguous"

    @property
    def sentence(self) -> str:
        """The case in words, with the numbers that decide it."""
        said = f"the source determines {self.explained.value:.0%} of the target's code: "
        if self.case == "determined":
            said += "there is little to draw, the mean is the better translation"
        else:
            said += "the rest is open, draws are the better translations"
        if self.frechet_flow is None or self.frechet_mean is None:
            return said
        flow, mean = self.frechet_flow.value, self.frechet_mean.value
        return f"{said} (Fréchet distance of draws {flow:.3g}, of the mean {mean:.3g})"


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
        groups: Numbers that inputs share where their sources say the same, for the diversity;
            it needs a ``view``.
        features: What Fréchet distances are measured in, such as ``judge.features``.
        generator: Source of the draws.

    Raises:
        ValueError: If no two inputs share a group.
    """
    found = Comparison(explained(mean, x, source))
    if features is not None:
        real = in_batches(features, x)
        pictures = {
            "frechet_flow": translated(bridge, x, source, generator),
            "frechet_mean": translated(mean, x, source),
            "frechet_target": in_batches(lambda part: bridge.show(bridge.code(part)), x),
        }
        for name, drawn in pictures.items():
            distance = metrics.frechet_distance(real, in_batches(features, drawn))
            setattr(found, name, distance)
    if groups is not None:
        sizes = torch.bincount(groups)[groups]
        if not bool((sizes > 1).any()):
            raise ValueError("no two inputs share a group: diversity needs two or more of each")
        rows = (sizes > 1).nonzero().flatten()
        found.diversity = metrics.diversity_ratio(
            bridge, x[rows], groups[rows], generator=generator
        )
    return found


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
        if given is not None:
            given = given[chosen] if isinstance(given, Tensor) else [given[i] for i in chosen]
    x = part.floats()
    return x, translator.viewed(x) if given is None else given


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
        return torch.cat([bridge.latent(some, its, True).z_nuisance for some, its in parts])


@torch.no_grad()
def translated(
    translator: Translator,
    x: Float[Tensor, "n_images *event"],
    source: Any = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n_images *event"]:
    """One translation for each input, from the source that belongs to it."""
    parts = []
    for start in range(0, len(x), _CHUNK):
        rows = slice(start, start + _CHUNK)
        given = translator.viewed(x[rows]) if source is None else source[rows]
        parts.append(translator.translate(given, 1, generator)[0])
    return torch.cat(parts)


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

    The right side is what the bridge's own loss is above its least value, and 0 where v is
    standard normal whatever the source. The second flow has the same size and is fitted to the v
    of the training examples; a negative gap says that it has learnt nothing that holds.

    References:
        Network-to-Network Translation with Conditional Invertible Neural Networks (Rombach et
        al., 2020), https://arxiv.org/abs/2005.13580

    Args:
        bridge: Fitted.
        data: What it was fitted to.
        seed: Of weights and batches of the second flow.
        trainer: Keywords of :func:`svae.fit`, such as ``max_epochs=5``.
    """
    sides = []
    for name in ("train", "test"):
        x, source = pairs_of(bridge, data, name)
        shown = _representations(bridge, x, source).flatten(1)
        sides.append((shown, noises(bridge, x, source, seed)))
    (train, v), (test, v_test) = sides
    torch.manual_seed(seed)
    size = {name: bridge.settings[name] for name in ("n_blocks", "hidden", "context")}
    second = TranslationBridge(Vectors(train.shape[1]), _Itself(bridge.n_code), **size)
    fit(second, paired(train, v, bounded=False), seed=seed, **trainer)
    with torch.no_grad():
        log_normal = torch.distributions.Normal(0.0, 1.0).log_prob(v_test).sum(1)
        return metrics.mean((second.log_prob(v_test, test) - log_normal).double())


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
    if source is None:
        return in_batches(translator.representation, x)
    show = translator.source.representation
    starts = range(0, len(source), _CHUNK)
    return torch.cat([show(source[start : start + _CHUNK]) for start in starts])
