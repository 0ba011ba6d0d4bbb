"""What must fit before a supervised VAE is trained, looked at once and without moving anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import constraints

from svae.data import Batch
from svae.data.batch import as_floats
from svae.elbo import SupervisedELBO
from svae.labels import read_labels
from svae.likelihoods import Likelihood
from svae.models import SVAE
from svae.sites import means, site

__all__ = ["check_fit", "check_parameters", "labelled", "precision_of"]

CHUNK = 5000  # rows looked at together


def check_fit(vae: SVAE, data: Any) -> None:
    """Compares model and data: shapes, classes, the likelihood's support and what labels allow.

    Raises:
        ValueError: If they do not fit.
    """
    if vae.x_shape is None:
        vae.x_shape = tuple(data.x_shape)
    if vae.x_shape != tuple(data.x_shape):
        raise ValueError(
            f"the model is built for x of shape {vae.x_shape}, the data have "
            f"{tuple(data.x_shape)}. Build the model with the data's shape, or resize the data."
        )
    x = data.train.floats(limit=4).to(precision_of(vae))
    with _at_rest(vae):
        vae.check(x)  # without labels: those of an unknown class would stop it midway
        _check_support(vae, data, x)
        n_classes = vae.n_classes
    if n_classes != data.n_classes:
        raise ValueError(
            f"the model has {n_classes} classes, the data {data.n_classes} (labels are 0.."
            f"{data.n_classes - 1}). Build the model with n_classes={data.n_classes}, or correct "
            "the labels; a class without an example cannot be learned."
        )
    labels = None if data.train.y is None else read_labels(data.train.y)
    if labels is not None and (labels.soft is not None or not bool(labels.known.all())):
        with _at_rest(vae):
            _check_label_route(vae, x)


def _check_support(vae: SVAE, data: Any, x: Tensor) -> None:
    likelihood = site(vae.model, "x", x)
    support: Any = likelihood.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    # Grey values under a Bernoulli are usual, and only no density; ours says what it means.
    ours = isinstance(getattr(vae.model, "likelihood", None), Likelihood)
    if support is constraints.boolean and not ours:
        support = constraints.unit_interval
    for start in range(0, len(data.train), CHUNK):
        rows = torch.arange(start, min(start + CHUNK, len(data.train)))
        part = as_floats(data.train.batch(rows).x)
        if getattr(data, "binarise", False):
            part = part.round()
        good = support.check(part)
        if bool(good.all()):
            continue
        by_row = good.flatten(1).all(1) if good.dim() > 1 else good
        first = int((~by_row).nonzero()[0])
        wrong = part[first][~good[first]] if good.dim() > 1 else part[first].flatten()
        base = getattr(likelihood, "base_dist", likelihood)
        raise ValueError(
            f"the likelihood {type(base).__name__.lstrip('_')} takes x in {support}, the data "
            f"have {[round(float(v), 4) for v in wrong[:5]]} (first in example {start + first}). "
            "Choose a likelihood for such data, or bring them into its range: binarise=True of a "
            "data module for 0 and 1, 8-bit images for levels, TabularData for tables."
        )


def _check_label_route(vae: SVAE, x: Tensor) -> None:
    """Where labels are missing or soft, x and style must depend on y through z_class alone."""
    z_class, style = means(vae.guide, x)
    found = []
    for k in (0, 1):
        y = torch.full((len(x),), k, device=x.device)
        held = {"z_class": z_class, "style": style}
        model = poutine.condition(vae.model, data=held)
        trace = poutine.trace(model).get_trace(x, y)
        found.append(
            [
                trace.nodes[name]["fn"].log_prob(value)
                for name, value in (("style", style), ("x", x))
            ]
        )  # pyright: ignore
    for name, first, second in zip(("style", "x"), *found, strict=True):
        if not torch.allclose(first, second, rtol=1e-4, atol=1e-4):
            raise ValueError(
                f"the model's site {name!r} depends on the label directly, and some labels are "
                "missing or soft: then the class is summed out through z_class alone, which would "
                "be another model. Let x and style depend on y through z_class, or label all "
                "examples."
            )


def check_parameters(
    module: nn.Module, vae: SVAE, first: SVAE, data: Any, device: torch.device
) -> None:
    """Refuses parameters in the loss that are not of the module: nothing would train them.

    Args:
        module: What is trained.
        vae: Whose networks are put in evaluation mode for the look.
        first: What the loss is taken of, weights shared.
        data: Whose first examples are looked at.
        device: Where the parameters are.

    Raises:
        ValueError: If there are some.
    """
    train = data.train
    if train.y is None:
        return
    batch = Batch(train.floats(limit=4), train.y[:4])
    x, y = (t.to(device) for t in labelled(batch, precision_of(vae)))
    devices = [device] if device.type == "cuda" else []
    with (
        _at_rest(vae, grad=True),
        torch.random.fork_rng(devices),
        pyro.validation_enabled(False),
    ):
        loss, _ = SupervisedELBO()(first, x, y)
    own = {id(p) for p in module.parameters()}
    shapes = [tuple(p.shape) for p in _leaves(loss) if id(p) not in own]
    if shapes:
        raise ValueError(
            f"{len(shapes)} parameters take part in the loss that neither model nor guide "
            f"holds, of shapes {shapes[:3]}, so nothing would train them. A plain function or "
            "a lambda hides its networks: make it an nn.Module that has them as attributes, "
            "or switch their gradient off with requires_grad_(False)."
        )


@contextmanager
def _at_rest(vae: SVAE, grad: bool = False) -> Iterator[None]:
    """Evaluation mode, so that a look starts and moves nothing; every part gets its own back."""
    modes = [(part, part.training) for part in vae.modules()]
    vae.eval()
    try:
        with torch.set_grad_enabled(grad):
            yield
    finally:
        for part, training in modes:
            part.training = training


def labelled(batch: Batch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Inputs and labels of a batch in the precision of the weights.

    Raises:
        ValueError: If it has no labels.
    """
    if batch.y is None:
        raise ValueError("a supervised VAE needs labels, and this batch has none (y is None)")
    y = batch.y.to(dtype) if batch.y.is_floating_point() else batch.y
    return batch.x.to(dtype), y


def precision_of(vae: SVAE) -> torch.dtype:
    """That of the weights, where there are any: double or single."""
    return next((p.dtype for p in vae.parameters() if p.is_floating_point()), torch.float32)


def _leaves(loss: Tensor) -> list[Tensor]:
    """Tensors that a gradient of the loss would be accumulated in."""
    found, seen, waiting = [], set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.append(variable)
        waiting += [following for following, _ in node.next_functions]
    return found
