"""How much of the class can be read from codes that should not know it: probes against chance.

A probe gives a lower bound: the class may be there in a form that it cannot read. So three of
different kinds are fitted, and the strongest counts.
"""

import math
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from svae.metrics.estimate import Estimate, proportion

__all__ = ["Codes", "leakage", "permutation_null"]

# Codes and their labels.
Codes: TypeAlias = tuple[Float[Tensor, "_n _d"], Int[Tensor, " _n"]]


def leakage(
    train: Codes,
    validation: Codes,
    test: Codes,
    seed: int = 0,
) -> dict[str, Estimate]:
    r"""Test accuracy of three probes that predict the class from codes.

    Fitted on ``train``, selected on ``validation``, reported on ``test``, with Wilson's interval
    over the test set. Every dim is first scaled to mean 0 and variance 1 by the training codes:
    without that, a dim whose codes differ by a millionth hides its class from every probe.

    Args:
        train: Codes and labels; all of them are used.
        validation: The same, for choosing the penalty of the linear probe and the epoch and
            dropout of the MLP.
        test: The same, for the accuracy.
        seed: Seeds the MLP.

    Returns:
        - ``linear``: logistic regression
        - ``mlp``: two hidden layers of 256
        - ``knn``: majority of the 15 nearest codes
        - ``strongest``: the one of the three with the highest *test* accuracy (biased upwards)
        - ``chance``: share of the most frequent class of the test set

    Raises:
        ValueError: If a set is empty, widths or lengths differ, codes are not finite or labels
            are negative.

    Example:
        >>> import torch
        >>> y = torch.arange(600) % 2
        >>> z = torch.stack([1e-6 * y + 7, torch.rand(600)], 1).double()
        >>> round(leakage((z, y), (z, y), (z, y))["linear"].value, 2)
        1.0
    """
    train, validation, test = _standardised(train, validation, test)
    y = test[1]
    found = {
        "linear": proportion(_linear(train, validation, test[0]) == y),
        "mlp": proportion(_mlp(train, validation, test[0], seed) == y),
        "knn": proportion(_nearest(train, test[0]) == y),
    }
    found["strongest"] = max(found.values(), key=lambda estimate: estimate.value)
    found["chance"] = proportion(y == y.mode().values)
    return found


def permutation_null(
    train: Codes,
    validation: Codes,
    test: Codes,
    n: int = 5,
    seed: int = 0,
) -> Estimate:
    """Accuracy of the linear probe where the labels of all three sets are shuffled.

    Args:
        train: Codes and labels.
        validation: The same.
        test: The same.
        n: Number of shuffles, at least 2.
        seed: Seeds the shuffles.

    Returns:
        The mean over shuffles, and the range in which 95 % of single probes fall that have nothing
        to find (Student's t): an accuracy above ``high`` is leakage.

    Raises:
        ValueError: As :func:`leakage`, or if ``n`` is less than 2.
    """
    from scipy.special import stdtrit

    if n < 2:
        raise ValueError(f"the permutation null needs n >= 2 shuffles; got {n}.")
    sets = _standardised(train, validation, test)
    generator = torch.Generator().manual_seed(seed)
    rates = []
    for _ in range(n):
        shuffled = [
            (z, y[torch.randperm(len(y), generator=generator).to(y.device)]) for z, y in sets
        ]
        hits = _linear(shuffled[0], shuffled[1], sets[2][0]) == shuffled[2][1]
        rates.append(hits.double().mean().item())
    values = torch.tensor(rates, dtype=torch.float64)
    centre = values.mean().item()
    reach = float(stdtrit(n - 1, 0.975)) * values.std().item() * math.sqrt(1 + 1 / n)
    return Estimate(centre, max(centre - reach, 0.0), min(centre + reach, 1.0))


def _standardised(*sets: Codes) -> list[Codes]:
    width = sets[0][0].shape[1]
    for name, (z, y) in zip(("train", "validation", "test"), sets, strict=True):
        if len(z) != len(y) or len(y) == 0 or z.shape[1] != width:
            raise ValueError(
                f"the {name} set has codes of shape {tuple(z.shape)} and {len(y)} labels; "
                f"expected one label per code, at least one, and the training set's width {width}."
            )
        if not bool(z.isfinite().all()):
            raise ValueError(
                f"the {name} codes hold NaN or infinity; expected finite numbers. "
                "Did the training diverge?"
            )
        if int(y.min()) < 0:
            raise ValueError(
                f"the {name} labels hold {int(y.min())}; expected 0..K-1. "
                "Drop unlabelled examples."
            )
    # In double: a collapsed dim may differ by less than float32 can square beside its offset.
    codes = sets[0][0].double()
    centre, scale = codes.mean(0), codes.std(0, correction=0)
    scale = torch.where(scale > 1e-14 * (1 + centre.abs()), scale, torch.ones_like(scale))
    return [(((z.double() - centre) / scale).float(), y.long()) for z, y in sets]


