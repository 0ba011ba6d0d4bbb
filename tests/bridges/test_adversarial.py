"""Decoders trained against a critic: who learns from what."""

import pytest
import torch
from torch import Tensor, nn

import svae
from svae.bridges import Adversarial, Autoencoder, Frozen, Perceptual, TableAutoencoder
from svae.bridges.adversarial import PatchCritic
from svae.compilation import CompiledLoss
from svae.data import ArrayData, ArraySet


def gradients(model: Adversarial, x: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(0)  # the noise on the code
    model.loss(x)[0].backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def pair() -> tuple[Adversarial, Tensor]:
    torch.manual_seed(0)
    autoencoder = Autoencoder((1, 8, 8), n_code=3, width=8)
    return Adversarial(autoencoder, weight=0.5, width=8).train(), torch.rand(16, 1, 8, 8)


def test_decoder_learns_to_fool_and_critic_to_tell() -> None:
    model, x = pair()
    gradients(model, x)  # settles the spectral norms a little
    model.weight = 0.0
    alone = gradients(model, x)
    model.network.zero_grad()
    torch.manual_seed(0)
    plain = Autoencoder((1, 8, 8), n_code=3, width=8).train()
    plain.load_state_dict(model.network.state_dict())
    torch.manual_seed(0)
    plain.loss(x)[0].backward()
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None
        # Batch statistics move in between, their normalised values do not.
        assert torch.allclose(alone[f"network.{name}"], parameter.grad, atol=1e-6), name
    model.weight = 5.0
    both = gradients(model, x)
    fools = [n for n in both if n.startswith("network.decoder")]
    assert any(not torch.allclose(both[n], alone[n]) for n in fools)


def test_the_critic_learns_nothing_from_being_fooled() -> None:
    model, x = pair()
    for one in model.critic.modules():
        one.eval()  # spectral norms stay as they are
    model.weight = 0.0
    before = gradients(model, x)
    model.weight = 100.0
    after = gradients(model, x)
    critic = [name for name in before if name.startswith("critic.")]
    assert critic
    for name in critic:
        assert torch.allclose(before[name], after[name], atol=1e-7), name


def test_spectral_norm_bounds_every_layer() -> None:
    torch.manual_seed(0)
    critic = PatchCritic(1, 8).train()
    for one in critic.net:
        if isinstance(one, nn.Conv2d):
            one.parametrizations.weight.original.data *= 50  # pyright: ignore
    for _ in range(50):
        critic(torch.rand(4, 1, 8, 8))
    for one in critic.net:
        if isinstance(one, nn.Conv2d):
            assert torch.linalg.matrix_norm(one.weight.flatten(1), 2) < 1.05


def stripes(n: int) -> Tensor:
    """Pictures of a grey square whose every pixel is black or white by chance: all texture."""
    return (torch.rand(n, 1, 8, 8) < 0.5).float()


def test_a_critic_puts_texture_where_the_code_knows_nothing() -> None:
    torch.manual_seed(0)
    x = stripes(256)
    y = torch.zeros(256, dtype=torch.int64)
    train = ArraySet(x, y)
    data = ArrayData(train, train, train, ("any",), batch_size=32)
    contrast = {}
    for weight in (0.0, 0.2):
        torch.manual_seed(0)
        autoencoder = Autoencoder((1, 8, 8), n_code=2, width=16)
        svae.fit(
            Adversarial(autoencoder, weight, 16),
            data,
            max_epochs=12,
            enable_progress_bar=False,
            recipe=svae.training.Recipe(learning_rate=3e-3),
        )
        with torch.no_grad():
            drawn = autoencoder.decode(autoencoder.encode(x))
        contrast[weight] = float((drawn - 0.5).abs().mean())
    assert contrast[0.2] > 1.4 * contrast[0.0], contrast


def test_it_goes_around_a_perceptual_loss_too() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    frozen = Frozen(net, "1", x_shape=(1, 8, 8))
    model = Adversarial(Perceptual(Autoencoder((1, 8, 8), 3, 8), frozen), width=8)
    loss, found = model.loss(torch.rand(6, 1, 8, 8))
    assert {"perceptual", "fooled", "critic", "absolute_error", "loss"} <= set(found)
    expected = found["loss"] + model.weight * found["fooled"] + found["critic"]
    assert torch.allclose(loss, expected)


def test_the_game_in_one_graph_is_the_game_as_written() -> None:
    values = []
    for compiled in (False, True):
        model, x = pair()
        loss = CompiledLoss(model.loss, model, compiler=False) if compiled else model.loss
        for step in range(2):  # a spectral norm goes on from step to step
            model.zero_grad()
            torch.manual_seed(step)
            loss(x)[0].backward()
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        values.append(found | dict(model.named_buffers()))
    assert list(values[0]) == list(values[1])
    for name, value in values[0].items():
        assert torch.allclose(value, values[1][name], atol=1e-5, rtol=1e-4), name


def test_losses_of_a_game_do_not_choose_an_epoch() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    frozen = Frozen(net, "1", x_shape=(1, 8, 8))
    game = Adversarial(Autoencoder((1, 8, 8), 3, 8), width=8)
    assert Autoencoder((1, 8, 8)).losses_compare
    assert Perceptual(Autoencoder((1, 8, 8), 3, 8), frozen).losses_compare
    assert not game.losses_compare
    assert not Perceptual(game, frozen).losses_compare


def test_bad_critics_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Adversarial(Autoencoder((1, 8, 8)), weight=-1.0)
    with pytest.raises(ValueError, match="looks at pictures"):
        Adversarial(TableAutoencoder((5,)))
