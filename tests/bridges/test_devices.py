"""Every bridge is fitted and draws on any device, the same as elsewhere."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import svae
from svae.bridges import (
    Adversarial,
    Autoencoder,
    BagOfWords,
    Classes,
    ConceptBridge,
    Frozen,
    Pairs,
)
from svae.factorization import parts

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
Bridge = ConceptBridge | svae.InvarianceBridge


def frozen() -> Frozen:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))
    return Frozen(net, "1", x_shape=(1, 8, 8))


def concept_bridge(autoencoder: Autoencoder) -> ConceptBridge:
    code = Frozen.autoencoder(autoencoder, frozen().model)
    x = svae.data.Digits().train.floats(limit=200)
    concepts = [Classes(), Pairs("light", x, 0.5 * x, differ=True)]
    return ConceptBridge(code, concepts, dims={"light": 1}, n_blocks=2, hidden=(16,))


def invariance_bridge(autoencoder: Autoencoder) -> svae.InvarianceBridge:
    return svae.InvarianceBridge(frozen(), autoencoder, n_blocks=2, hidden=(16,), context=8)


def fit(model: nn.Module, device: str) -> None:
    svae.fit(
        model,
        svae.data.Digits(),
        max_epochs=1,
        enable_progress_bar=False,
        accelerator=device,
        devices=1,
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("make", [concept_bridge, invariance_bridge])
def test_a_bridge_is_fitted_and_draws_on_any_device(
    make: Callable[[Autoencoder], Bridge], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.cudnn.allow_tf32", False)
    autoencoder = Autoencoder((1, 8, 8), n_code=12, width=8)
    fit(Adversarial(autoencoder, width=8), device)
    bridge = make(autoencoder.cpu())
    fit(bridge, device)
    here, there = bridge.cpu(), copy.deepcopy(bridge).to(device)
    x = torch.rand(5, 1, 8, 8)
    drawn = svae.resample_nuisance(there, x.to(device), 3, torch.Generator().manual_seed(0))
    assert drawn.device.type == device
    wanted = svae.resample_nuisance(here, x, 3, torch.Generator().manual_seed(0))
    assert torch.allclose(drawn.cpu(), wanted, atol=1e-3)
    for name in parts(bridge):
        swapped = svae.editing.swap_part(there, x.to(device), x.flip(0).to(device), name)
        wanted = svae.editing.swap_part(here, x, x.flip(0), name)
        assert torch.allclose(swapped.cpu(), wanted, atol=1e-3), name


@pytest.mark.parametrize("device", DEVICES)
def test_edits_are_shown_on_any_device(device: str) -> None:
    bridge = invariance_bridge(Autoencoder((1, 8, 8), n_code=12, width=8).eval()).eval()
    fit(bridge, device)
    show = bridge.decoder(torch.linspace(-1, 1, 12)).to(device)
    representation = bridge.frozen.representation(torch.rand(3, 1, 8, 8, device=device))
    with torch.no_grad():
        assert show(representation).device.type == device


@pytest.mark.parametrize("device", DEVICES)
def test_captions_are_translated_on_any_device(device: str) -> None:
    captions = ["a one", "a two"] * 10
    words = BagOfWords.of(captions)
    bridge = svae.TranslationBridge(
        words, Autoencoder((1, 8, 8), n_code=5, width=8).to(device), n_blocks=2, hidden=(8,)
    )
    svae.fit(
        bridge.cpu(),
        svae.data.paired(captions, torch.rand(20, 1, 8, 8)),
        max_epochs=1,
        enable_progress_bar=False,
        accelerator=device,
        devices=1,
    )
    drawn = bridge.to(device).translate(["a two"], 3, torch.Generator().manual_seed(0))
    assert drawn.device.type == device
    wanted = bridge.cpu().translate(["a two"], 3, torch.Generator().manual_seed(0))
    assert torch.allclose(drawn.cpu(), wanted, atol=1e-4)
