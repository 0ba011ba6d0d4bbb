"""Questions to a Pyro model or guide, answered from its sites.

Everything the package needs from a model or guide that it did not write (the decoder's output, the
logits, posterior means) is read from a trace of it, so a plain Pyro function is enough.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from jaxtyping import Float, Int
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine import runtime
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message, NonlocalExit
from torch import Tensor, nn
from torch.distributions import Independent, TransformedDistribution

__all__ = [
    "LATENT",
    "at_means",
    "check_sites",
    "draw_class",
    "draws",
    "keep_parameters_local",
    "latent_sites",
    "local_parameters",
    "log_joint_of",
    "mean_of",
    "means",
    "site",
]

LATENT = ("z_class", "style")
TRIES, ROUNDS = 32, 16  # of prior draws for one label, where the label comes last
Stochastic = Callable[..., Any]
# A PyroModule keeps its parameters for itself, not in Pyro's global store.
local_parameters = pyro.settings.context(module_local_params=True)


def keep_parameters_local(module: object) -> None:
    """Lets a PyroModule that was built outside of ``local_parameters`` work inside of it."""
    for part in module.modules() if isinstance(module, nn.Module) else ():
        context = getattr(part, "_pyro_context", None)
        if context is not None and not hasattr(context, "param_state"):
            context.param_state = {"params": {}, "constraints": {}}


@local_parameters
def site(
    model: Stochastic, name: str, x: Tensor, y: Tensor | None = None, **fixed: Tensor
) -> TorchDistributionMixin:
    """The distribution of site ``name`` with the sites in ``fixed`` held; nothing after it runs.

    Raises:
        ValueError: If the model has no such site.
    """

    def reached(message: Message) -> bool:
        return message["type"] == "sample" and message["name"] == name

    tracer = poutine.trace(poutine.escape(poutine.condition(model, data=fixed), escape_fn=reached))
    try:
        trace = tracer.get_trace(x, y)
    except NonlocalExit as found:
        return found.site["fn"]  # pyright: ignore[reportReturnType]
    raise ValueError(f"the model has no site {name!r}; its sites are {latent_sites(trace)}")


class _AtMean(Messenger):
    """Gives every latent site its mean, or the image of the base mean."""

    def _pyro_sample(self, message: Message) -> None:
        if not message["is_observed"] and message["name"] in LATENT:
            message["value"] = mean_of(message["fn"])  # pyright: ignore
            message["done"] = True


def mean_of(distribution: Any) -> Any:
    """Its mean, or the image of the base mean where it is a transformed one."""
    if isinstance(distribution, Independent):
        return mean_of(distribution.base_dist)
    if isinstance(distribution, TransformedDistribution):
        value = mean_of(distribution.base_dist)
        for transform in distribution.transforms:
            value = transform(value)
        return value
    return distribution.mean


@local_parameters
def at_means(guide: Stochastic, x: Tensor) -> dict[str, Any]:
    """The guide's distributions of ``z_class`` and ``style``, each given the means before it.

    The guide runs apart from the handlers and plates around the call, so that a model may ask.
    """
    with _apart():
        nodes: Any = poutine.trace(_AtMean()(guide)).get_trace(x).nodes
    return {name: nodes[name]["fn"] for name in LATENT}


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Inside it no handler and no plate is active."""
    # Blocking the handlers would leave the plates' dims taken.
    handlers, dims = runtime._PYRO_STACK, runtime._DIM_ALLOCATOR
    kept, kept_dims = handlers[:], dims._stack
    handlers[:], dims._stack = [], []
    try:
        yield
    finally:
        handlers[:], dims._stack = kept, kept_dims


@local_parameters
def means(guide: Stochastic, x: Tensor, sample: bool = False) -> tuple[Tensor, Tensor]:
    """Posterior means of ``z_class`` and ``style``, or one joint posterior sample.

    Where one site depends on the other, its mean is taken at the other's mean.
    """
    trace = poutine.trace(guide if sample else _AtMean()(guide)).get_trace(x)
    missing = [name for name in LATENT if name not in trace.nodes]
    if missing:
        raise ValueError(
            f"the guide lacks the site{'s' * (len(missing) > 1)} {missing}; it has "
            f"{latent_sites(trace)}. A guide draws 'z_class' and 'style'."
        )
    nodes: Any = trace.nodes
    return nodes["z_class"]["value"], nodes["style"]["value"]


