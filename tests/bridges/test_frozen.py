import copy
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from svae.bridges import Frozen
from svae.bridges.frozen import CodeClassifier
from tests.unchecked import as_a_user


class Branching(nn.Module):
    """A skip connection around ``first``, and none around ``last``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.out = nn.Linear(6, 6), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu_(self.last(x + self.first(x))))


class Transformer(nn.Module):
    """A class token (or the mean) is all that the head reads."""

    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        self.pooled = pooled
        self.embed = nn.Linear(3, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.block(self.embed(x))
        return self.out(tokens.mean(1) if self.pooled else tokens[:, 0])


class Reusing(nn.Module):
    """One rectifier for two layers, and rows counted from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.relu = nn.Linear(4, 6), nn.Linear(6, 3), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.two(self.relu(self.one(x)).view(len(x), -1))) + 1


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(3 * 16, 5),
    )


# name → network, layer, tokens, shape of x, shape of the representation
CASES: dict[str, tuple[Callable[[], nn.Module], str, int | str | None, tuple, tuple]] = {
    "map": (convolutional, "0", None, (1, 4, 4), (3, 4, 4)),
    "before a layer that works in place": (convolutional, "1", None, (1, 4, 4), (3, 4, 4)),
    "vector": (convolutional, "4", None, (1, 4, 4), (48,)),
    "logits": (convolutional, "5", None, (1, 4, 4), (5,)),
    "after a skip": (Branching, "last", None, (6,), (4,)),
    "used twice": (Reusing, "relu", None, (4,), (6,)),
    "class token": (Transformer, "block", 0, (7, 3), (8,)),
    "mean token": (lambda: Transformer(pooled=True), "block", "mean", (7, 3), (8,)),
    "all tokens": (Transformer, "block", None, (7, 3), (7, 8)),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Frozen, Tensor, tuple]:
    build, layer, tokens, shape, wanted = CASES[request.param]
    model = build()
    frozen = Frozen(model, layer, tokens=tokens)  # pyright: ignore[reportArgumentType]
    return model.eval(), frozen, torch.randn(5, *shape), wanted


def test_the_head_goes_on_from_the_representation(
    case: tuple[nn.Module, Frozen, Tensor, tuple],
) -> None:
    model, frozen, x, shape = case
    representation = frozen.representation(x)
    assert representation.shape == (5, *shape)
    assert frozen.shape == shape
    before = representation.clone()
    assert torch.allclose(frozen.head(representation), model(x), atol=1e-5)
    assert torch.equal(representation, before)  # whatever works in place behind it
    assert torch.allclose(frozen.predict(x), model(x))
    # Rows are independent, and another batch size changes nothing.
    assert torch.allclose(frozen.head(representation[2:3]), model(x)[2:3], atol=1e-5)


def test_the_head_answers_for_what_it_is_given(
    case: tuple[nn.Module, Frozen, Tensor, tuple],
) -> None:
    _, frozen, x, _ = case
    representation = frozen.representation(x)
    assert torch.allclose(
        frozen.head(representation.flip(0)), frozen.predict(x).flip(0), atol=1e-5
    )
    moved = frozen.head(representation + 0.5 * torch.randn_like(representation))
    assert not torch.allclose(moved, frozen.predict(x), atol=1e-4)


def test_no_bit_and_no_mode_of_the_network_changes(
    case: tuple[nn.Module, Frozen, Tensor, tuple],
) -> None:
    model, frozen, x, _ = case
    model.train()
    state = copy.deepcopy(model.state_dict())
    fingerprint = frozen.fingerprint
    nn.Sequential(frozen).train()
    representation = frozen.representation(x).requires_grad_(True)
    frozen.head(representation).sum().backward()
    assert representation.grad is not None
    assert representation.grad.abs().sum() > 0
    assert all(p.grad is None for p in [*frozen.parameters(), *model.parameters()])
    assert frozen.fingerprint == fingerprint
    assert not any(module.training for module in frozen.modules() if module is not frozen)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_a_changed_bit_changes_the_fingerprint() -> None:
    frozen = Frozen(convolutional(), "0")
    before = frozen.fingerprint
    with torch.no_grad():
        next(frozen.parameters()).flatten()[0] += 1e-6
    assert frozen.fingerprint != before


def test_a_layer_can_be_given_as_a_module() -> None:
    model = convolutional()
    assert Frozen(model, model.get_submodule("4")).layer == "4"
    with pytest.raises(ValueError, match=r"Linear is no layer of Sequential[\s\S]*0: Conv2d"):
        Frozen(model, nn.Linear(1, 1))


def test_an_unknown_layer_is_answered_with_a_list() -> None:
    with pytest.raises(ValueError, match=r"'conv9' is no layer[\s\S]*4: Flatten[\s\S]*5: Linear"):
        Frozen(convolutional(), "conv9")


def test_layers_come_with_their_shapes() -> None:
    frozen = Frozen(convolutional(), "0", x_shape=(1, 4, 4))
    layers = frozen.layers()
    assert layers["2"] == ("ReLU", (3, 4, 4))
    assert layers["5"] == ("Linear", (5,))
    with pytest.raises(ValueError, match="shape of x is not known yet"):
        Frozen(convolutional(), "0").layers()


def test_a_bypassed_layer_has_no_head() -> None:
    frozen = Frozen(Branching(), "first")
    representation = frozen.representation(torch.randn(5, 6))
    with pytest.raises(ValueError, match=r"no function of the representation at 'first'.*skip"):
        frozen.head(representation)


