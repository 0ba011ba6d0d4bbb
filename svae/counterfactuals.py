"""Two pictures that explain one decision: the farthest that keeps it, the nearest that turns it.

A semi-factual says that even if all this were otherwise, the answer would be the same; a
counterfactual says what would have to be otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from svae.factorization import Factorization, in_batches
from svae.latent import Latent
from svae.metrics.flips import distance as root_mean_square

__all__ = ["Changed", "class_parts", "counterfactual", "semi_factual"]

Distance = Callable[[Tensor, Tensor], Tensor]
_CHUNK = 50  # inputs at a time


@dataclass(frozen=True)
class Changed:
    """Inputs changed so as to explain an answer.

    Args:
        x: The changed inputs.
        answer: The model's answer to each.
        confidence: Its probability.
        distance: How far each is from its original.
        found: Whether the model's answer is what was asked for; the best that there was stands in
            ``x`` where it is not.
        path: Inputs on the way, the reconstruction first, ``(steps, batch, ...)``.
        path_confidence: Probability of the new answer along it, ``(steps, batch)``.
        path_distance: From the original, ``(steps, batch)``.
    """

    x: Float[Tensor, "batch *event"]
    answer: Int[Tensor, " batch"]
    confidence: Float[Tensor, " batch"]
    distance: Float[Tensor, " batch"]
    found: Tensor
    path: Float[Tensor, "steps batch *event"]
    path_confidence: Float[Tensor, "steps batch"]
    path_distance: Float[Tensor, "steps batch"]


@torch.no_grad()
def semi_factual(
    factorization: Factorization,
    x: Float[Tensor, "batch *event"],
    n: int = 64,
    confidence: float = 0.99,
    n_steps: int = 8,
    distance: Distance | None = None,
    generator: torch.Generator | None = None,
) -> Changed:
    """The farthest input that keeps the model's answer: another nuisance, as different as can be.

    Of ``n`` draws of the nuisance, those count to whose decoded input the model gives the answer
    that it gives to ``x``, with ``confidence`` at least; the farthest of them is taken. Where none
    is that sure, the surest that keeps the answer is.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Inputs.
        n: Draws for each.
        confidence: Probability of the answer that a draw needs.
        n_steps: Of the path, from the own nuisance to that of the draw.
        distance: Of two batches of inputs; root mean square by default.
        generator: Source of the draws.

    Raises:
        ValueError: If ``n`` or ``n_steps`` is less than 1, or ``confidence`` outside of [0, 1].
    """
    _check(n, n_steps, confidence)
    distance = distance or root_mean_square
    found = []
    for part in x.split(_CHUNK):
        own = factorization.predict(part).argmax(1)
        latent = factorization.encode(part)
        nuisance = factorization.sample_nuisance(latent, n, generator)
        drawn, sure, far = [], [], []
        for z in nuisance:
            picture = factorization.decode(Latent(latent.z_class, z))
            answers = factorization.predict(picture).softmax(1)
            kept = answers.argmax(1) == own
            sure.append(answers.gather(1, own[:, None])[:, 0] * kept)
            far.append(distance(picture, part))
            drawn.append(picture)
        probability, reach = torch.stack(sure), torch.stack(far)
        enough = probability >= confidence
        # Among those that are sure enough the farthest, else the surest.
        score = torch.where(enough, 1 + reach, probability / 2)
        best = score.argmax(0)
        rows = torch.arange(len(part), device=part.device)
        end = Latent(latent.z_class, nuisance[best, rows])
        found.append(_along(factorization, part, latent, end, own, n_steps, distance))
    return _joined(found)


@torch.no_grad()
def counterfactual(
    factorization: Factorization,
    x: Float[Tensor, "batch *event"],
    towards: Float[Tensor, "n_classes ..."],
    target: Int[Tensor, " batch"] | None = None,
    confidence: float = 0.99999,
    n_steps: int = 16,
    distance: Distance | None = None,
) -> Changed:
    r"""The nearest input along the class part to which the model gives another answer.

    .. math:: \min_t \; t \quad \text{with} \quad
        p\big(k \mid D((1 - t)\, z_c + t\, c_k,\; z_n)\big) \ge \text{confidence}

    by ``n_steps`` steps and then bisection. The nuisance stays: all that changes is what the model
    reads. A model is sure of pictures that it made itself long before others are; hence the
    confidence asked for by default, with which an independent judge mostly agrees. Where no point
    of the path has it, the surest is taken.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Inputs.
        towards: Class part :math:`c_k` of each class that the path leads to, such as
            :func:`class_parts`.
        target: The new class of each input; the one that is reached first by default, tried in
            the order of the model's own second answers.
        confidence: Probability of the new class that is asked for.
        n_steps: Of the search and of the path.
        distance: Of two batches of inputs; root mean square by default.

    Raises:
        ValueError: If a number is out of range, or there is one class only.
    """
    _check(1, n_steps, confidence)
    if len(towards) < 2:
        raise ValueError(
            f"another answer needs at least 2 classes, got the class parts of {len(towards)}"
        )
    distance = distance or root_mean_square
    wanted = torch.full((len(x),), -1, device=x.device) if target is None else target
    found = []
    for part, want in zip(x.split(_CHUNK), wanted.split(_CHUNK), strict=True):
        logits = factorization.predict(part)
        own = logits.argmax(1)
        second = logits.scatter(1, own[:, None], -torch.inf).argmax(1)
        want = torch.where(want < 0, second, want)
        latent = factorization.encode(part)
        goal = towards[want]

        def at(t: Tensor, latent: Latent = latent, goal: Tensor = goal) -> Latent:
            t = t.view(-1, *[1] * (goal.ndim - 1))
            return Latent((1 - t) * latent.z_class + t * goal, latent.z_nuisance)

        def sure(t: Tensor, at: Callable[[Tensor], Latent] = at, want: Tensor = want) -> Tensor:
            answers = factorization.predict(factorization.decode(at(t))).softmax(1)
            return answers.gather(1, want[:, None])[:, 0]

        steps = torch.linspace(0, 1, n_steps + 1, device=x.device)
        reached = torch.stack([sure(step.expand(len(part))) for step in steps])
        enough = reached >= confidence
        any_enough = enough.any(0)
        # The first step that is sure enough, else the surest.
        place = torch.where(any_enough, enough.float().argmax(0), reached.argmax(0))
        high = steps[place]
        low = steps[(place - 1).clamp_min(0)]
        for _ in range(5):
            middle = (low + high) / 2
            good = (sure(middle) >= confidence) & any_enough
            high = torch.where(good, middle, high)
            low = torch.where(good | ~any_enough, low, middle)
        end = at(high)
        found.append(_along(factorization, part, latent, end, want, n_steps, distance))
    return _joined(found)


@torch.no_grad()
def class_parts(
    factorization: Factorization, x: Float[Tensor, "n_images *event"]
) -> Float[Tensor, "n_classes ..."]:
    """Mean class part of the inputs that the model gives each answer to.

    Args:
        factorization: Any model that fulfils the protocol.
        x: Inputs that every class is among the answers to.

    Raises:
        ValueError: If a class is never the answer.
    """
    answers = in_batches(factorization.predict, x)
    own, n_classes = answers.argmax(1), answers.shape[1]
    parts = in_batches(factorization.encode, x).z_class
    if missing := [k for k in range(n_classes) if not bool((own == k).any())]:
        raise ValueError(
            f"the model never answers {missing} to these {len(x)} inputs, so nothing is known of "
            "where such inputs lie. Give more inputs, or leave out the classes as targets."
        )
    return torch.stack([parts[own == k].mean(0) for k in range(n_classes)])


def _along(
    factorization: Factorization,
    x: Tensor,
    start: Latent,
    end: Latent,
    answer: Tensor,
    n_steps: int,
    distance: Distance,
) -> Changed:
    """What lies between two latents, and how sure the model is of an answer on the way."""
    path = torch.stack(
        [
            factorization.decode(
                Latent(*((1 - t) * a + t * b for a, b in zip(start, end, strict=True)))
            )
            for t in torch.linspace(0, 1, n_steps + 1).tolist()
        ]
    )
    answers = torch.stack([factorization.predict(one).softmax(1) for one in path])
    sure = answers.gather(2, answer.expand(len(path), -1)[..., None])[..., 0]
    last = answers[-1]
    return Changed(
        x=path[-1],
        answer=last.argmax(1),
        confidence=last.amax(1),
        distance=distance(path[-1], x),
        found=last.argmax(1) == answer,
        path=path,
        path_confidence=sure,
        path_distance=torch.stack([distance(one, x) for one in path]),
    )


def _joined(parts: list[Changed]) -> Changed:
    names = ("x", "answer", "confidence", "distance", "found")
    paths = ("path", "path_confidence", "path_distance")
    return Changed(
        **{name: torch.cat([getattr(one, name) for one in parts]) for name in names},
        **{name: torch.cat([getattr(one, name) for one in parts], 1) for name in paths},
    )


def _check(n: int, n_steps: int, confidence: float) -> None:
    if n < 1 or n_steps < 1 or not 0 <= confidence <= 1:
        raise ValueError(
            "n and n_steps must be at least 1 and confidence in [0, 1], got "
            f"{n}, {n_steps} and {confidence}"
        )
