"""A supervised VAE of a network's own answers."""

import pytest
import torch
from torch import nn

import svae
from svae.distilling import answered, distillation_gap
from tests.unchecked import as_a_user


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_answers_are_soft_labels() -> None:
    net, data = network(), svae.data.Digits()
    frozen = svae.Frozen(net, "1", x_shape=(1, 8, 8))
    found = answered(frozen, data)
    assert found.train.y is not None
    wanted = net(data.train.floats()).softmax(1).detach()
    assert torch.allclose(found.train.y, wanted, atol=1e-6)
    assert torch.equal(found.test.x, data.test.x)
    assert found.class_names == data.class_names


def test_the_gap_is_between_the_two_answers() -> None:
    class Fixed:
        def predict(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[2.0, 0.0]]).expand(len(x), 2)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    x = torch.tensor([[2.0, 0.0], [0.0, 2.0], [5.0, 0.0], [0.0, 1.0]])
    frozen = svae.Frozen(Net(), "layer")
    with as_a_user():
        share, nats = distillation_gap(Fixed(), frozen, x)  # type: ignore[arg-type]
    assert share.value == pytest.approx(0.5)
    p, q = x.softmax(1), torch.tensor([[2.0, 0.0]]).softmax(1)
    assert nats.value == pytest.approx(float((p * (p / q).log()).sum(1).mean()), abs=1e-5)


@pytest.mark.filterwarnings("ignore::svae.training.CollapsedBlock")
def test_a_vae_learns_the_answers() -> None:
    data = svae.data.Digits()
    net = network()
    for weight in net.parameters():
        weight.data *= 20.0  # answers that are sure
    frozen = svae.Frozen(net, "1", x_shape=(1, 8, 8))
    split = svae.LatentSplit(n_class=4, n_nuisance=4)
    vae = svae.SVAE.for_images((1, 8, 8), n_classes=10, split=split, width=8)
    x = data.test.floats()
    before = distillation_gap(vae.eval(), frozen, x)
    svae.fit(vae, answered(frozen, data), max_epochs=10, enable_progress_bar=False, compile=False)
    after = distillation_gap(vae, frozen, x)
    assert after[0].value < 0.6 * before[0].value
    assert after[1].value < before[1].value
