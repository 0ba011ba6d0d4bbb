from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

from svae import (
    SVAE,
    Factorization,
    GaussianHead,
    Latent,
    LatentSplit,
    NetworkHead,
    read,
    resample_nuisance,
    swap_nuisance,
)
from svae.flows import ActNorm, ConditionalFlow
from svae.priors import FlowPrior, StandardPrior
from tests.plain_pyro import (
    MODELS,
    N_CLASS,
    N_CLASSES,
    N_STYLE,
    N_X,
    LabelFirst,
    StructuredGuide,
    nodes,
)
from tests.unchecked import as_a_user

SPLIT = LatentSplit(N_CLASS, N_STYLE)


def as_if_trained(vae: SVAE) -> SVAE:
    """A flow that is no identity, and posterior means that differ between inputs."""
    for parameter in vae.model.style_prior.parameters():
        nn.init.normal_(parameter, std=0.1)
    vae.guide.parameters_of.weight.data *= 20
    for layer in vae.model.decoder.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data *= 3
    return vae.eval()


def ours(**changes: Any) -> SVAE:
    vae = SVAE.for_vectors(N_X, N_CLASSES, SPLIT, hidden=(8,), **changes)
    return as_if_trained(vae)


def images() -> SVAE:
    return as_if_trained(SVAE.for_images((1, 8, 9), N_CLASSES, SPLIT, width=2))


VAES: dict[str, Callable[[], SVAE]] = {
    "gaussian head, flow": ours,
    "network head, flow": lambda: ours(head=NetworkHead(N_CLASS, N_CLASSES)),
    "no flow": lambda: ours(style_prior=StandardPrior(N_STYLE)),
    "images": images,
    **{
        f"plain pyro, {name}": lambda make=make: SVAE(make(), StructuredGuide())
        for name, make in MODELS.items()
    },
}


def batch_of(vae: SVAE, n: int = 6) -> Tensor:
    return torch.rand(n, *(vae.x_shape or (N_X,)))


@pytest.fixture(params=VAES)
def vae(request: pytest.FixtureRequest) -> SVAE:
    return VAES[request.param]()


def test_it_is_a_factorization(vae: SVAE) -> None:
    x = batch_of(vae)
    latent = vae.encode(x)
    assert isinstance(vae, Factorization)
    assert isinstance(latent, Latent)
    assert latent.z_class.shape == (6, N_CLASS)
    assert latent.z_nuisance.shape == (6, N_STYLE)
    assert vae.predict(x).shape == vae.read(latent).shape == (6, N_CLASSES)
    assert vae.decode(latent).shape == x.shape
    assert vae.n_classes == N_CLASSES
    assert vae.decode(latent).min() >= 0
    assert vae.decode(latent).max() <= 1


def test_one_example_is_a_batch(vae: SVAE) -> None:
    x = batch_of(vae)
    latent, alone = vae.encode(x), vae.encode(x[:1])
    for part, first in zip(latent, alone, strict=True):
        assert torch.allclose(part[:1], first, atol=1e-4)
    assert torch.allclose(vae.decode(latent)[:1], vae.decode(alone), atol=1e-4)
    assert torch.allclose(vae.predict(x)[:1], vae.predict(x[:1]), atol=1e-4)


def test_means_are_repeatable_and_samples_are_not(vae: SVAE) -> None:
    x = batch_of(vae)
    for once, again in zip(vae.encode(x), vae.encode(x), strict=True):
        assert torch.equal(once, again)
    for mean, sample in zip(vae.encode(x), vae.encode(x, sample=True), strict=True):
        assert not torch.allclose(mean, sample, atol=1e-3)


def test_logits_are_normalised_and_read_is_predict(vae: SVAE) -> None:
    x = batch_of(vae)
    assert torch.allclose(vae.predict(x).exp().sum(-1), torch.ones(6), atol=1e-5)
    assert torch.allclose(read(vae, vae.encode(x)), vae.predict(x), atol=1e-5)


def test_decode_needs_nothing_but_the_latent(vae: SVAE) -> None:
    latent = vae.encode(batch_of(vae))
    expected = vae.decode(latent)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = vae.decode(latent.map(lambda part: part[order]))
    assert torch.allclose(permuted, expected[order], atol=1e-5)
    vae.guide = nn.Identity()  # neither the guide nor what was encoded before is asked
    torch.manual_seed(99)
    assert torch.equal(vae.decode(latent), expected)


