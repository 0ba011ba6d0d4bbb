"""What a set must hold before anything is trained on it: each failure says what to change.

The rules: images (or flat vectors) as uint8 or as floats in [0, 1] without NaN, all of one shape
(rows of a table may hold any finite numbers);
integer labels in 0..K-1, one per example, -1 for an unlabelled one, or rows of probabilities;
nothing empty; every class among the labelled training examples.
"""

import math

import torch
from torch import Tensor

from svae.data.arrays import ArraySet
from svae.labels import MISSING


def check_images(
    x: Tensor, name: str = "x", shape: tuple[int, ...] | None = None, bounded: bool = True
) -> None:
    """Checks values and shape of data, ``(N, channels, height, width)`` or ``(N, features)``.

    Args:
        x: The data.
        name: What to call them in a message.
        shape: Shape that every example must have, where one is known already.
        bounded: Whether floats must lie in [0, 1], or only be finite.

    Raises:
        TypeError: If the dtype is neither uint8 nor floating point.
        ValueError: If the set is empty, of a wrong shape, outside [0, 1] or not finite.
    """
    if x.ndim not in (2, 4):
        fix = {
            1: "Give flat vectors a features dim: x[:, None].",
            3: "Grey images need a channel dim: x.unsqueeze(1).",
        }.get(x.ndim, "Flatten other data to vectors: x.flatten(1).")
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}, expected images (N, channels, height, width) "
            f"or vectors (N, features). {fix}"
        )
    if len(x) == 0:
        raise ValueError(
            f"{name} is empty, shape {tuple(x.shape)}; expected at least one example. "
            "Did a filter or a split leave nothing?"
        )
    if 0 in x.shape:
        raise ValueError(f"{name} has shape {tuple(x.shape)}, expected no dim of size 0.")
    if x.ndim == 4 and x.shape[1] > 4 and x.shape[3] <= 4:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}, expected channels before height and width, "
            f"(N, {x.shape[3]}, {x.shape[1]}, {x.shape[2]}). Reorder with x.permute(0, 3, 1, 2)."
        )
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(
            f"{name} has examples of shape {tuple(x.shape[1:])}, expected {tuple(shape)} as in "
            "the training set. Bring all splits to one number of channels and one size."
        )
    _check_range(x, name, bounded)


def _check_range(x: Tensor, name: str, bounded: bool) -> None:
    if x.dtype == torch.uint8:
        return
    if not x.is_floating_point():
        raise TypeError(
            f"{name} is of dtype {x.dtype}, expected uint8 in 0..255 or floats in [0, 1]. "
            "Use x.to(torch.uint8) for 0..255, x.float() for booleans."
        )
    low, high = (float(bound) for bound in torch.aminmax(x))
    lowest, highest = (0.0, 1.0) if bounded else (-math.inf, math.inf)
    # False for NaN, which aminmax hands on; infinities are refused without bounds too.
    if lowest <= low and high <= highest and math.isfinite(high - low):
        return
    finite = torch.isfinite(x)
    bad = ~finite if not finite.all() else (x < 0) | (x > 1)
    rows = bad.flatten(1).any(1)
    where = f"first in example {int(rows.nonzero()[0])}, {int(rows.sum())} examples in all"
    if not finite.all():
        raise ValueError(
            f"{name} has NaN or infinite values, {where}; expected finite values"
            f"{' in [0, 1]' if bounded else ''}. "
            "Drop these examples, or look for a division by a zero range."
        )
    fix = (
        "Undo a Normalize(mean, std), or rescale: (x - x.min()) / (x.max() - x.min()). For rows "
        "of a table, use svae.data.TabularData."
        if low < 0
        else "Divide pixels in 0..255 by 255."
    )
    raise ValueError(
        f"{name} has values from {low:.4g} to {high:.4g} ({where}), expected [0, 1]. {fix}"
    )