@local_parameters
def draws(guide: Stochastic, x: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Samples ``n`` times from the posterior: ``z_class`` and ``style``, ``(n * batch, dims)``.

    The samples of one draw follow each other. A guide whose networks take leading batch dims runs
    once, inside a plate of its own for the draws; any other runs ``n`` times.
    """
    try:
        with pyro.plate("draws", n, dim=-2):
            z_class, style = means(guide, x, sample=True)
        if z_class.shape[:2] == style.shape[:2] == (n, len(x)):
            return z_class.flatten(0, 1), style.flatten(0, 1)
    except (RuntimeError, ValueError):
        pass  # shapes that do not broadcast
    blocks = zip(*(means(guide, x, sample=True) for _ in range(n)), strict=True)
    z_class, style = (torch.cat(block) for block in blocks)
    return z_class, style


@local_parameters
def log_joint_of(
    model: Stochastic, x: Tensor, z_class: Float[Tensor, "batch dims"]
) -> Float[Tensor, "batch classes"]:
    """Log p(z_class, y = k) for every class k, from the model's own method or its sites.

    A model may have a method ``log_joint(z_class)``. Without one, the prior part of the model is
    run once for each class with y held.
    """
    own = getattr(model, "log_joint", None)
    if own is not None:
        return own(z_class)
    n_classes = len(site(model, "y", x, z_class=z_class).enumerate_support(expand=False))
    rows = [_log_prior(model, x, z_class, k) for k in range(n_classes)]
    return torch.stack(rows, dim=-1)


def _log_prior(model: Stochastic, x: Tensor, z_class: Tensor, k: int) -> Tensor:
    held = {"z_class": z_class, "y": torch.full((len(x),), k, device=x.device)}

    # A model may draw the style before the label, so what ends the run is that both were seen.
    def beyond(message: Message) -> bool:
        return message["type"] == "sample" and held.keys() <= tracer.trace.nodes.keys()

    tracer = poutine.trace(poutine.escape(poutine.condition(model, data=held), escape_fn=beyond))
    with contextlib.suppress(NonlocalExit):
        tracer.get_trace(x)
    nodes: Any = tracer.trace.nodes
    z, y = (nodes[name]["fn"].log_prob(nodes[name]["value"]) for name in held)
    return z + y


@local_parameters
def draw_class(model: Stochastic, x: Tensor, y: Int[Tensor, " batch"]) -> Tensor:
    r"""One draw of :math:`p(z_\mathrm{class} \mid y)` for every label.

    Where the label comes first, the site itself is drawn from. Where it comes last, prior draws
    are rejected until p(y given z_class) accepts one, which is exact; a class so rare that none
    was accepted after some hundred tries gets the try that suited it best.
    """

    def reached(message: Message) -> bool:
        return message["type"] == "sample" and message["name"] == "z_class"

    tracer = poutine.trace(poutine.escape(model, escape_fn=reached))
    with contextlib.suppress(NonlocalExit):
        tracer.get_trace(x, y)
    label_first = "y" in tracer.trace.nodes
    prior = site(model, "z_class", x, y)
    z_class = prior.sample()
    if label_first:
        return z_class
    rows = x[:1].expand(TRIES * len(y), *x.shape[1:])
    accepted = torch.zeros_like(y, dtype=torch.bool)
    best = z_class.new_full((len(y),), -torch.inf)
    for _ in range(ROUNDS):
        draws = prior.sample((TRIES,))
        log_probs = log_joint_of(model, rows, draws.flatten(0, 1)).log_softmax(-1)
        log_prob = log_probs.gather(-1, y.repeat(TRIES).unsqueeze(-1)).view(TRIES, len(y))
        accept = torch.rand_like(log_prob).log() < log_prob
        found = accept.any(0)
        choice = torch.where(found, accept.int().argmax(0), log_prob.argmax(0))
        chosen = log_prob.gather(0, choice.unsqueeze(0)).squeeze(0)
        take = ~accepted & (found | (chosen > best))
        z_class[take] = draws[choice, torch.arange(len(y), device=y.device)][take]
        best = torch.where(take, chosen, best)
        accepted |= found
        if accepted.all():
            break
    return z_class


def latent_sites(trace: poutine.Trace) -> list[str]:
    """Names of the sample sites of a trace, plates aside."""
    return [
        name
        for name, node in trace.nodes.items()
        if node["type"] == "sample" and type(node["fn"]).__name__ != "_Subsample"
    ]


@local_parameters
def check_sites(model: Stochastic, guide: Stochastic, x: Tensor, y: Tensor | None = None) -> None:
    """Runs guide and model once and compares their sites.

    Raises:
        TypeError: If one of them cannot be called as (x) and (x, y).
        ValueError: If a site is missing, unknown or of another shape; both lists are printed. Also
            if one of them keeps parameters in Pyro's global store.
    """
    for name, part in (("model", model), ("guide", guide)):
        called = inspect.signature(part.forward if isinstance(part, nn.Module) else part)
        try:
            called.bind(x)
            called.bind(x, y)
        except TypeError as error:
            raise TypeError(
                f"the {name} is called as {name}(x) and {name}(x, y), but its signature is "
                f"{called} ({error}). Write it as (x, y=None), also where it does not use y."
            ) from error
    store = pyro.get_param_store()
    before = set(store.keys())
    with torch.no_grad():
        drawn = poutine.trace(guide).get_trace(x, y)
        # Not replayed on the guide's draws: of another width, they would stop the model midway.
        made = poutine.trace(model).get_trace(x, y)
    if stored := sorted(set(store.keys()) - before):
        for name in stored:
            del store[name]
        raise ValueError(
            f"pyro.param keeps {stored} in Pyro's global store, where nothing trains, moves or "
            "saves it. Make it an nn.Parameter of a module: self.scale = nn.Parameter(...)."
        )
    guide_sites, model_sites = latent_sites(drawn), latent_sites(made)
    both = f"\n  model: {_listing(made)}\n  guide: {_listing(drawn)}"
    expected = {"z_class", "style", "y", "x"}
    if set(model_sites) != expected:
        raise ValueError(f"a model has exactly the sites {sorted(expected)}, got{both}")
    if set(guide_sites) != set(LATENT):
        raise ValueError(f"a guide has exactly the sites {list(LATENT)}, got{both}")
    for name in LATENT:
        inside, outside = made.nodes[name]["fn"], drawn.nodes[name]["fn"]
        shapes = [(*fn.batch_shape, "|", *fn.event_shape) for fn in (inside, outside)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"model and guide disagree on the shape of {name!r} (batch | event). Declare the "
                f"dims of one example with .to_event(1):{both}"
            )
        if inside.batch_shape != (len(x),):
            raise ValueError(
                f"the site {name!r} must have batch shape ({len(x)},): draw it inside "
                f"pyro.plate('batch', len(x)) with .to_event(1):{both}"
            )


def _listing(trace: poutine.Trace) -> str:
    return ", ".join(
        f"{name} {tuple(trace.nodes[name]['fn'].batch_shape)}"
        f"{tuple(trace.nodes[name]['fn'].event_shape)}"
        for name in latent_sites(trace)
    )
