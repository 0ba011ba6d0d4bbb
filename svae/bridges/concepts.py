r"""A bijection from a frozen representation to named concepts and a residual.

.. math:: T(\Phi(x)) = (z_1, \dots, z_K, z_0)

with one block of dims for each concept, the class first, and the residual :math:`z_0`. Every edit
of the blocks is an edit of the representation, :math:`\Phi' = T^{-1}(z')`, which the rest of the
frozen network answers exactly.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from svae.bridges.allotting import Score
from svae.bridges.blocks import Block
from svae.bridges.coordinates import Coordinates
from svae.bridges.frozen import Frozen
from svae.bridges.naming import Concept
from svae.bridges.writing import save_bridge
from svae.flows import ActNorm, ConditionalFlow
from svae.latent import Latent

__all__ = ["RESIDUAL", "ConceptBridge"]

RESIDUAL = "residual"
_CHUNK = 500
# Rare activations lie tens of standard deviations away, where larger scales multiply up to the
# powers of ten that a first epoch never recovers from.
_MAX_LOG_SCALE = 1.0
_MIN_SCALE = 0.5


class ConceptBridge(nn.Module):
    r"""A frozen representation, taken apart into named concepts and a residual, and back.

    It fulfils :class:`svae.Factorization`: ``z_class`` holds the concepts, the class first, and
    ``z_nuisance`` the residual (followed by what a PCA left over, which is carried unchanged).
    :func:`svae.fit` measures how many dims each concept gets, builds the flow T and trains it on
    the exact log-likelihood, in nats,

    .. math:: \log p(r) = \sum_F \log p(z_F) + \log \mathcal{N}(z_0; 0, I)
        + \log \left| \det \frac{\partial T}{\partial r} \right|

    Unlike the paper, concepts with values have a Gaussian each (:class:`svae.bridges.Block`), so
    that a swap of values is a move between clouds, and the loss asks the frozen network itself
    whether its answer survives a fresh residual (:class:`svae.bridges.ConceptObjective`).

    References:
        A Disentangling Invertible Interpretation Network for Explaining Latent Representations
        (Esser et al., 2020), https://arxiv.org/abs/2004.13166

    Args:
        frozen: The network, opened at a layer.
        concepts: One concept, or several: :class:`Classes`, :class:`Attribute`, :class:`Pairs`,
            :class:`Sketched` from :mod:`svae.bridges`. None at all is the unsupervised case: all
            is residual, and T turns an autoencoder into a generator.
        decoder: From representation to x, for :meth:`decode`; the network's own where it has one
            (an autoencoder), else that of a trained :class:`svae.bridges.Reconstruction`.
        dims: Dims of concepts, by name; those not named are measured.
        temperature: Of :func:`svae.bridges.allot`: smaller leaves more to the residual.
        n_blocks: Blocks of the flow.
        hidden: Hidden widths of its couplings.
        max_features: Units above which a representation goes through a PCA.
        max_components: Principal components that it then keeps.

    Raises:
        TypeError: If ``frozen`` is no :class:`Frozen`.
        ValueError: If two concepts have one name, two are the class, or ``dims`` names others.

    Example:
        >>> net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        >>> frozen = svae.Frozen(net, layer="1", x_shape=(6,))
        >>> bridge = svae.ConceptBridge(frozen, svae.bridges.Classes())
        >>> bridge.concept_names
        ('class',)
    """

    def __init__(
        self,
        frozen: Frozen,
        concepts: Concept | Sequence[Concept] = (),
        *,
        decoder: nn.Module | None = None,
        dims: Mapping[str, int] | None = None,
        temperature: float = 1.0,
        n_blocks: int = 8,
        hidden: Sequence[int] = (256, 256),
        max_features: int = 4096,
        max_components: int = 256,
    ) -> None:
        super().__init__()
        if not isinstance(frozen, Frozen):
            raise TypeError(
                f"frozen must be a svae.Frozen, got {type(frozen).__name__}. Write "
                'svae.Frozen(model, layer="...") first.'
            )
        concepts = list(concepts) if isinstance(concepts, Sequence) else [concepts]
        concepts.sort(key=lambda concept: not concept.is_class)  # stable: the class comes first
        names = [concept.name for concept in concepts]
        if len(set(names)) != len(names) or RESIDUAL in names:
            raise ValueError(
                f"concepts need names of their own, other than {RESIDUAL!r}, got {names}"
            )
        if sum(concept.is_class for concept in concepts) > 1:
            raise ValueError(f"only one concept can be the class, got several among {names}")
        unknown = set(dims or {}) - set(names)
        if unknown or min((dims or {"": 1}).values()) < 0:
            raise ValueError(
                f"dims must give numbers of at least 0 for concepts among {names}, got {dims}"
            )
        self.frozen, self.concepts = frozen, concepts
        self.answer_concept = names[0] if concepts and concepts[0].is_class else None
        self.concept_names = tuple(names)
        self.decoder = decoder
        self.settings: dict[str, Any] = {
            "dims": dict(dims or {}),
            "temperature": temperature,
            "n_blocks": n_blocks,
            "hidden": list(hidden),
            "max_features": max_features,
            "max_components": max_components,
        }
        self.coordinates: Coordinates | None = None
        self.flow: ConditionalFlow | None = None
        self.order: Tensor
        self.undo: Tensor
        self.register_buffer("order", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.register_buffer("undo", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.blocks = nn.ModuleDict()
        self.scores: dict[str, Score] = {}

    # ---- the factorization

    def encode(self, x: Float[Tensor, "batch *event"], sample: bool = False) -> Latent:
        """The concepts and the residual of each input; nothing is random in it."""
        return self.to_latent(self.frozen.representation(x))

    def decode(self, latent: Latent) -> Float[Tensor, "batch *event"]:
        """What the decoder shows for the representation of a latent.

        Raises:
            ValueError: If there is no decoder.
        """
        decoder = self.decoder if self.decoder is not None else self.frozen.decoder
        if decoder is None:
            raise ValueError(
                "there is no decoder for this representation: fit a "
                "svae.bridges.Reconstruction(frozen) with svae.fit and set bridge.decoder to its "
                "decoder. Answers need none: svae.read(bridge, latent)."
            )
        return decoder(self.to_representation(latent))

    def predict(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch classes"]:
        """The frozen network's own logits."""
        return self.frozen.predict(x)

    def read(self, latent: Latent) -> Float[Tensor, "batch classes"]:
        r"""What the rest of the frozen network answers, exactly: :math:`\Psi(T^{-1}(z))`."""
        return self.frozen.head(self.to_representation(latent))

    def sample_nuisance(
        self, latent: Latent, n: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n batch dims"]:
        """Standard normal residuals; what a PCA left over stays as it is in ``latent``.

        Raises:
            ValueError: If ``n`` is less than 1.
        """
        if n < 1:
            raise ValueError(f"n, the number of draws, must be at least 1, got {n}")
        n_residual = self.dims[RESIDUAL]
        batch = len(latent.z_class)
        noise = torch.randn(n, batch, n_residual, generator=generator)
        left_over = latent.z_nuisance[:, n_residual:]
        return torch.cat([noise.to(left_over), left_over.expand(n, *left_over.shape)], -1)

    # ---- the bijection

    def to_latent(self, representation: Float[Tensor, "batch *shape"]) -> Latent:
        """T: concepts and residual of representations."""
        _, coordinates = self.built()
        value, left_over = coordinates(representation)
        return self._latent(self.through(value)[0], left_over)

    def to_representation(self, latent: Latent) -> Float[Tensor, "batch *shape"]:
        """The inverse of T: the representation that has these concepts and this residual.

        Raises:
            ValueError: If the latent has other widths than the bridge.
        """
        _, coordinates = self.built()
        noise, left_over = self._noise(latent)
        return coordinates.inverse(self.back(noise), left_over)

    def log_prob(self, representation: Float[Tensor, "batch *shape"]) -> Float[Tensor, " batch"]:
        """Log-density of the representation's coordinates, in nats, whatever the values."""
        _, coordinates = self.built()
        noise, log_det = self.through(coordinates(representation)[0])
        parts = self.split(noise)
        return sum((self.block(name).log_prob(z) for name, z in parts.items()), log_det)

    def round_trip_error(self, representation: Float[Tensor, "batch *shape"]) -> float:
        """Largest error of a unit by way of T and back."""
        with torch.no_grad():
            again = self.to_representation(self.to_latent(representation))
        return float((again - representation).abs().max())

    # ---- the parts of a latent

    @property
    def dims(self) -> dict[str, int]:
        """Dims of every concept and of the residual, which comes last."""
        return {name: self.block(name).n_dims for name in (*self.concept_names, RESIDUAL)}

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of all parts: the concepts and the residual."""
        return (*self.concept_names, RESIDUAL)

    def block(self, name: str) -> Block:
        """The density of one part.

        Raises:
            ValueError: If there is no such part.
        """
        self.built()
        place = self._place(name)
        block = self.blocks[place]
        assert isinstance(block, Block)
        return block

    def part(self, latent: Latent, name: str) -> Float[Tensor, "batch dims"]:
        """One part of a latent."""
        self._place(name)
        return self.split(self._noise(latent)[0])[name]

    def with_part(self, latent: Latent, name: str, value: Float[Tensor, "batch dims"]) -> Latent:
        """The latent with one part replaced.

        Raises:
            ValueError: If there is no such part, or the value has another shape.
        """
        noise, left_over = self._noise(latent)
        parts = self.split(noise)
        self._place(name)
        if value.shape != parts[name].shape:
            raise ValueError(
                f"the part {name!r} has shape {tuple(parts[name].shape)}, got {tuple(value.shape)}"
            )
        return self._latent(torch.cat([*({**parts, name: value}).values()], -1), left_over)

    def sample_part(
        self, latent: Latent, name: str, n: int = 1, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n batch dims"]:
        """Draws of one part from its density, whatever the rest of the latent."""
        rows = len(latent.z_class)
        drawn = self.block(name).sample(n * rows, generator=generator)
        return drawn.to(latent.z_class).unflatten(0, (n, rows))

    def step_part(
        self,
        latent: Latent,
        name: str,
        keep: float = 0.9,
        generator: torch.Generator | None = None,
    ) -> Latent:
        """One step of a stationary random walk within one part, see :meth:`Block.step`."""
        moved = self.block(name).step(self.part(latent, name), keep, generator=generator)
        return self.with_part(latent, name, moved)

    def draw(
        self,
        n: int,
        y: Int[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Latent:
        """``n`` new latents from the density, of given classes if ``y`` is given.

        What a PCA left over is zero in them.

        Raises:
            ValueError: If ``y`` is given and no concept is the class.
        """
        _, coordinates = self.built()
        if y is not None and self.answer_concept is None:
            raise ValueError("no concept is the class: y cannot be asked for")
        noise = torch.cat(
            [
                self.block(name).sample(
                    n, y if name == self.answer_concept else None, generator=generator
                )
                for name in self.parts
            ],
            -1,
        )
        return self._latent(noise, noise.new_zeros(n, coordinates.n_remainder))

    @torch.no_grad()
    def sample(
        self,
        y: Int[Tensor, " batch"] | Sequence[int] | None = None,
        n: int = 1,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n batch *event"]:
        """New examples, decoded: ``n`` for every class in ``y``, or ``n`` of any kind."""
        if n < 1:
            raise ValueError(f"n, the number of draws, must be at least 1, got {n}")
        labels = None if y is None else torch.as_tensor(y).repeat(n)
        rows = n if labels is None else len(labels)
        return self.decode(self.draw(rows, labels, generator)).unflatten(0, (n, rows // n))

    def split(self, noise: Float[Tensor, "batch D"]) -> dict[str, Float[Tensor, "batch dims"]]:
        """The flow's output by part."""
        dims = self.dims
        return dict(zip(dims, noise.split(list(dims.values()), -1), strict=True))

    # ---- built from data

    def assemble(self, coordinates: Coordinates, sizes: Mapping[str, tuple[int, int]]) -> None:
        """Builds flow and blocks; :func:`svae.fit` does so with what it measured.

        Args:
            coordinates: Of the representation, fitted.
            sizes: Dims and number of values (0 for none) of every concept.
        """
        residual = coordinates.n_features - sum(n_dims for n_dims, _ in sizes.values())
        blocks = [Block(n_dims, n_values) for n_dims, n_values in sizes.values()]
        # By number: a module's name may not hold every character that a concept's may.
        for i, block in enumerate([*blocks, Block(residual)]):
            self.blocks[str(i)] = block
        self.coordinates = coordinates
        self.flow = ConditionalFlow(
            coordinates.n_features,
            n_blocks=self.settings["n_blocks"],
            hidden=self.settings["hidden"],
            max_log_scale=_MAX_LOG_SCALE,
        )
        for block in self.flow.blocks:
            if isinstance(block, ActNorm):
                # Coordinates are standardised already: what hardly varies in a first batch is a
                # rare unit, which must not be amplified.
                block.min_scale = _MIN_SCALE
        self.order = _order(self.flow)
        self.undo = self.order.argsort()

    def through(
        self, value: Float[Tensor, "batch D"]
    ) -> tuple[Float[Tensor, "batch D"], Float[Tensor, " batch"]]:
        """T on coordinates: all parts joined, and the log-determinant."""
        flow, _ = self.built()
        noise, log_det = flow(value)
        return noise[:, self.order], log_det

    def back(self, noise: Float[Tensor, "batch D"]) -> Float[Tensor, "batch D"]:
        """The inverse of :meth:`through`."""
        flow, _ = self.built()
        return flow.inverse(noise[:, self.undo])[0]

    def built(self) -> tuple[ConditionalFlow, Coordinates]:
        """Flow and coordinates.

        Raises:
            ValueError: If the bridge has not been fitted.
        """
        if self.flow is None or self.coordinates is None:
            raise ValueError(
                "the bridge has not been fitted: its dims are measured from data. Call "
                "svae.fit(bridge, data) or svae.load(folder) first."
            )
        return self.flow, self.coordinates

    def _place(self, name: str) -> str:
        if name not in self.parts:
            raise ValueError(f"there is no part {name!r}, the bridge has {', '.join(self.parts)}")
        return str(self.parts.index(name))

    def _latent(self, noise: Tensor, left_over: Tensor) -> Latent:
        n_concepts = noise.shape[-1] - self.dims[RESIDUAL]
        return Latent(noise[:, :n_concepts], torch.cat([noise[:, n_concepts:], left_over], -1))

    def _noise(self, latent: Latent) -> tuple[Tensor, Tensor]:
        _, coordinates = self.built()
        n_residual = self.dims[RESIDUAL]
        n_class = coordinates.n_features - n_residual
        n_nuisance = n_residual + coordinates.n_remainder
        rows = len(latent.z_class)
        wanted = (rows, n_class), (rows, n_nuisance)
        found = tuple(latent.z_class.shape), tuple(latent.z_nuisance.shape)
        if found != wanted:
            raise ValueError(
                f"the latent has parts of shape {found[0]} and {found[1]}, the bridge needs "
                f"{wanted[0]} and {wanted[1]}. Flatten draws of sample_nuisance into the batch, "
                "as svae.resample_nuisance does."
            )
        residual, left_over = latent.z_nuisance.split([n_residual, coordinates.n_remainder], -1)
        return torch.cat([latent.z_class, residual], -1), left_over

    def save(self, folder: str | Path) -> None:
        """Writes ``model.safetensors`` and ``model.json`` into ``folder``.

        The frozen network goes along where it is from this package, else only its fingerprint:
        give it again to ``svae.load(folder, frozen=...)``. Concepts are kept by name.
        """
        save_bridge(self, folder)


@torch.no_grad()
def _order(flow: ConditionalFlow) -> Tensor:
    """Where each coordinate comes out of a new flow, which only permutes."""
    features = flow.features
    flow.eval()
    probes = torch.eye(features)
    start, _ = flow(torch.zeros(1, features))
    moved = torch.cat([flow(part)[0] for part in probes.split(_CHUNK)]) - start
    flow.train()
    return moved.argmax(1)
