"""Which pixels an answer depends on, and which the model lets go: two maps that should disagree.

Captum computes the attributions; here they are attributions of anything that gives numbers (a
logit, a concept), averaged over what the model ignores, with the error they make measured.
"""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from svae.factorization import Factorization, resample_nuisance
from svae.latent import Latent
from svae.metrics.estimate import Estimate, mean

__all__ = [
    "Attribution",
    "attribute",
    "averaged",
    "in_shrinking_batches",
    "invariance_map",
    "latent_shares",
    "randomised",
    "rank_correlation",
]

logger = logging.getLogger("svae")

# Inputs (batch, ...) to numbers (batch, k): logits, or a concept of a bridge.
Function: TypeAlias = Callable[[Tensor], Tensor]
METHODS = ("integrated_gradients", "saliency", "occlusion", "grad_cam")


@dataclass(frozen=True)
class Attribution:
    r"""What each value of each input contributes.

    Args:
        values: Like the inputs.
        error: Of integrated gradients, for each input,
            :math:`|\sum_d a_d - (f(x) - f(x_0))| \,/\, |f(x) - f(x_0)|`: what is not accounted
            for. None for methods without such a law.
    """

    values: Float[Tensor, "batch ..."]
    error: Float[Tensor, " batch"] | None = None


def attribute(
    function: Function,
    x: Float[Tensor, "batch *event"],
    target: Int[Tensor, " batch"] | int | None = None,
    method: str = "integrated_gradients",
    baseline: Float[Tensor, "*batch_and_event"] | float = 0.0,
    n_steps: int = 64,
    most_steps: int = 1024,
    tolerance: float = 0.01,
    layer: nn.Module | None = None,
    window: int | None = None,
    batch_size: int = 64,
) -> Attribution:
    r"""Attribution of one output of a function to the values of its inputs.

    .. math:: a_d = (x - x_0)_d \int_0^1 \frac{\partial f}{\partial x_d}
        \big(x_0 + \alpha (x - x_0)\big)\, \mathrm{d}\alpha

    is that of integrated gradients, by Gauss-Legendre quadrature with four times as many steps
    again for inputs of which more than ``tolerance`` of the rise is not accounted for. When memory
    runs out, the work is split into smaller batches, and goes on.

    References:
        Axiomatic Attribution for Deep Networks (Sundararajan et al., 2017),
        https://arxiv.org/abs/1703.01365

    Args:
        function: Inputs to numbers: a network, ``factorization.predict``, or a concept such as
            ``lambda x: bridge.part(bridge.encode(x), "colour")``. It has to be differentiable,
            but for ``occlusion``.
        x: Inputs.
        target: Which number, one for each input or one for all; None takes the largest of each.
        method: ``integrated_gradients``, ``saliency`` (absolute gradient), ``occlusion`` or
            ``grad_cam``.
        baseline: What integrated gradients begin at and occlusion shows instead.
        n_steps: Of the quadrature, to begin with.
        most_steps: At most.
        tolerance: Error from which on more steps are taken.
        layer: Convolution whose maps Grad-CAM weighs; the function has to be a module with it.
        window: Side of what is occluded, in pixels; a quarter of the picture's by default.
        batch_size: Inputs at a time, to begin with.

    Raises:
        ValueError: If the method is unknown, or lacks what it needs.
        ImportError: If captum is not installed.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    if method == "grad_cam" and (layer is None or not isinstance(function, nn.Module)):
        raise ValueError(
            "grad_cam weighs the maps of a convolution: give a module as the function and "
            "layer=, one of its convolutions"
        )
    if method != "occlusion":
        with torch.enable_grad():
            if not function(x[:1].clone().requires_grad_()).requires_grad:
                raise ValueError(
                    "the function has no gradient with respect to its input, as where words or "
                    'labels stand between the two: attribute it with method="occlusion"'
                )
    with torch.no_grad():
        outputs = in_shrinking_batches(lambda rows: function(x[rows]), len(x), batch_size)
    chosen = outputs.argmax(1) if target is None else torch.as_tensor(target).expand(len(x))
    start = baseline if isinstance(baseline, Tensor) else torch.full_like(x[:1], baseline)
    start = start.expand_as(x)

    def some(rows: Tensor, n_steps: int = n_steps) -> Tensor:
        made = _explainer(method, function, layer)
        given: dict[str, Any] = {"target": chosen[rows].to(x.device)}
        inputs = x[rows].clone().requires_grad_(method != "occlusion")
        if method == "integrated_gradients":
            given |= {"baselines": start[rows], "n_steps": n_steps}
            given |= {"method": "gausslegendre", "internal_batch_size": max(64, len(rows))}
        elif method == "occlusion":
            side = window or max(1, x.shape[-1] // 4)
            shape = (x.shape[1], *[min(side, n) for n in x.shape[2:]]) if x.ndim > 2 else (1,)
            stride = (x.shape[1], *[max(1, n // 2) for n in shape[1:]]) if x.ndim > 2 else (1,)
            given |= {"sliding_window_shapes": shape, "strides": stride, "baselines": start[rows]}
        found = made.attribute(inputs, **given).detach()
        if method == "grad_cam":
            found = nn.functional.interpolate(
                found.relu(), x.shape[2:], mode="bilinear", align_corners=False
            ).expand(-1, x.shape[1], -1, -1)
        return found

    values = in_shrinking_batches(some, len(x), batch_size)
    if method != "integrated_gradients":
        return Attribution(values)
    with torch.no_grad():
        zero = in_shrinking_batches(lambda rows: function(start[rows]), len(x), batch_size)
    rise = (outputs - zero).gather(1, chosen.to(outputs.device)[:, None])[:, 0]

    def missed(rows: Tensor) -> Tensor:
        left = (values[rows].flatten(1).sum(1) - rise[rows]).abs()
        return left / rise[rows].abs().clamp_min(1e-8)

    error, steps = missed(torch.arange(len(x))), n_steps
    while steps < most_steps and bool((error > tolerance).any()):
        steps = min(4 * steps, most_steps)
        again = (error > tolerance).nonzero()[:, 0]
        values[again] = in_shrinking_batches(
            lambda rows, again=again, steps=steps: some(again[rows], steps), len(again), batch_size
        )
        error = missed(torch.arange(len(x)))
    return Attribution(values, error)


def averaged(
    function: Function,
    factorization: Factorization,
    x: Float[Tensor, "batch *event"],
    target: Int[Tensor, " batch"] | int | None = None,
    n: int = 8,
    generator: torch.Generator | None = None,
    **settings: Any,
) -> Attribution:
    """The mean attribution over pictures that differ in what is ignored only.

    What one picture's noise and style add to its map averages out; what the class needs stays.

    Args:
        function: As in :func:`attribute`.
        factorization: Whose nuisance is drawn anew.
        x: Inputs.
        target: As in :func:`attribute`; None takes the largest number of each input of ``x``.
        n: Draws for each input.
        generator: Source of the draws.
        settings: Further arguments of :func:`attribute`.
    """
    if target is None:
        with torch.no_grad():
            target = function(x).argmax(1)
    drawn = resample_nuisance(factorization, x, n, generator)
    targets = torch.as_tensor(target).expand(len(x)).repeat(n)
    found = attribute(function, drawn.flatten(0, 1), targets, **settings)
    error = None if found.error is None else found.error.unflatten(0, (n, len(x))).mean(0)
    return Attribution(found.values.unflatten(0, (n, len(x))).mean(0), error)


def invariance_map(
    factorization: Factorization,
    x: Float[Tensor, "batch *event"],
    n: int = 32,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch *event"]:
    """Variance of every value over draws of the nuisance: where the model lets go.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Inputs.
        n: Draws for each, at least 2.
        generator: Source of the draws.

    Raises:
        ValueError: If ``n`` is less than 2.
    """
    if n < 2:
        raise ValueError(f"a variance needs at least 2 draws, got n={n}")
    rows = [resample_nuisance(factorization, one, n, generator).var(0) for one in x.split(50)]
    return torch.cat(rows)


def rank_correlation(
    a: Float[Tensor, "batch ..."], b: Float[Tensor, "batch ..."]
) -> Float[Tensor, " batch"]:
    """Spearman's correlation of two maps, over the values of each input; 0 for a constant map."""
    from scipy.stats import rankdata

    ranks = [torch.from_numpy(rankdata(m.flatten(1).cpu().numpy(), axis=1)) for m in (a, b)]
    first, second = (one - one.mean(1, keepdim=True) for one in ranks)
    size = (first.square().sum(1) * second.square().sum(1)).sqrt()
    return torch.where(size > 0, (first * second).sum(1) / size.clamp_min(1e-12), 0.0).float()


