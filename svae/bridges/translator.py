"""What goes from one frozen model to another, whatever it is fitted by."""

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from svae.bridges.units import CodeUnits, moments
from svae.bridges.writing import save_translation
from svae.data.batch import as_floats

__all__ = ["Source", "Translator", "UnseenUnits"]

_FAR = 10.0  # standard deviations that a unit is told apart up to


@runtime_checkable
class Source(Protocol):
    """What is translated from: :class:`svae.Frozen`, or anything else that gives representations.

    A source that answers something as well has ``predict(x)``, which gives logits.

    Attributes:
        shape: Shape of one representation.
    """

    shape: tuple[int, ...]

    def representation(self, x: Any) -> Tensor:
        """The representation of each input, ``(batch, *shape)``."""
        ...


class UnseenUnits(UserWarning):
    """A word or a class that a source knows occurs in no training example."""


class Translator(nn.Module):
    """What goes from a source's representation to a target's input; both are frozen.

    Source, view and target are put in evaluation mode and get no gradients from here on. Nothing
    is copied: fit the target first.

    Args:
        source: Gives representations.
        target: A module with ``encode(x)``, to codes ``(batch, D)``, and ``decode(code)``.
        view: From the target's inputs to the source's, such as the grey version of a picture, or
            the caption that fits it. None where both take the same inputs.
        x_shape: Shape of one input of the target; its own ``x_shape`` if None, else the source's.

    Raises:
        TypeError: If the source gives no representations, or the target lacks a method.
        ValueError: If the target gives codes that are no vectors or decodes them to another shape
            than its inputs have, or nothing says what shape these have.
    """

    fitted: tuple[str, ...] = ()  # the modules that training sets
    part_names: tuple[str, str] = ("source", "target")  # what its files call these

    def __init__(
        self,
        source: Any,
        target: nn.Module,
        view: Callable[[Tensor], Any] | None = None,
        x_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not callable(getattr(source, "representation", None)) or not hasattr(source, "shape"):
            raise TypeError(
                f"the source needs representation(x) and shape, {type(source).__name__} has not "
                "both. Write svae.Frozen(model, layer=...) for a network, or "
                "svae.bridges.Vectors(n) for labels, attributes and embeddings."
            )
        for method in ("encode", "decode"):
            if not callable(getattr(target, method, None)):
                raise TypeError(
                    "the target, an autoencoder or generator, needs encode(x) and decode(code), "
                    f"{type(target).__name__} has no {method}"
                )
        self.settings: dict[str, Any] = {}
        self.code_noise = 0.0  # that codes were fitted with, in their standard deviations
        self.source = source
        self.target = target.requires_grad_(False).eval()
        self.view = view
        self.centre: Any = None  # one that was fitted before, which this starts from
        for part in (source, view):
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()
        self.shape = tuple(source.shape)
        self.x_shape = self._known_shape(x_shape)
        self.n_code = self._count_code()
        self.units = CodeUnits(self.n_code)
        self.mean: Tensor
        self.scale: Tensor
        self.size: Tensor
        self.register_buffer("mean", torch.zeros(self.shape))
        self.register_buffer("scale", torch.ones(self.shape))
        # The standard deviation of a whole representation, over the square root of its units.
        self.register_buffer("size", torch.ones(()))

    def train(self, mode: bool = True) -> "Translator":
        """Training mode of what is fitted alone: what is frozen stays in evaluation mode."""
        super().train(mode)
        for part in (self.source, self.target, self.view, self.centre):
            if isinstance(part, nn.Module):
                part.eval()
        return self

    def viewed(self, x: Float[Tensor, "batch *event"]) -> Any:
        """The source's inputs that belong to the target's.

        Raises:
            ValueError: If the source takes other inputs and no ``view`` says which.
        """
        if self.view is not None:
            return self.view(x)
        wanted = getattr(self.source, "x_shape", None)
        if wanted is not None and tuple(wanted) != tuple(x.shape[1:]):
            raise ValueError(
                f"the source takes inputs of shape {tuple(wanted)}, these have "
                f"{tuple(x.shape[1:])}: give view=, a function from the target's inputs to the "
                "source's, or those themselves where they are asked for (source=, of=)"
            )
        return x

    def representation(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *shape"]:
        """What the source shows of the target's inputs."""
        return self.shown(self.viewed(x))

    def shown(self, inputs: Any) -> Float[Tensor, "batch *shape"]:
        """What the source shows of its own inputs, where the bridge is and in its precision.

        Bytes of three and more dims are pictures, and become numbers in [0, 1].
        """
        if isinstance(inputs, Tensor) and inputs.dtype == torch.uint8 and inputs.ndim > 2:
            inputs = as_floats(inputs)
        return self.source.representation(inputs).to(self.mean)

    def code(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch D"]:
        """The target's code, every dim standardised."""
        code = self.target.encode(as_floats(x).to(self._as_target))  # pyright: ignore
        return self.units(code.to(self.mean))

    def show(self, code: Float[Tensor, "batch D"]) -> Float[Tensor, "batch *event"]:
        """What the target decodes from a standardised code."""
        bare = self.units.inverse(code).to(self._as_target)
        return self.target.decode(bare).to(self.mean)  # pyright: ignore[reportCallIssue]

    @property
    def _as_target(self) -> Tensor:
        """A tensor of the target's precision and device; the bridge's, where it has none."""
        return next((p for p in self.target.parameters() if p.is_floating_point()), self.mean)

    def predict(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch classes"]:
        """The source's own logits.

        Raises:
            ValueError: If the source answers nothing.
        """
        if not callable(getattr(self.source, "predict", None)):
            raise ValueError(
                f"the source, a {type(self.source).__name__}, answers nothing: it has no predict. "
                "What only an answer can tell (class kept, accuracy) needs a source with one, "
                "such as svae.Frozen or svae.bridges.Vectors(n, head=...)."
            )
        return self.source.predict(self.viewed(x)).to(self.mean)

    def translate(
        self, x: Any, n: int = 1, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n batch *event"]:
        """Inputs of the target for inputs of the source, ``n`` each."""
        raise NotImplementedError

    def standardised(
        self, representation: Float[Tensor, "batch *shape"]
    ) -> Float[Tensor, "batch *shape"]:
        """Units of zero mean and unit variance; those that are constant are zero.

        Raises:
            ValueError: If the shape is not the source's.
        """
        if tuple(representation.shape[1:]) != self.shape:
            raise ValueError(
                f"the source gives representations of shape {self.shape}, got "
                f"{tuple(representation.shape[1:])}"
            )
        given = representation.to(self.mean)  # what was stored is on the CPU
        return ((given - self.mean) / self.scale).clamp(-_FAR, _FAR)

    @torch.no_grad()
    def standardise(self, representation: Float[Tensor, "n *shape"]) -> None:
        """Takes mean and scale of every unit from training representations.

        Raises:
            ValueError: If all units are constant, or a value is not finite.

        Warns:
            UnseenUnits: If a word or a class of the source occurs nowhere.
        """
        mean, spread = moments(representation)
        if not bool(mean.isfinite().all() and spread.isfinite().all()):
            raise ValueError(
                "the representation has values that are not finite: look at the network's input"
            )
        largest = float(spread.max())
        if not largest > 0:
            layer = getattr(self.source, "layer", "the source")
            raise ValueError(
                f"all units of {layer!r} are constant in the training data: the layer "
                "ignores everything. Choose another one."
            )
        self.mean.copy_(mean)
        # A unit that hardly ever fires would be amplified without bound.
        self.scale.copy_(torch.where(spread > 1e-6 * largest, spread, math.inf))
        self.size.copy_(spread.square().mean().sqrt())
        seen = ((mean != 0) | (spread > 0)).flatten().tolist()
        names = getattr(self.source, "unit_names", None) or [""] * len(seen)
        if unseen := [name for name, there in zip(names, seen, strict=True) if name and not there]:
            warnings.warn(
                f"{', '.join(unseen)}: in no training example, and without effect on what is "
                "translated. Leave them out of the source, or give examples of them.",
                UnseenUnits,
                stacklevel=2,
            )

    def save(self, folder: str | Path) -> None:
        """Writes ``model.safetensors`` and ``model.json`` into ``folder``.

        Source and target go along where they are from this package; else give them again to
        ``svae.load(folder, source=..., target=...)``. A ``view`` is given again in any case.
        """
        save_translation(self, folder)

    def _known_shape(self, x_shape: Sequence[int] | None) -> tuple[int, ...]:
        found = x_shape or getattr(self.target, "x_shape", None)
        if found is None and self.view is None:
            found = getattr(self.source, "x_shape", None)
        if found is None:
            raise ValueError("nothing says what shape the target's inputs have: give x_shape=")
        return tuple(found)

    def _count_code(self) -> int:
        like = next(self.target.parameters(), torch.zeros(()))
        with torch.no_grad():
            code = self.target.encode(  # pyright: ignore[reportCallIssue]
                torch.zeros(2, *self.x_shape, dtype=like.dtype, device=like.device)
            )
            if not isinstance(code, Tensor):
                raise TypeError(
                    f"the target's encode must give a tensor of codes, got a "
                    f"{type(code).__name__}. Wrap the target in a module whose encode gives the "
                    "code alone, such as the mean of a VAE's posterior."
                )
            if code.dim() != 2:
                raise ValueError(
                    f"the target gives codes of shape {tuple(code.shape[1:])}, expected vectors. "
                    "Flatten them in encode and undo it in decode."
                )
            decoded = self.target.decode(code)  # pyright: ignore[reportCallIssue]
        got = tuple(decoded.shape[1:]) if isinstance(decoded, Tensor) else type(decoded).__name__
        if got != self.x_shape:
            raise ValueError(
                f"the target decodes to {got}, its inputs have shape {self.x_shape}: encode and "
                "decode must belong together, or x_shape= is that of other inputs"
            )
        return code.shape[1]