def test_decode_is_the_decoder_at_the_style(vae: SVAE) -> None:
    x = batch_of(vae)
    vae.encode(x)
    trace = nodes(vae.guide, x)
    z_class, style = (trace[name]["value"] for name in ("z_class", "style"))
    held = poutine.condition(vae.model, data={"z_class": z_class, "style": style})
    made = nodes(held, x)
    prior = made["style"]["fn"]
    if hasattr(prior, "flow"):
        noise = prior.flow(style, prior.context)[0]
    else:
        noise = (style - prior.mean) / prior.variance.sqrt()
    assert torch.allclose(vae.decode(Latent(z_class, noise)), made["x"]["fn"].mean, atol=1e-4)


def test_both_parts_reach_the_decoder(vae: SVAE) -> None:
    z_class, z_nuisance = vae.encode(batch_of(vae))
    expected = vae.decode(Latent(z_class, z_nuisance))
    for changed in (Latent(z_class + 1, z_nuisance), Latent(z_class, z_nuisance + 1)):
        assert not torch.allclose(vae.decode(changed), expected, atol=1e-4)
    shifted = vae.read(Latent(z_class, z_nuisance + 1))
    assert torch.equal(shifted, vae.read(Latent(z_class, z_nuisance)))


def test_nuisance_draws_are_standard_normal_whatever_the_class(vae: SVAE) -> None:
    latent = Latent(3 * torch.randn(50, N_CLASS), torch.zeros(50, N_STYLE))
    if vae.x_shape is None:
        vae.encode(batch_of(vae))
    draws = vae.sample_nuisance(latent, 200)
    assert draws.shape == (200, 50, N_STYLE)
    assert draws.mean((0, 1)).abs().max() < 0.06
    assert (draws.std((0, 1)) - 1).abs().max() < 0.06
    again = [vae.sample_nuisance(latent, 2, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*again)


def test_resample_and_swap(vae: SVAE) -> None:
    x, other = batch_of(vae), batch_of(vae)
    images = resample_nuisance(vae, x, 3)
    assert images.shape == (3, *x.shape)
    assert images.std(0).amax() > 1e-4
    swapped = swap_nuisance(vae, x, other)
    latent = Latent(vae.encode(x).z_class, vae.encode(other).z_nuisance)
    assert torch.allclose(swapped, vae.decode(latent), atol=1e-5)
    assert torch.allclose(swap_nuisance(vae, x, x), vae.decode(vae.encode(x)), atol=1e-5)


def test_samples_of_given_classes(vae: SVAE) -> None:
    x = batch_of(vae)
    vae.encode(x)
    y = torch.tensor([2, 0, 1])
    drawn = vae.sample(y, 4, torch.Generator().manual_seed(0))
    assert drawn.shape == (4, 3, *x.shape[1:])
    assert torch.equal(drawn, vae.sample([2, 0, 1], 4, torch.Generator().manual_seed(0)))
    assert not torch.equal(drawn, vae.sample(y, 4, torch.Generator().manual_seed(1)))
    assert not torch.equal(vae.sample(y), vae.sample(y))  # the global generator moves on
    assert drawn.flatten(0, 1).flatten(1).unique(dim=0).shape[0] == 12
    assert not drawn.requires_grad


class Seen(nn.Module):
    """Decodes the class latent and nothing else, so that samples tell where they came from."""

    def forward(self, z: Tensor) -> Tensor:
        return z[..., :N_CLASS]


@pytest.mark.parametrize("kind", ["gaussian", "network"])
def test_samples_are_of_their_class(kind: str) -> None:
    head = GaussianHead(N_CLASS, N_CLASSES)
    corners = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    head.loc.data = 5 * corners
    if kind == "network":
        head = NetworkHead(N_CLASS, N_CLASSES)
        head.net[-1].weight.data = 30 * corners
    vae = ours(head=head)
    vae.model.decoder = Seen()
    y = torch.tensor([0, 3, 2, 1, 1])
    z_class = vae.sample(y, 40).logit()
    predicted = vae.logits(z_class.flatten(0, 1).clamp(-15, 15)).argmax(-1).view(40, 5)
    assert (predicted == y).float().mean() > 0.95


def test_samples_of_another_class_are_others() -> None:
    vae = SVAE(LabelFirst(), StructuredGuide(), x_shape=(N_X,))
    first, second = vae.sample([0] * 50), vae.sample([1] * 50)
    assert (first.mean((0, 1)) - second.mean((0, 1))).abs().max() > 0.1


@pytest.mark.parametrize(
    ("y", "n", "match"),
    [
        ([0, 4], 1, r"between 0 and 3, got \[0, 4\]"),
        ([-1], 1, r"between 0 and 3, got \[-1\]"),
        ([0], 0, "at least 1, got 0"),
        ([], 1, "sequence of one or more integer classes"),
        ([0.5], 1, "integer classes, got torch.float32"),
        (torch.tensor(1), 1, r"of shape \(\)"),
    ],
)
def test_unknown_classes(y: Any, n: int, match: str) -> None:
    with as_a_user(), pytest.raises(ValueError, match=match):
        ours().sample(y, n)


def test_without_draws_there_is_no_nuisance() -> None:
    vae = ours()
    with pytest.raises(ValueError, match="at least 1, got 0"):
        vae.sample_nuisance(vae.encode(batch_of(vae)), 0)


def test_the_nuisance_is_the_base_noise_of_the_style() -> None:
    vae, x = ours(), batch_of(ours())
    latent = vae.encode(x)
    trace = nodes(vae.guide, x)
    style, z_class = (trace[name]["fn"].mean for name in ("style", "z_class"))
    context = vae.model.head(z_class).softmax(-1)
    noise = vae.model.style_prior.flow(style, context)[0]
    assert torch.equal(latent.z_class, z_class)
    assert torch.allclose(latent.z_nuisance, noise, atol=1e-5)
    assert not torch.allclose(noise, style, atol=1e-2)


def test_the_flow_sees_the_class_probabilities() -> None:
    vae = ours()
    z_class, z_nuisance = torch.randn(6, N_CLASS), torch.randn(6, N_STYLE)
    vae.model.decoder = nn.Identity()
    style = vae.decode(Latent(z_class, z_nuisance)).logit()[:, N_CLASS:]
    context = vae.logits(z_class).softmax(-1)
    expected = vae.model.style_prior.flow.inverse(z_nuisance, context)[0]
    assert torch.allclose(style, expected, atol=1e-3)
    moved = vae.decode(Latent(z_class + 2, z_nuisance)).logit()[:, N_CLASS:]
    assert not torch.allclose(style, moved, atol=1e-2)


def test_gradients_of_the_style_do_not_reach_the_head() -> None:
    vae, x = ours(), batch_of(ours())
    style = torch.randn(6, N_STYLE)
    z_class = torch.randn(6, N_CLASS, requires_grad=True)
    held = poutine.condition(vae.model, data={"z_class": z_class, "style": style})
    trace = nodes(held, x)
    trace["style"]["log_prob"].sum().backward()
    assert z_class.grad is None
    assert all(parameter.grad is None for parameter in vae.model.head.parameters())
    assert any(parameter.grad is not None for parameter in vae.model.style_prior.parameters())


def test_sites_of_the_model_and_their_density() -> None:
    vae, x = ours(), batch_of(ours())
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    trace = nodes(vae.model, x, y)
    z_class, style = (trace[name]["value"] for name in ("z_class", "style"))
    output = vae.model.decoder(torch.cat([z_class, style], -1))
    expected = torch.distributions.Bernoulli(logits=output, validate_args=False).log_prob(x)
    assert torch.allclose(trace["x"]["log_prob"], expected.sum(-1), atol=1e-4)
    joint = trace["y"]["log_prob"] + trace["z_class"]["log_prob"]
    assert torch.allclose(joint, vae.model.log_joint(z_class)[range(6), y], atol=1e-4)
    assert [name for name in trace if trace[name]["type"] == "sample"] == [
        "batch",
        "y",
        "z_class",
        "style",
        "x",
    ]


def test_nothing_enters_the_global_parameter_store(vae: SVAE) -> None:
    x = batch_of(vae)
    vae.decode(vae.encode(x))
    vae.sample([0, 1])
    resample_nuisance(vae, x, 2)
    assert len(pyro.get_param_store()) == 0


@pytest.mark.parametrize("shape", [(N_X + 1,), (1, N_X)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    vae = SVAE(LabelFirst(), StructuredGuide())
    vae.encode(batch_of(vae))
    for method in (vae.encode, vae.predict):
        with pytest.raises(
            ValueError, match=r"expected a batch of shape \(batch, 5\), got .*x\[None\]"
        ):
            method(torch.rand(3, *shape))


def test_integers_are_refused() -> None:
    x = torch.randint(0, 255, (3, N_X), dtype=torch.uint8)
    with as_a_user(), pytest.raises(TypeError, match=r"floating point x, got torch.uint8.*by 255"):
        ours().encode(x)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="one or more examples, got an empty one"):
        ours().encode(torch.rand(0, N_X))


def test_a_wrong_first_batch_decides_nothing() -> None:
    vae = SVAE(LabelFirst(), StructuredGuide())
    with pytest.raises(RuntimeError):
        vae.encode(torch.rand(3, N_X + 1))
    assert vae.encode(torch.rand(3, N_X)).z_class.shape == (3, N_CLASS)


@pytest.mark.parametrize("name", ["decode", "sample"])
def test_the_shape_of_x_must_be_known(name: str) -> None:
    vae = SVAE(LabelFirst(), StructuredGuide())
    call = {
        "decode": lambda: vae.decode(Latent(torch.zeros(1, N_CLASS), torch.zeros(1, N_STYLE))),
        "sample": lambda: vae.sample([0]),
    }[name]
    with pytest.raises(ValueError, match=r"not known yet: build SVAE\(model, guide, x_shape="):
        call()
    vae.x_shape = (N_X,)
    assert call().shape[-1] == N_X


@pytest.mark.parametrize(
    ("n_class", "n_nuisance", "rows", "match"),
    [
        (1, 3, 2, r"z_class has shape \(2, 1\), the model needs \(batch, 2\)"),
        (2, 4, 2, r"z_nuisance has shape \(2, 4\), the model needs \(2, 3\)"),
        (2, 3, 5, r"z_nuisance has shape \(5, 3\), the model needs \(2, 3\).*Flatten"),
    ],
)
def test_a_latent_of_another_model(n_class: int, n_nuisance: int, rows: int, match: str) -> None:
    latent = Latent(torch.zeros(2, n_class), torch.zeros(rows, n_nuisance))
    for vae in (ours(), SVAE(MODELS["label last"](), StructuredGuide(), (N_X,))):
        with pytest.raises(ValueError, match=match):
            vae.decode(latent)


def test_disagreeing_sites_are_found_on_the_first_batch() -> None:
    def guide(x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            pyro.sample("z_class", dist.Normal(x[:, :3], 1.0).to_event(1))
            pyro.sample("style", dist.Normal(x[:, :N_STYLE], 1.0).to_event(1))

    for model in (LabelFirst(), ours().model):
        with pytest.raises(ValueError, match=r"'z_class'(?s:.*)model: .*guide: |\n  model: "):
            SVAE(model, guide).encode(torch.rand(4, N_X))


def test_plain_functions_are_enough() -> None:
    def model(x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            z = pyro.sample("z_class", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            u = pyro.sample("style", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            logits = torch.cat([z, -z], -1)
            pyro.sample("y", dist.Categorical(logits=logits), obs=y)
            pyro.sample("x", dist.Normal(torch.cat([z, u], -1), 1.0).to_event(1), obs=x)

    def guide(x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            pyro.sample("z_class", dist.Normal(x[:, :1], 0.1).to_event(1))
            pyro.sample("style", dist.Normal(x[:, 1:], 0.1).to_event(1))

    vae, x = SVAE(model, guide), torch.randn(5, 2)
    assert torch.equal(vae.decode(vae.encode(x)), x)
    expected = torch.cat([x[:, :1], -x[:, :1]], -1).log_softmax(-1)
    assert torch.allclose(vae.predict(x), expected, atol=1e-5)
    drawn = vae.sample([0, 1], 400)[..., 0]
    assert drawn[:, 0].mean() > 0.3 > -0.3 > drawn[:, 1].mean()


@pytest.mark.parametrize("part", ["model", "guide"])
def test_a_part_that_cannot_be_called(part: str) -> None:
    parts: dict[str, Any] = {"model": LabelFirst(), "guide": StructuredGuide(), part: "conv"}
    with as_a_user(), pytest.raises(TypeError, match=f"{part} must be a callable .*'conv'"):
        SVAE(**parts)


@pytest.mark.parametrize(
    "changes",
    [
        {"head": GaussianHead(3, N_CLASSES)},
        {"head": NetworkHead(N_CLASS, 7)},
        {"style_prior": StandardPrior(2)},
        {"style_prior": FlowPrior(ConditionalFlow(4, N_CLASSES))},
    ],
)
def test_parts_that_do_not_fit_the_split(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"the split needs 2 class \+ 3 nuisance, for 4 classes"):
        ours(**changes)


def test_a_look_at_codes_starts_no_flow() -> None:
    vae = SVAE.for_vectors(4, 3, LatentSplit(2, 2), hidden=(8,)).train()
    vae.encode(torch.rand(5, 4))
    started = [bool(m.initialised) for m in vae.modules() if isinstance(m, ActNorm)]
    assert started
    assert not any(started)