def _n_classes(*labels: Tensor) -> int:
    return 1 + max(int(y.max()) for y in labels)


def _linear(train: Codes, validation: Codes, z: Tensor) -> Tensor:
    """Logistic regression; of three penalties the one that is best on the validation set."""
    n_classes = _n_classes(train[1], validation[1])
    weight = train[0].new_zeros(n_classes, z.shape[1], requires_grad=True)
    bias = train[0].new_zeros(n_classes, requires_grad=True)
    best, chosen = (-1.0, 0.0), torch.zeros_like(z[:, 0], dtype=torch.long)
    for penalty in (1e-2, 1e-3, 1e-5):  # each starts from the one before
        optimizer = torch.optim.LBFGS(
            [weight, bias], max_iter=60, history_size=10, line_search_fn="strong_wolfe"
        )

        def closure(optimizer: torch.optim.LBFGS = optimizer, penalty: float = penalty) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(F.linear(train[0], weight, bias), train[1])
            loss = loss + penalty * weight.square().sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            optimizer.step(closure)
        with torch.no_grad():
            score = _score(F.linear(validation[0], weight, bias), validation[1])
            if score > best:
                best, chosen = score, F.linear(z, weight, bias).argmax(1)
    return chosen


def _mlp(train: Codes, validation: Codes, z: Tensor, seed: int) -> Tensor:
    """Two networks, without and with dropout; the epoch that is best on the validation set.

    Training stops six epochs after the last that was best, so codes with nothing to find cost
    little, and codes with much to find get up to sixty.
    """
    n_classes = _n_classes(train[1], validation[1])
    best, chosen = (-1.0, 0.0), torch.zeros_like(z[:, 0], dtype=torch.long)
    generator = torch.Generator().manual_seed(seed)
    devices = [z.device] if z.device.type == "cuda" else []
    for dropout in (0.0, 0.2):
        with torch.random.fork_rng(devices), torch.enable_grad():
            torch.manual_seed(seed)
            network = nn.Sequential(
                *(nn.Linear(z.shape[1], 256), nn.ReLU(), nn.Dropout(dropout)),
                *(nn.Linear(256, 256), nn.ReLU(), nn.Dropout(dropout)),
                nn.Linear(256, n_classes),
            ).to(z.device)
            optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
            own, since = (-1.0, 0.0), 0
            for _ in range(60):
                network.train()
                for rows in torch.randperm(len(train[1]), generator=generator).split(256):
                    rows = rows.to(z.device)
                    loss = F.cross_entropy(network(train[0][rows]), train[1][rows])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                network.eval()
                with torch.no_grad():
                    score = _score(network(validation[0]), validation[1])
                    if score > best:
                        best, chosen = score, network(z).argmax(1)
                own, since = (score, 0) if score > own else (own, since + 1)
                if since >= 6:
                    break
                if since:
                    for group in optimizer.param_groups:
                        group["lr"] *= 0.6
    return chosen


@torch.no_grad()
def _nearest(train: Codes, z: Tensor, k: int = 15) -> Tensor:
    """Majority of the k nearest training codes; ties go to the smaller label."""
    votes = F.one_hot(train[1])
    norms = train[0].square().sum(1)
    chosen = []
    for part in z.split(500):
        distance = torch.addmm(norms, part, train[0].T, alpha=-2)
        near = distance.topk(min(k, len(norms)), dim=1, largest=False, sorted=False).indices
        chosen.append(votes[near].sum(1).argmax(1))
    return torch.cat(chosen)


def _score(logits: Tensor, y: Tensor) -> tuple[float, float]:
    """Accuracy, and what decides between equal ones: the mean log-likelihood."""
    hits = (logits.argmax(1) == y).double().mean().item()
    return hits, -F.cross_entropy(logits, y).item()