@torch.no_grad()
def latent_shares(
    factorization: Factorization,
    judge: Function,
    x: Float[Tensor, "batch *event"],
    target: Int[Tensor, " batch"] | None = None,
    n_baselines: int = 8,
    n_steps: int = 32,
    generator: torch.Generator | None = None,
) -> dict[str, Estimate]:
    r"""Share of an independent judge's log-probability that each block of the latent accounts for.

    Integrated gradients of :math:`f(z) = \log p_\mathrm{judge}(y \mid D(z))` along straight lines
    to z from the latents of other inputs (expected gradients), summed over the dims of a block for
    each line. The line is cut into steps, and each step's rise divided between the blocks by the
    mean over the two orders in which they can move, so that nothing has to be differentiable and
    both blocks together account for the whole rise exactly. The share of a block is its mean
    absolute sum over that of both. A nuisance should have nearly none.

    References:
        Improving performance of deep learning models with axiomatic attribution priors and
        expected gradients (Erion et al., 2021), https://arxiv.org/abs/1906.10670

    Args:
        factorization: Any model that fulfils the protocol.
        judge: Inputs to logits, of another network.
        x: Inputs, of several classes, at least two.
        target: The classes; what the judge says of each decoded input by default.
        n_baselines: Lines for each input.
        n_steps: Of each line.
        generator: Draws the baselines.

    Returns:
        ``class`` and ``nuisance``, which sum to 1 over all inputs.

    Raises:
        ValueError: If there are fewer than two inputs.
    """
    if len(x) < 2:
        raise ValueError(f"baselines are the latents of other inputs: got {len(x)} input")
    latent = factorization.encode(x)
    if target is None:
        target = judge(factorization.decode(latent)).argmax(1)

    def score(z_class: Tensor, z_nuisance: Tensor) -> Tensor:
        logits = judge(factorization.decode(Latent(z_class, z_nuisance))).log_softmax(1)
        return logits.gather(1, target[:, None])[:, 0]

    sums = []
    for _ in range(n_baselines):
        step = int(torch.randint(1, len(x), (1,), generator=generator))
        other = Latent(*(block.roll(step, 0) for block in latent))
        places = [
            [b + k / n_steps * (a - b) for k in range(n_steps + 1)]
            for a, b in zip(latent, other, strict=True)
        ]
        before = score(places[0][0], places[1][0])
        by_class, by_nuisance = torch.zeros_like(before), torch.zeros_like(before)
        for k in range(n_steps):
            (c, c_next), (v, v_next) = (block[k : k + 2] for block in places)
            class_first, nuisance_first = score(c_next, v), score(c, v_next)
            after = score(c_next, v_next)
            by_class += (class_first - before + after - nuisance_first) / 2
            by_nuisance += (nuisance_first - before + after - class_first) / 2
            before = after
        sums.append(torch.stack([by_class, by_nuisance]))
    absolute = torch.stack(sums).abs().mean(0)  # over baselines
    whole = absolute.sum(0).mean()
    return {"class": mean(absolute[0] / whole), "nuisance": mean(absolute[1] / whole)}


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """A copy with weights drawn anew: its attributions should look otherwise than the module's.

    A map that stays the same shows the picture and not the network.

    References:
        Sanity Checks for Saliency Maps (Adebayo et al., 2018), https://arxiv.org/abs/1810.03292

    Args:
        module: Any network; the original keeps every bit.
        seed: Of the new weights.
    """
    made = copy.deepcopy(module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for one in made.modules():
            if callable(reset := getattr(one, "reset_parameters", None)):
                reset()
    return made


def in_shrinking_batches(
    function: Callable[[Tensor], Tensor], n: int, batch_size: int = 64
) -> Tensor:
    """Joins what a function gives for rows, in batches that halve when memory runs out.

    Args:
        function: Row numbers ``(b,)`` to results ``(b, ...)``.
        n: How many rows.
        batch_size: Rows at a time, to begin with.

    Raises:
        RuntimeError: Out of memory with one row.
    """
    done, found, size = 0, [], batch_size
    while done < n:
        rows = torch.arange(done, min(done + size, n))
        try:
            found.append(function(rows))
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error) or size == 1:
                raise
            size = max(1, size // 2)
            logger.info("memory ran out with %d inputs at once, going on with %d", len(rows), size)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        done += len(rows)
    return torch.cat(found)


def _out_of_memory(error: Exception) -> bool:
    words = ("out of memory", "can't allocate memory", "cannot allocate memory")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


def _explainer(method: str, function: Function, layer: Any) -> Any:
    try:
        from captum import attr
    except ImportError as error:
        raise ImportError("attributions need captum: pip install 'svae[attribution]'") from error
    if method == "grad_cam":
        return attr.LayerGradCam(function, layer)
    kinds = {
        "integrated_gradients": attr.IntegratedGradients,
        "saliency": attr.Saliency,
        "occlusion": attr.Occlusion,
    }
    return kinds[method](function)
