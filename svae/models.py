r"""p(x, y, z): the generative model, and the pair of model and guide.

.. math::
    p(x, y, z_\mathrm{class}, u) = p(y, z_\mathrm{class})\; p(u \mid c(z_\mathrm{class}))\;
        p(x \mid z_\mathrm{class}, u)

with sites ``y``, ``z_class``, ``style`` (u) and ``x``. The nuisance latent is no site: it is the
base noise of the prior of u, see :mod:`svae.priors`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyro
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from svae.flows import ConditionalFlow
from svae.guides import MeanFieldGuide
from svae.heads import GaussianHead, Head
from svae.latent import Latent, LatentSplit
from svae.likelihoods import Bernoulli, Likelihood
from svae.nets import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from svae.priors import FlowPrior, StylePrior, draw_noise, noise_of, value_of
from svae.saving import (
    Described,
    checksum,
    describe,
    load_weights,
    read_json,
    rebuild,
    save_weights,
    writable,
)
from svae.sites import (
    check_sites,
    draw_class,
    keep_parameters_local,
    log_joint_of,
    means,
    site,
)

__all__ = ["SVAE", "SupervisedModel", "restore"]

Stochastic = Callable[..., Any]


class SupervisedModel(Described, nn.Module):
    """The generative model of a supervised VAE.

    Args:
        head: The joint density of class latent and label.
        style_prior: Prior of the style code given the head's class probabilities. One with a
            method ``attach`` is handed the guide by :class:`SVAE`.
        decoder: Maps the joined class latent and style code to the likelihood's parameter.
        likelihood: p(x given the decoder's output).
    """

    def __init__(
        self, head: Head, style_prior: StylePrior, decoder: nn.Module, likelihood: Likelihood
    ) -> None:
        super().__init__()
        self.head, self.style_prior = head, style_prior
        self.decoder, self.likelihood = decoder, likelihood

    def forward(
        self, x: Float[Tensor, "batch *event"], y: Int[Tensor, " batch"] | None = None
    ) -> None:
        with pyro.plate("batch", len(x)):
            z_class = self.head.draw(x, y)
            # The class probabilities are stopped: the flow must adapt to the head, not lead it.
            context = self.head(z_class).softmax(-1).detach()
            style = pyro.sample("style", self.style_prior(context))
            output = self.decoder(torch.cat([z_class, style], dim=-1))
            pyro.sample("x", self.likelihood(output, event_dims=x.dim() - 1), obs=x)

    def log_joint(self, z_class: Float[Tensor, "*batch dims"]) -> Float[Tensor, "*batch classes"]:
        """Log p(z_class, y = k) for every class, in nats."""
        return self.head.log_joint(z_class)


class SVAE(nn.Module):
    """A supervised variational autoencoder: the pair of a Pyro model and guide.

    It fulfils :class:`svae.Factorization`, and every method is derived from the sites of model
    and guide, so that either can be the user's own.

    References:
        Learning Invariances for Interpretability using Supervised VAE (Nguyen & Rodríguez
        Martínez, 2020), https://arxiv.org/abs/2007.07591

    Args:
        model: Callable of signature ``(x, y=None)`` with the sites ``z_class``, ``style``, ``y``
            and ``x``, inside a plate over the batch.
        guide: Callable of the same signature with the sites ``z_class`` and ``style``.
        x_shape: Shape of one example; taken from the first batch seen where it is None.

    Raises:
        TypeError: If model or guide cannot be called.
        ValueError: On the first batch, if the sites of model and guide disagree.
    """

    def __init__(
        self, model: Stochastic, guide: Stochastic, x_shape: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        for name, part in (("model", model), ("guide", guide)):
            if not callable(part):
                raise TypeError(
                    f"{name} must be a callable of signature (x, y=None), got {part!r}. "
                    "Did you mean SVAE.for_images(...)?"
                )
            keep_parameters_local(part)
        self.model, self.guide = model, guide
        for part in model.modules() if isinstance(model, nn.Module) else ():
            if callable(attach := getattr(part, "attach", None)):
                attach(guide)  # a prior made of the guide's own posteriors
        # Pyro's habit of giving two methods of one module: its parameters are trained too.
        owners = [getattr(part, "__self__", None) for part in (model, guide)]
        modules = {id(owner): owner for owner in owners if isinstance(owner, nn.Module)}
        if modules:
            self.owners = nn.ModuleList(modules.values())
        self.x_shape = None if x_shape is None else tuple(x_shape)
        self._checked = False

    @classmethod
    def for_images(
        cls,
        shape: Sequence[int],
        n_classes: int,
        split: LatentSplit,
        *,
        head: Head | None = None,
        style_prior: StylePrior | None = None,
        likelihood: Likelihood | None = None,
        width: int = 32,
        dropout: float = 0.0,
        gain: bool = False,
    ) -> "SVAE":
        """Convolutional networks for images with sides from 8 to 128.

        Args:
            shape: ``(channels, height, width)``.
            n_classes: Number of classes.
            split: Numbers of class and nuisance dims.
            head: p(y given z_class); a class-conditional Gaussian if None.
            style_prior: p(style given class); a class-conditional flow if None.
            likelihood: p(x given z); Bernoulli if None.
            width: Channels of the first convolution.
            dropout: Share of encoder features dropped while training.
            gain: Whether the brightness of each channel is read and drawn apart from its shape.
                For things in one colour each, whose shape does not depend on it; the mean of the
                likelihood must be the sigmoid of the decoder's output.
        """
        encoder = ConvEncoder(shape, width=width, dropout=dropout, gain=gain)
        decoder = ConvDecoder(shape, split.n_features, width=width, gain=gain)
        return cls._assemble(encoder, decoder, n_classes, split, head, style_prior, likelihood)

    @classmethod
    def for_vectors(
        cls,
        n_features: int,
        n_classes: int,
        split: LatentSplit,
        *,
        head: Head | None = None,
        style_prior: StylePrior | None = None,
        likelihood: Likelihood | None = None,
        hidden: Sequence[int] = (512,),
    ) -> "SVAE":
        """Perceptrons for flat vectors; arguments as in :meth:`for_images`."""
        encoder = MLPEncoder((n_features,), hidden=hidden)
        decoder = MLPDecoder((n_features,), split.n_features, hidden=(256, *hidden))
        return cls._assemble(encoder, decoder, n_classes, split, head, style_prior, likelihood)

    @classmethod
    def _assemble(
        cls,
        encoder: ConvEncoder | MLPEncoder,
        decoder: ConvDecoder | MLPDecoder,
        n_classes: int,
        split: LatentSplit,
        head: Head | None,
        style_prior: StylePrior | None,
        likelihood: Likelihood | None,
    ) -> "SVAE":
        head = head or GaussianHead(split.n_class, n_classes)
        style_prior = style_prior or FlowPrior(
            ConditionalFlow(split.n_nuisance, n_classes, n_blocks=8, hidden=(256, 256))
        )
        widths = head.n_class, style_prior.n_nuisance
        if widths != (split.n_class, split.n_nuisance) or head.n_classes != n_classes:
            raise ValueError(
                f"the head has {head.n_class} class dims and {head.n_classes} classes and the "
                f"style prior {style_prior.n_nuisance} nuisance dims; the split needs "
                f"{split.n_class} class + {split.n_nuisance} nuisance, for {n_classes} classes. "
                "Build both with the split's numbers."
            )
        model = SupervisedModel(head, style_prior, decoder, likelihood or Bernoulli())
        return cls(model, MeanFieldGuide(encoder, split), encoder.shape)

    def encode(self, x: Float[Tensor, "batch *event"], sample: bool = False) -> Latent:
        """Posterior means of both parts, or one posterior sample.

        ``z_nuisance`` is the base noise of the style code's mean (or sample) at the ``z_class``
        returned.

        Raises:
            ValueError: If ``x`` has another shape than the model was built or first used with.
        """
        x = self._checked_x(x)
        z_class, style = means(self.guide, x, sample=sample)
        prior = site(self.model, "style", x, z_class=z_class)
        return Latent(z_class, noise_of(prior, style))

    def decode(self, latent: Latent) -> Float[Tensor, "batch *event"]:
        """Mean of p(x given latent).

        Raises:
            ValueError: If the latent has other widths than the model, or nothing has said yet
                what shape x has.
        """
        z_class = latent.z_class
        like = self.placeholder(z_class)
        # Other widths would be broadcast, or fail deep inside a network.
        width = site(self.model, "z_class", like).event_shape
        if z_class.shape[1:] != width:
            raise ValueError(
                f"z_class has shape {tuple(z_class.shape)}, the model needs (batch, "
                f"{', '.join(map(str, width))}). Do the parts come from another model?"
            )
        prior = site(self.model, "style", like, z_class=z_class)
        if latent.z_nuisance.shape != (len(z_class), *prior.event_shape):
            raise ValueError(
                f"z_nuisance has shape {tuple(latent.z_nuisance.shape)}, the model needs "
                f"{(len(z_class), *prior.event_shape)} beside this z_class. Flatten the draws of "
                "sample_nuisance into the batch, as svae.resample_nuisance does."
            )
        style = value_of(prior, latent.z_nuisance)
        return site(self.model, "x", like, z_class=z_class, style=style).mean

    def read(self, latent: Latent) -> Float[Tensor, "batch classes"]:
        """Logits of the head at ``latent.z_class``, without going through x."""
        return self.logits(latent.z_class)

    def predict(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch classes"]:
        """Logits of the head at the posterior mean of ``z_class``."""
        x = self._checked_x(x)
        return self.logits(means(self.guide, x)[0])

    def logits(self, z_class: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch classes"]:
        """Log-probabilities of the classes given ``z_class``."""
        return log_joint_of(self.model, self.placeholder(z_class), z_class).log_softmax(-1)

    def sample_nuisance(
        self, latent: Latent, n: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n batch dims"]:
        """Prior draws of the nuisance, the same for every class.

        They are standard normal, but for a prior of the style code that is neither Gaussian nor a
        flow: then draws of that prior.

        Raises:
            ValueError: If ``n`` is less than 1.
        """
        if n < 1:
            raise ValueError(f"n, the number of draws, must be at least 1, got {n}")
        z_class = latent.z_class
        prior = site(self.model, "style", self.placeholder(z_class), z_class=z_class)
        with _seeded_by(generator, z_class.device):
            return draw_noise(prior, n)

    def sample(
        self,
        y: Int[Tensor, " batch"] | Sequence[int],
        n: int = 1,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n batch *event"]:
        """New examples of given classes: the mean of p(x given z) at prior draws of z.

        Args:
            y: Class of each column.
            n: Draws for each class.
            generator: Source of the noise; the global one if None.

        Raises:
            ValueError: If a class is unknown or ``n`` is less than 1.
        """
        if n < 1:
            raise ValueError(f"n, the number of draws, must be at least 1, got {n}")
        device = self._device
        y = torch.as_tensor(y, device=device)
        if y.dim() != 1 or y.is_floating_point() or not len(y):
            raise ValueError(
                f"y must be a sequence of one or more integer classes, got {y.dtype} of shape "
                f"{tuple(y.shape)}. Write [3] for the class 3."
            )
        n_classes = self.n_classes
        if not (int(y.min()) >= 0 and int(y.max()) < n_classes):
            raise ValueError(
                f"classes must be between 0 and {n_classes - 1}, got {sorted(set(y.tolist()))}"
            )
        like = self.placeholder(torch.zeros(1, device=device)).expand(n * len(y), *self._shape())
        with torch.no_grad(), _seeded_by(generator, device):
            z = draw_class(self.model, like, y.repeat(n))
            nuisance = self.sample_nuisance(Latent(z, z), 1)[0]
            return self.decode(Latent(z, nuisance)).unflatten(0, (n, len(y)))

    @property
    def n_classes(self) -> int:
        """Number of classes, as the site ``y`` has them."""
        like = self.placeholder(torch.zeros(1, device=self._device))
        return int(site(self.model, "y", like).enumerate_support(expand=False).shape[0])

    def check(self, x: Tensor, y: Tensor | None = None) -> None:
        """Runs model and guide once on ``x`` and compares their sites.

        Raises:
            ValueError: If the sites disagree; both lists are printed.
        """
        if not self._checked:
            check_sites(self.model, self.guide, x, y)
            self._checked = True

    def save(self, folder: str | Path) -> None:
        """Writes ``model.safetensors`` and ``model.json`` into ``folder``.

        Parts that are not from this package are noted as such: give them again to
        :func:`svae.load`.
        """
        folder = writable(folder)
        config: dict[str, Any] = {"class": "svae.SVAE", "x_shape": self.x_shape}
        for name, part in (("model", self.model), ("guide", self.guide)):
            try:
                config[name] = describe(part)
            except TypeError:
                config[name] = None
        weights = folder / "model.safetensors"
        save_weights(self, weights)
        config["sha256"] = checksum(weights)
        (folder / "model.json").write_text(json.dumps(config, indent=1), encoding="utf-8")

    @property
    def _device(self) -> torch.device:
        # Model and guide may be plain functions, whose networks this module does not hold.
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def _shape(self) -> tuple[int, ...]:
        if self.x_shape is None:
            raise ValueError(
                "the shape of x is not known yet: build SVAE(model, guide, x_shape=...) or encode "
                "a batch first"
            )
        return self.x_shape

    def placeholder(self, z: Tensor) -> Tensor:
        """A placeholder for x: models take their batch size, device and type from it."""
        return z.new_zeros(()).expand(len(z), *self._shape())

    def _checked_x(self, x: Tensor) -> Tensor:
        if self.x_shape is not None and tuple(x.shape[1:]) != self.x_shape:
            raise ValueError(
                f"expected a batch of shape (batch, {', '.join(map(str, self.x_shape))}), got "
                f"{tuple(x.shape)}. Add a batch dim with x[None], or resize or reorder the "
                "channels (channels come first)."
            )
        if not x.is_floating_point():
            raise TypeError(
                f"expected floating point x, got {x.dtype}. Divide 8-bit images by 255 first."
            )
        if not len(x):
            raise ValueError("expected a batch of one or more examples, got an empty one")
        self.check(x)
        if self.x_shape is None:  # only now: a wrong first batch must not decide it
            self.x_shape = tuple(x.shape[1:])
        return x


def restore(
    folder: str | Path, model: Stochastic | None = None, guide: Stochastic | None = None
) -> SVAE:
    """Loads what :meth:`SVAE.save` wrote, in evaluation mode on the CPU; nothing is unpickled.

    Args:
        folder: The folder that was written.
        model: Needed where the model was the user's own class.
        guide: Needed where the guide was the user's own class.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged or belongs to another architecture, or a part of the
            user's own is not given.
    """
    folder = Path(folder)
    config = read_json(folder / "model.json")
    if not isinstance(config, dict) or not _is_shape(config.get("x_shape", [])):
        raise ValueError(
            f"{folder / 'model.json'} is not what .save(folder) writes: expected an object with "
            "x_shape, model and guide. It was damaged or is another program's file."
        )
    parts: dict[str, Any] = {"model": model, "guide": guide}
    for name, given in parts.items():
        if given is None:
            if config.get(name) is None:
                raise ValueError(
                    f"the {name} saved in {folder} is not from this package: give it again, "
                    f"svae.load(folder, {name}=...)"
                )
            parts[name] = rebuild(config[name])
    if "x_shape" not in config:
        raise ValueError(
            f"{folder / 'model.json'} has no entry 'x_shape', which .save(folder) writes. It was "
            "damaged or is another program's file: copy or train again."
        )
    shape = config["x_shape"]
    vae = SVAE(parts["model"], parts["guide"], None if shape is None else tuple(shape))
    load_weights(vae, folder / "model.safetensors", config.get("sha256"))
    return vae.eval()


def _is_shape(value: object) -> bool:
    return value is None or (
        isinstance(value, list | tuple) and all(type(n) is int for n in value)
    )


@contextmanager
def _seeded_by(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    """Inside it all of torch's noise follows from one draw of ``generator``."""
    # Drawn outside the fork, which would give the global generator its old state back.
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
