"""Does the answer change when only what is ignored changes, and how far was that?"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from svae.factorization import Factorization
from svae.latent import Latent

__all__ = ["Flips", "attribute_share", "distance", "flips"]

_CHUNK = 1000  # inputs decoded at a time


class Flips(NamedTuple):
    """One row for each draw, one column for each input.

    Args:
        flipped: Whether the answer is another one than to the input itself.
        margin: By how much the logit of the input's answer, over the best other one, rises.
        moved: Root mean square change of the values, over that between two inputs.
        features: The same of features of the input, if there were any.
        looks: How different a draw looks from its input, over how different two inputs do, if it
            was asked for.
        cycled: Distance of the class part encoded again to the class part, over that between two
            inputs: 0 where what is decoded holds what it was decoded from. Of an invariance bridge
            it is the fibre distance.
    """

    flipped: Bool[Tensor, "n_draws n_images"]
    margin: Float[Tensor, "n_draws n_images"]
    moved: Float[Tensor, "n_draws n_images"]
    features: Float[Tensor, "n_draws n_images"] | None
    looks: Float[Tensor, "n_draws n_images"] | None
    cycled: Float[Tensor, "n_draws n_images"]


@torch.no_grad()
def flips(
    factorization: Factorization,
    x: Float[Tensor, "n_images *event"],
    n: int = 8,
    generator: torch.Generator | None = None,
    dims: Sequence[int] | None = None,
    features: Callable[[Tensor], Tensor] | None = None,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Flips:
    r"""The model's own answers to inputs of which only the nuisance is drawn anew.

    .. math:: 1[\arg\max f(D(z_c(x), \tilde z_n)) \neq \arg\max f(x)], \quad \tilde z_n \sim p

    Args:
        factorization: Any model that fulfils the protocol.
        x: Inputs, at least two.
        n: Draws for each, at least 1.
        generator: Source of the draws.
        dims: Nuisance dims that are drawn anew, the others staying as they are; all if None.
        features: Inputs to features whose change is measured, such as ``judge.features``.
        perceptual: Two batches of inputs to how different they look, ``(batch,)``, such as
            :func:`svae.metrics.structural_distance`.

    Raises:
        ValueError: If there are fewer than two inputs, ``n`` is less than 1, or a dim is unknown.
    """
    if len(x) < 2 or n < 1:
        raise ValueError(f"flips need at least 2 inputs and 1 draw, got {len(x)} and {n}")
    rows: list[dict[str, Tensor]] = []
    scale = _spread(x)
    of_features = _spread(features(x[:_CHUNK])) if features is not None else 1.0
    some = x[:_CHUNK]
    of_looks = float(perceptual(some, some.roll(1, 0)).mean()) if perceptual is not None else 1.0
    of_class = _spread(factorization.encode(x[:_CHUNK]).z_class)
    for part in x.split(max(2, _CHUNK // n)):
        own = factorization.predict(part)
        answer, latent = own.argmax(1), factorization.encode(part)
        drawn = factorization.sample_nuisance(latent, n, generator)
        if dims is not None:
            if bad := [d for d in dims if not 0 <= d < drawn.shape[2]]:
                raise ValueError(f"there are {drawn.shape[2]} nuisance dims, got {bad}")
            fixed = torch.ones(drawn.shape[2], dtype=torch.bool, device=drawn.device)
            fixed[list(dims)] = False
            drawn = torch.where(fixed, latent.z_nuisance, drawn)
        seen = features(part) if features is not None else None
        before = _margin(own, answer)
        for z in drawn:
            picture = factorization.decode(Latent(latent.z_class, z))
            logits = factorization.predict(picture)
            again = factorization.encode(picture).z_class
            row = {
                "flipped": logits.argmax(1) != answer,
                "margin": _margin(logits, answer) - before,
                "moved": distance(picture, part) / scale,
                "cycled": distance(again, latent.z_class) / of_class,
            }
            if features is not None and seen is not None:
                row["features"] = distance(features(picture), seen) / of_features
            if perceptual is not None:
                row["looks"] = perceptual(picture, part) / max(of_looks, 1e-12)
            rows.append(row)
    blocks = [rows[i : i + n] for i in range(0, len(rows), n)]
    columns = {
        name: torch.cat([torch.stack([row[name] for row in block]) for block in blocks], 1)
        for name in rows[0]
    }
    return Flips(**{"features": None, "looks": None, **columns})


@torch.no_grad()
def attribute_share(
    train: tuple[Float[Tensor, "n d"], Float[Tensor, " n"]],
    test: tuple[Float[Tensor, "m d"], Float[Tensor, " m"]],
    penalty: float = 1e-2,
) -> float:
    r"""Share of an attribute's variance that a ridge regression reads from codes, on test data.

    .. math:: R^2 = 1 - \frac{\sum (v - \hat v(z))^2}{\sum (v - \bar v)^2}

    A lower bound of what the codes hold: other forms than linear ones are not seen.

    Args:
        train: Codes and values that it is fitted to.
        test: Others that it is reported on.
        penalty: On squared weights of standardised codes, per example.
    """
    codes, values = train[0].flatten(1).double(), train[1].double()
    middle, scale = codes.mean(0), codes.std(0).clamp_min(1e-12)
    centre = values.mean()
    z = (codes - middle) / scale
    gram = z.T @ z / len(z) + penalty * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    weight = torch.linalg.solve(gram, z.T @ (values - centre) / len(z))
    found = (test[0].flatten(1).double() - middle) / scale @ weight + centre
    wanted = test[1].double()
    total = (wanted - wanted.mean()).square().sum()
    return float(1 - (wanted - found).square().sum() / total.clamp_min(1e-300))


def _margin(logits: Tensor, answer: Tensor) -> Tensor:
    if logits.shape[1] < 2:
        return logits[:, 0]
    own = logits.gather(1, answer[:, None])[:, 0]
    return own - logits.scatter(1, answer[:, None], -torch.inf).amax(1)


def distance(
    a: Float[Tensor, "batch ..."], b: Float[Tensor, "batch ..."]
) -> Float[Tensor, " batch"]:
    """Root mean square difference of the values, row by row."""
    return (a - b).flatten(1).square().mean(1).sqrt()


def _spread(x: Tensor) -> float:
    """Root mean square distance of two inputs."""
    return max(float((2 * x.flatten(1).var(0).mean()).sqrt()), 1e-12)
