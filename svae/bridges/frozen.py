"""A network that somebody else trained, opened at one of its layers and never changed."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from svae.saving import Described, digest_of

__all__ = ["BlackBox", "CodeClassifier", "Frozen"]

Tokens = Literal["mean"] | int | None

_SHOWN = 40  # layers listed in a message
_CLOSE = 1e-3  # of the largest logit: how near head(representation(x)) must come to predict(x)


class _Reached(Exception):
    """The layer asked for has answered, so the rest of the network need not run."""


class Frozen(Described, nn.Module):
    r"""A trained network, opened at a layer: :math:`f = \Psi \circ \Phi`.

    :math:`\Phi(x)` is the output of the layer (:meth:`representation`), :math:`\Psi` the rest of
    the network (:meth:`head`), obtained by hooks, so that the network's code need not be known.
    The network is copied, set to evaluation mode for good and its gradients are switched off:
    nothing that is done with this object changes a bit of the original or of the copy, which
    :attr:`fingerprint` shows.

    :meth:`head` runs the network on a blank input and replaces what the layer gives. Where the
    network reads the input past the layer (a skip connection around it) there is no such
    :math:`\Psi`; the first call of :meth:`head` after a :meth:`representation` finds out.

    References:
        Making Sense of CNNs: Interpreting Deep Representations & Their Invariances with INNs
        (Rombach et al., 2020), https://arxiv.org/abs/2008.01777

    Args:
        model: Any module from a batch to logits ``(batch, n_classes)``.
        layer: Name of a sub-module, as ``model.named_modules()`` has it, or the sub-module itself.
            Its output, ``(batch, *shape)``, is the representation.
        tokens: For a layer that gives ``(batch, tokens, features)``, as transformers do: a number
            selects one token (0 is usually the class token), ``"mean"`` averages them. None keeps
            the output as it is.
        x_shape: Shape of one input; taken from the first batch seen if None.
        preprocess: Turns inputs in [0, 1] into what the network wants, for example
            ``torchvision.transforms.Normalize(mean, std)``.

    Raises:
        TypeError: If ``model`` is no module, or the layer gives no tensor.
        ValueError: If there is no such layer; all layers are listed.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> frozen, x = Frozen(model, layer="2"), torch.rand(5, 1, 2, 2)
        >>> representation = frozen.representation(x)
        >>> torch.allclose(frozen.head(representation), model(x))
        True
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str | nn.Module,
        tokens: Tokens = None,
        x_shape: Sequence[int] | None = None,
        preprocess: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"model must be a torch module, got {type(model).__name__}. Wrap a function in an "
                "nn.Module whose forward calls it."
            )
        self.layer = _layer_name(model, layer)
        if tokens is not None and tokens != "mean" and (type(tokens) is not int):
            raise ValueError(
                f'tokens must be None, "mean" or the number of a token, got {tokens!r}'
            )
        self.tokens: Tokens = tokens
        self.x_shape = None if x_shape is None else tuple(x_shape)
        self.__dict__["_arguments"]["layer"] = (
            self.layer
        )  # a name can be written to a file, a module cannot
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.preprocess = preprocess
        self.output_shape: tuple[int, ...] | None = None  # of the layer, before tokens are chosen
        self._seen: Tensor | None = None  # an input, until the head is known to fit
        self._blank_rows = 0  # of the blank input; 0: not known yet

    @classmethod
    def autoencoder(cls, model: nn.Module, classifier: nn.Module | None = None) -> "Frozen":
        """A trained autoencoder, opened at its code, which its own decoder can show.

        The model being explained is the classifier of what is decoded,
        ``classifier(decode(encode(x)))``; without a classifier there is no answer to explain, and
        :meth:`predict` and :meth:`head` give reconstructions.

        Args:
            model: A module with ``encode(x)`` and ``decode(code)``.
            classifier: A network from x to logits.

        Raises:
            TypeError: If ``model`` lacks a method.
        """
        return cls(CodeClassifier(model, classifier), layer="code")

    @classmethod
    def black_box(
        cls,
        predict: Callable[[Any], Any],
        x_shape: Sequence[int] | None = None,
        takes: Literal["numpy", "torch"] = "numpy",
    ) -> "Frozen":
        """A model of which nothing is known but its answers: they are the representation.

        Args:
            predict: From a batch in [0, 1] to probabilities ``(batch, n_classes)``.
            x_shape: Shape of one input; taken from the first batch seen if None.
            takes: What ``predict`` is given: a numpy array of float32 or a tensor.
        """
        return cls(BlackBox(predict, takes), layer="probabilities", x_shape=x_shape)

    @property
    def decoder(self) -> Callable[[Tensor], Tensor] | None:
        """The network's own map from representation to x, where it has one: an autoencoder's."""
        return getattr(self.model, "decode", None)

    def train(self, mode: bool = True) -> "Frozen":
        """Always evaluation mode: no statistic of a frozen network moves."""
        return super().train(False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one representation.

        Raises:
            ValueError: If nothing has said yet what shape x has.
        """
        if self.output_shape is None:
            self.representation(torch.zeros(1, *self.known_shape(), device=self._device))
        assert self.output_shape is not None
        return self.output_shape if self.tokens is None else self.output_shape[1:]

    def representation(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *shape"]:
        r""":math:`\Phi(x)`, the output of the layer for ``x`` as the network takes it.

        Raises:
            ValueError: If the layer does not run when the network does.
            TypeError: If the layer gives no tensor.
        """
        found: list[Any] = []

        def keep(module: nn.Module, arguments: Any, output: Any) -> None:
            found.append(output)
            raise _Reached

        with self._hooked(keep):
            try:
                self._run(x)
            except _Reached:
                pass
            else:
                raise ValueError(
                    f"the layer {self.layer!r} took no part in the network's answer, so it has no "
                    f"representation. The layers are\n{self._listing()}"
                )
        output = found[0]
        if not isinstance(output, Tensor):
            raise TypeError(
                f"the layer {self.layer!r} gives a {type(output).__name__}, expected a tensor. "
                f"Choose a layer inside of it or after it:\n{self._listing()}"
            )
        if self.x_shape is None:
            self.x_shape = tuple(x.shape[1:])
        if self.output_shape is None:
            self._check_tokens(output)
            self.output_shape = tuple(output.shape[1:])
        if not self._blank_rows and self._seen is None:
            self._seen = x[:2].detach()
        return self._chosen(output)

    def predict(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch classes"]:
        """The network's own logits, untouched.

        Raises:
            TypeError: If the network answers with something else.
        """
        logits = self._run(x)
        if not isinstance(logits, Tensor):
            raise TypeError(
                f"the network answers with a {type(logits).__name__}, expected logits (batch, "
                "n_classes). Wrap it in a module whose forward picks them, such as "
                'model(x)["logits"].'
            )
        return logits

    def at(self, layer: str | nn.Module) -> "Frozen":
        """The same network, opened at another layer.

        Raises:
            ValueError: If there is no such layer.
        """
        if isinstance(layer, nn.Module):
            layer = _layer_name(self.model, layer)
        other = Frozen(self.model, layer, None, self.x_shape, self.preprocess)
        if layer == self.layer:
            other.tokens = self.tokens
        return other

    def outputs(self, x: Float[Tensor, "batch *event"]) -> dict[str, Tensor]:
        """What every layer that runs once gives for ``x``, in the order in which they finish.

        Layers that give no tensor with a row for every input are left out.
        """
        return {
            name: outputs[0]
            for name, outputs in _observed(self.model, lambda: self._run(x)).items()
            if len(outputs) == 1
            and isinstance(outputs[0], Tensor)
            and outputs[0].dim() > 1
            and len(outputs[0]) == len(x)
        }

    @property
    def differentiable(self) -> bool:
        """Whether gradients reach the input."""
        return getattr(self.model, "differentiable", True)

    def _run(self, x: Tensor) -> Any:
        return self.model(x if self.preprocess is None else self.preprocess(x))

    def head(
        self, representation: Float[Tensor, "batch *shape"]
    ) -> Float[Tensor, "batch classes"]:
        r""":math:`\Psi`, the rest of the network from the layer on.

        Gradients flow back to ``representation``, never into the network.

        Raises:
            ValueError: If the shape is not the layer's, or the network reads its input past the
                layer, so that its answer is no function of the representation.
        """
        if tuple(representation.shape[1:]) != self.shape:
            raise ValueError(
                f"the layer {self.layer!r} gives representations of shape {self.shape}, got "
                f"{tuple(representation.shape[1:])}. Do not flatten them, and do not mix layers."
            )
        if not self._blank_rows:
            self._check_head()
        return self._answer(representation, self._blank_rows)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all parameters and buffers, which never changes."""
        state = self.model.state_dict().items()
        return digest_of({name: value for name, value in state if isinstance(value, Tensor)})

    def layers(self, x: Tensor | None = None) -> dict[str, tuple[str, tuple[int, ...] | None]]:
        """Every layer's name → its kind, and the shape that it gives for one example.

        Args:
            x: An example batch; a blank one of the known shape if None.

        Raises:
            ValueError: If nothing has said yet what shape x has.
        """
        if x is None:
            x = torch.zeros(1, *self.known_shape(), device=self._device)
        return _layers(self.model, x)

    def _answer(self, representation: Tensor, blank_rows: int, fill: float = 0.0) -> Tensor:
        rows = blank_rows if blank_rows > 0 else len(representation)
        blank = representation.new_full((rows, *self.known_shape()), fill)

        calls = 0

        def replace(module: nn.Module, arguments: Any, output: Tensor) -> Tensor | None:
            nonlocal calls
            calls += 1  # a module that the network uses again answers for itself from then on
            return self._placed(representation, output) if calls == 1 else None

        with self._hooked(replace):
            return self._run(blank)

    def _placed(self, representation: Tensor, output: Tensor) -> Tensor:
        """What goes on through the network in the place of ``output``."""
        if self.tokens is None:
            return representation.clone()  # later layers may work in place
        everywhere = output[:1].expand(len(representation), *output.shape[1:])
        if self.tokens == "mean":
            return representation.unsqueeze(1).expand_as(everywhere)
        index = self.tokens % everywhere.shape[1]
        before, after = everywhere[:, :index], everywhere[:, index + 1 :]
        return torch.cat([before, representation.unsqueeze(1), after], 1)

    def _chosen(self, output: Tensor) -> Tensor:
        if self.tokens is None:
            return output
        return output.mean(1) if self.tokens == "mean" else output[:, self.tokens]

    def _check_tokens(self, output: Tensor) -> None:
        if self.tokens is None:
            return
        if output.dim() != 3:
            raise ValueError(
                f"tokens={self.tokens!r} needs a layer that gives (batch, tokens, features), "
                f"{self.layer!r} gives {tuple(output.shape)}. Leave tokens out."
            )
        n = output.shape[1]
        if self.tokens != "mean" and not -n <= self.tokens < n:
            raise ValueError(f"token {self.tokens} is none of the {n} that {self.layer!r} gives")

    @torch.no_grad()
    def _check_head(self) -> None:
        """Whether the answer is a function of the representation, for two different blanks."""
        x = self._seen
        if x is None:
            x = torch.rand(2, *self.known_shape(), device=self._device)
        representation, wanted = self.representation(x), self.predict(x)
        # One blank row saves the layers before; a network that counts its input's rows needs all.
        for blank_rows in (1, -1):
            try:
                answers = [self._answer(representation, blank_rows, fill) for fill in (0.0, 0.7)]
            except (RuntimeError, ValueError, IndexError, TypeError, AssertionError):
                if blank_rows == -1:
                    raise
                continue
            limit = _CLOSE * max(float(wanted.abs().max()), 1.0)
            if all(
                answer.shape == wanted.shape and float((answer - wanted).abs().max()) <= limit
                for answer in answers
            ):
                self._blank_rows, self._seen = blank_rows, None
                return
        reason = (
            "the network reads its input past this layer (a skip connection around it?)"
            if self.tokens is None
            else f"the network reads more of the layer than tokens={self.tokens!r} gives"
        )
        raise ValueError(
            f"the answer is no function of the representation at {self.layer!r}: {reason}. Choose "
            f"a layer that everything passes through:\n{self._listing()}"
        )

    @contextmanager
    def _hooked(self, hook: Callable[..., Any]) -> Iterator[None]:
        handle = self.model.get_submodule(self.layer).register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    @property
    def _device(self) -> torch.device:
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def known_shape(self) -> tuple[int, ...]:
        """Shape of one input.

        Raises:
            ValueError: If nothing has said yet what shape x has.
        """
        if self.x_shape is None:
            raise ValueError(
                "the shape of x is not known yet: build Frozen(model, layer, x_shape=...) or call "
                "representation(x) first"
            )
        return self.x_shape

    def _listing(self) -> str:
        shape = self.x_shape
        x = None if shape is None else torch.zeros(1, *shape, device=self._device)
        return _listing(self.model, x)


class CodeClassifier(Described, nn.Module):
    r"""An autoencoder, and what a classifier says of its reconstructions: :math:`f(D(E(x)))`.

    The code passes through the sub-module ``code``, so that it is a layer like any other.

    Args:
        autoencoder: A module with ``encode(x)`` and ``decode(code)``.
        classifier: A network from x to logits; None leaves the reconstruction as the output.

    Raises:
        TypeError: If ``autoencoder`` lacks a method.
    """

    def __init__(self, autoencoder: nn.Module, classifier: nn.Module | None = None) -> None:
        super().__init__()
        for method in ("encode", "decode"):
            if not callable(getattr(autoencoder, method, None)):
                raise TypeError(
                    "an autoencoder needs encode(x) and decode(code), "
                    f"{type(autoencoder).__name__} has no {method}. Use Frozen(model, layer) for "
                    "other networks."
                )
        self.autoencoder, self.classifier, self.code = autoencoder, classifier, nn.Identity()

    # As many rows as the code has: a head replaces it by that of another batch.
    def forward(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "rows ..."]:
        decoded = self.decode(self.code(self.autoencoder.encode(x)))  # pyright: ignore
        return decoded if self.classifier is None else self.classifier(decoded)

    def decode(self, code: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch *event"]:
        """What the autoencoder shows for a code."""
        return self.autoencoder.decode(code)  # pyright: ignore[reportCallIssue]


class BlackBox(nn.Module):
    """A function from inputs to probabilities as a network; gradients end at it.

    Args:
        predict: From a batch to probabilities ``(batch, n_classes)``.
        takes: ``"numpy"`` or ``"torch"``, what ``predict`` is given.

    Raises:
        ValueError: If ``takes`` is neither, or the answers are no probabilities.
    """

    differentiable = False

    def __init__(
        self, predict: Callable[[Any], Any], takes: Literal["numpy", "torch"] = "numpy"
    ) -> None:
        super().__init__()
        if takes not in ("numpy", "torch"):
            raise ValueError(f'takes must be "numpy" or "torch", got {takes!r}')
        self.function, self.takes = predict, takes
        self.probabilities = nn.Identity()

    def forward(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "rows classes"]:
        given = x.detach().cpu()
        found = self.function(given.numpy() if self.takes == "numpy" else given)
        answers = torch.as_tensor(found, dtype=x.dtype).to(x.device)
        if answers.dim() != 2 or len(answers) != len(x):
            raise ValueError(
                f"predict gave an answer of shape {tuple(answers.shape)} to {len(x)} inputs, "
                f"expected probabilities ({len(x)}, n_classes)"
            )
        low, total = float(answers.min()), answers.sum(1)
        if low < 0 or float((total - 1).abs().max()) > 1e-2:
            raise ValueError(
                f"predict gave numbers from {low:.3g} with sums up to {float(total.max()):.3g}, "
                "expected probabilities. Put a softmax on logits."
            )
        return self.probabilities(answers).clamp(min=1e-7).log()


def _layer_name(model: nn.Module, layer: str | nn.Module) -> str:
    names = {name: module for name, module in model.named_modules() if name}
    if isinstance(layer, nn.Module):
        found = [name for name, module in names.items() if module is layer]
        if found:
            return found[0]
        asked = f"the module {type(layer).__name__}"
    elif layer in names:
        return layer
    else:
        asked = repr(layer)
    raise ValueError(
        f"{asked} is no layer of {type(model).__name__}, expected a name or a sub-module. The "
        f"layers are\n{_listing(model, None)}"
    )


def _observed(model: nn.Module, run: Callable[[], object]) -> dict[str, list[Any]]:
    """What every layer gives in a run, each time that it is called, in the order of finishing."""
    found: dict[str, list[Any]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            found.setdefault(name, []).append(output)

        return hook

    handles = [
        module.register_forward_hook(keep(name)) for name, module in model.named_modules() if name
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def _layers(model: nn.Module, x: Tensor | None) -> dict[str, tuple[str, tuple[int, ...] | None]]:
    found = {} if x is None else _observed(model, lambda: model(x))

    def shape(name: str) -> tuple[int, ...] | None:
        output = found.get(name, [None])[-1]
        return tuple(output.shape[1:]) if isinstance(output, Tensor) else None

    named = [(name, module) for name, module in model.named_modules() if name]
    return {name: (type(module).__name__, shape(name)) for name, module in named}


def _listing(model: nn.Module, x: Tensor | None) -> str:
    lines = []
    for name, (kind, shape) in _layers(model, x).items():
        text = "" if shape is None else f" {shape}"
        lines.append(f"  {name}: {kind}{text}")
    if len(lines) > _SHOWN:
        lines = [*lines[:_SHOWN], f"  and {len(lines) - _SHOWN} more"]
    return "\n".join(lines) or "  (none)"