def test_tokens_that_are_not_all_that_is_read_have_no_head() -> None:
    frozen = Frozen(Transformer(), "block", tokens=1)
    representation = frozen.representation(torch.randn(5, 7, 3))
    with pytest.raises(ValueError, match="reads more of the layer than tokens=1"):
        frozen.head(representation)


@pytest.mark.parametrize(
    ("layer", "tokens", "message"),
    [
        ("embed", 9, "token 9 is none of the 7"),
        ("out", 0, r"needs a layer that gives \(batch, tokens, features\), 'out' gives"),
    ],
)
def test_tokens_must_be_there(layer: str, tokens: int, message: str) -> None:
    frozen = Frozen(Transformer(), layer, tokens=tokens)
    with pytest.raises(ValueError, match=message):
        frozen.representation(torch.randn(5, 7, 3))


def test_tokens_are_a_number_or_the_mean() -> None:
    with as_a_user(), pytest.raises(ValueError, match='None, "mean" or the number'):
        Frozen(Transformer(), "block", tokens="cls")  # pyright: ignore[reportArgumentType]


def test_a_layer_without_a_tensor_is_refused() -> None:
    model = nn.Sequential(nn.LSTM(3, 4))
    with pytest.raises(TypeError, match="'0' gives a tuple, expected a tensor"):
        Frozen(model, "0").representation(torch.randn(2, 5, 3))


def test_a_layer_that_does_not_run_is_refused() -> None:
    model = Branching()
    model.unused = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="took no part"):
        Frozen(model, "unused").representation(torch.randn(2, 6))


def test_only_modules_are_frozen() -> None:
    with as_a_user(), pytest.raises(TypeError, match="must be a torch module, got builtin"):
        Frozen(torch.relu, "0")  # pyright: ignore[reportArgumentType]


def test_a_representation_of_another_shape_is_refused() -> None:
    frozen = Frozen(convolutional(), "0", x_shape=(1, 4, 4))
    with pytest.raises(ValueError, match=r"shape \(3, 4, 4\), got \(48,\)"):
        frozen.head(torch.randn(2, 48))


class Coder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(6, 4), nn.Linear(4, 6)

    def encode(self, x: Tensor) -> Tensor:
        return self.down(x)

    def decode(self, code: Tensor) -> Tensor:
        return self.up(code)


def test_an_autoencoder_is_opened_at_its_code() -> None:
    coder, classifier = Coder(), nn.Linear(6, 3)
    frozen = Frozen.autoencoder(coder, classifier)
    x = torch.randn(5, 6)
    code = frozen.representation(x)
    assert torch.equal(code, coder.encode(x))
    assert torch.allclose(frozen.head(code), classifier(coder.decode(code)), atol=1e-6)
    assert torch.allclose(frozen.predict(x), classifier(coder.decode(coder.encode(x))), atol=1e-6)
    assert frozen.decoder is not None
    assert torch.equal(frozen.decoder(code), coder.decode(code))
    assert Frozen(convolutional(), "0").decoder is None


def test_an_autoencoder_needs_both_directions() -> None:
    with pytest.raises(TypeError, match="Linear has no encode"):
        CodeClassifier(nn.Linear(2, 2))


@pytest.mark.parametrize("takes", ["numpy", "torch"])
def test_a_black_box_is_known_by_its_answers(takes: Literal["numpy", "torch"]) -> None:
    weight = torch.randn(4, 3)

    def predict(x: Any) -> Any:
        assert isinstance(x, np.ndarray) == (takes == "numpy")
        answers = (torch.as_tensor(x) @ weight).softmax(1)
        return answers.numpy() if takes == "numpy" else answers

    frozen = Frozen.black_box(predict, x_shape=(4,), takes=takes)
    x = torch.rand(5, 4, requires_grad=True)
    wanted = (x @ weight).softmax(1).detach()
    assert not frozen.differentiable
    assert torch.allclose(frozen.representation(x), wanted, atol=1e-6)
    assert torch.allclose(frozen.predict(x).exp(), wanted, atol=1e-6)
    assert torch.allclose(frozen.head(wanted).exp(), wanted, atol=1e-6)


def test_answers_that_are_no_probabilities_are_refused() -> None:
    x = torch.rand(5, 4)
    with pytest.raises(ValueError, match="with sums up to 8, expected probabilities"):
        Frozen.black_box(lambda x: 2 * np.ones((len(x), 4))).predict(x)
    with pytest.raises(ValueError, match=r"shape \(5,\) to 5 inputs, expected"):
        Frozen.black_box(lambda x: np.ones(len(x))).predict(x)
    with as_a_user(), pytest.raises(ValueError, match='must be "numpy" or "torch", got \'jax\''):
        Frozen.black_box(len, takes="jax")  # type: ignore[arg-type]


def test_an_answer_that_is_no_tensor_is_explained() -> None:
    class Answer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.layer(x)}

    frozen = Frozen(Answer(), "layer")
    assert frozen.representation(torch.rand(2, 4)).shape == (2, 3)
    with as_a_user(), pytest.raises(TypeError, match=r"answers with a dict, expected logits"):
        frozen.predict(torch.rand(2, 4))


def test_another_layer_of_the_same_network() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    frozen = Frozen(net, "0", x_shape=(4,), preprocess=nn.Tanh())
    other = frozen.at("1")
    x = torch.randn(5, 4)
    assert torch.equal(other.representation(x), net[:2](x.tanh()))
    assert other.fingerprint == frozen.fingerprint
    assert list(frozen.outputs(x)) == ["0", "1", "2"]
    assert torch.equal(frozen.outputs(x)["2"], frozen.predict(x))
    with pytest.raises(ValueError, match="'5' is no layer"):
        frozen.at("5")