def check_labels(
    y: Tensor, n_examples: int, n_classes: int | None = None, name: str = "y"
) -> None:
    """Checks dtype, length and values of labels, -1 being none.

    Args:
        y: The labels.
        n_examples: How many examples they belong to.
        n_classes: Number of classes K, where it is known.
        name: What to call them in a message.

    Raises:
        TypeError: If they are neither integers nor rows of probabilities.
        ValueError: If they are not one per example, not in 0..K-1, or no distributions.
    """
    if y.is_floating_point() and y.ndim == 2 and y.shape[1] > 1:
        _check_soft(y, n_examples, n_classes, name)
        return
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(
            f"{name} is of dtype {y.dtype}, expected integer labels (int64) in 0..K-1. "
            "Convert with y.long()."
        )
    if y.ndim != 1:
        fix = "Turn one-hot rows into labels: y.argmax(1)."
        if y.ndim == 2 and y.shape[1] == 1:
            fix = "Drop the last dim: y.squeeze(1)."
        raise ValueError(
            f"{name} has shape {tuple(y.shape)}, expected one label per example, "
            f"({n_examples},). {fix}"
        )
    if len(y) != n_examples:
        raise ValueError(
            f"{name} has {len(y)} labels for {n_examples} examples, expected one each. "
            "Were the two cut or shuffled separately?"
        )
    if len(y) == 0:
        return
    low, high = int(y.min()), int(y.max())
    upper = "K-1" if n_classes is None else str(n_classes - 1)
    if low < MISSING:
        first = int((y < MISSING).nonzero()[0])
        fix = (
            "Number the classes from 0, np.unique(y, return_inverse=True)[1]; -1 is for "
            "unlabelled examples."
        )
        raise ValueError(
            f"{name} has the label {low} (first label below -1: example {first}), "
            f"expected labels in 0..{upper}. {fix}"
        )
    if n_classes is not None and high >= n_classes:
        first = int((y >= n_classes).nonzero()[0])
        fix = "Labels that start at 1 need y - 1." if low > 0 else f"Or pass n_classes={high + 1}."
        raise ValueError(
            f"{name} has the label {high} (first label above {upper}: example {first}), "
            f"expected labels in 0..{upper} for {n_classes} classes. {fix}"
        )


def _check_soft(y: Tensor, n_examples: int, n_classes: int | None, name: str) -> None:
    if len(y) != n_examples or (n_classes is not None and y.shape[1] != n_classes):
        raise ValueError(
            f"{name} has probabilities of shape {tuple(y.shape)}, expected one row per example "
            f"and one column per class, ({n_examples}, {n_classes or 'K'})."
        )
    missing = (y == MISSING).all(1)
    bad = ~((y >= 0).all(1) & ((y.sum(1) - 1).abs() < 1e-3)) & ~missing  # NaN is bad too
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise ValueError(
            f"{name} has {int(bad.sum())} rows that are no distribution (first: example {first}, "
            f"{[round(float(p), 4) for p in y[first][:10]]}, sum {float(y[first].sum()):.4g}); "
            "expected numbers of at least 0 that sum to 1, or a row of -1 for an unlabelled "
            "example. Turn logits into probabilities with .softmax(-1)."
        )


def check_splits(
    train: ArraySet, validation: ArraySet, test: ArraySet, n_classes: int, bounded: bool = True
) -> None:
    """Checks all parts of a set, and that they fit each other.

    Args:
        train: Training part; every class must occur in it.
        validation: Validation part.
        test: Test part.
        n_classes: Number of classes K.
        bounded: Whether floats must lie in [0, 1], or only be finite.

    Raises:
        TypeError: If pixels or labels are of a wrong dtype.
        ValueError: If any part breaks a rule of this module.
    """
    parts = {"train": train, "validation": validation, "test": test}
    for name, part in parts.items():
        shape = None if part is train else train.shape
        check_images(part.x, f"{name} {'images' if bounded else 'rows'}", shape, bounded)
        if part.y is None:
            raise ValueError(
                f"the {name} set has no labels, expected integers in 0..{n_classes - 1}. "
                "Give ArraySet(x, y)."
            )
        check_labels(part.y, len(part), n_classes, f"{name} labels")
    if bool((train.marked == MISSING).all()):
        raise ValueError(
            "no training example has a label (all are -1), expected some of every class. A "
            "supervised VAE without any label cannot know which classes are meant."
        )
    if train.y is not None and train.y.ndim == 1:
        _check_classes(train.y[train.y >= 0], n_classes)


def _check_classes(y: Tensor, n_classes: int) -> None:
    counts = torch.bincount(y, minlength=n_classes)
    missing = (counts == 0).nonzero().flatten().tolist()
    if missing:
        names = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        raise ValueError(
            f"{len(missing)} of {n_classes} classes have no training example (labels {names}); "
            f"expected every label in 0..{n_classes - 1}. Renumber the labels with "
            "np.unique(y, return_inverse=True)[1], pass a smaller n_classes, or use more examples."
        )
