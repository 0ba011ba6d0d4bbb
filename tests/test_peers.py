"""Models of the comparison against closed forms, and what they are to a user of the protocol."""

import math
from typing import Any

import pytest
import torch
from torch import distributions
from torch.nn import functional

import svae
from benchmarks.peers import CCVAE, CVAE, DIVA, IBINN, M1M2, M2, VIB, Classifier, VAEClassifier
from benchmarks.peers.common import Gaussian, Sizes, answering, bernoulli
from benchmarks.peers.generators import GAN, TwoStage
from svae.factorization import check_protocol, read

SIZES = Sizes((1, 8, 8), 10, n_class=4, n_nuisance=6, width=8)


def made(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "M1M2":
        return M1M2(VAEClassifier(SIZES)).eval()
    if kind == "TwoStage":
        return TwoStage(VAEClassifier(SIZES)).eval()
    if kind == "IBINN":
        coder = svae.bridges.Autoencoder((1, 8, 8), n_code=16, width=8)
        return IBINN(coder, SIZES, 16).eval()
    kinds = (Classifier, VAEClassifier, M2, CVAE, VIB, CCVAE, DIVA, GAN)
    return next(one for one in kinds if one.__name__ == kind)(SIZES).eval()


SPLIT = ("VAEClassifier", "M2", "M1M2", "CVAE", "CCVAE", "DIVA", "IBINN")
GENERATE = (*SPLIT, "TwoStage", "GAN")
BOUND = ("VAEClassifier", "M2", "M1M2", "CVAE", "CCVAE", "DIVA")


def test_gaussians_are_those_of_torch() -> None:
    a, b = (Gaussian(torch.randn(5, 3), 0.3 * torch.randn(5, 3)) for _ in range(2))
    p, q = (distributions.Normal(one.loc, one.log_scale.exp()) for one in (a, b))
    z = torch.randn(5, 3)
    assert torch.allclose(a.log_prob(z), p.log_prob(z).sum(-1), atol=1e-5)
    assert torch.allclose(a.divergence(b), distributions.kl_divergence(p, q).sum(-1), atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 1, 8, 8), (4, 7)])
def test_likelihoods_are_those_of_torch(shape: tuple[int, ...]) -> None:
    logits, x = torch.randn(shape), torch.rand(shape)
    found = -functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
    assert torch.allclose(bernoulli(logits, x), found.flatten(1).sum(1), atol=1e-4)


@pytest.mark.parametrize("kind", SPLIT)
def test_a_split_peer_is_a_factorization(kind: str) -> None:
    peer, x = made(kind), torch.rand(6, 1, 8, 8)
    check_protocol(peer, x)
    with torch.no_grad():
        latent = peer.encode(x)
        assert latent.z_class.shape[0] == latent.z_nuisance.shape[0] == 6
        assert torch.equal(peer.encode(x).z_nuisance, latent.z_nuisance)
        # What a latent is read as depends on its class part alone.
        moved = latent._replace(z_nuisance=latent.z_nuisance + 1)
        assert torch.equal(read(peer, latent), read(peer, moved))
        assert not torch.allclose(peer.decode(latent), peer.decode(moved))


@pytest.mark.parametrize("kind", ["VAEClassifier", "CCVAE", "DIVA", "IBINN"])
def test_the_class_part_holds_the_whole_answer(kind: str) -> None:
    peer, x = made(kind), torch.rand(6, 1, 8, 8)
    with torch.no_grad():
        answer = peer.predict(x).log_softmax(-1)
        assert torch.allclose(read(peer, peer.encode(x)).log_softmax(-1), answer, atol=1e-4)


def test_the_nuisance_of_a_vae_is_what_its_classifier_does_not_read() -> None:
    vae = made("VAEClassifier")
    read_, rest = vae.basis()
    assert torch.allclose(read_.T @ rest, torch.zeros(9, 1), atol=1e-5)
    logits = vae.head(rest.T).detach()
    spread = (
        logits - logits.mean(1, keepdim=True) - (vae.head.bias - vae.head.bias.mean()).detach()
    )
    assert float(spread.abs().max()) < 1e-5
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        plain = vae.decoder(vae.posterior(vae.trunk(x)).loc).sigmoid()
        assert torch.allclose(svae.reconstruct(vae, x), plain, atol=1e-5)


def test_a_flow_with_class_means_is_standard_normal_across_them() -> None:
    flow = made("IBINN")
    along, across = flow.basis()
    differences = (flow.means - flow.means.mean(0)).detach()
    assert float((differences @ across).abs().max()) < 1e-5
    assert along.shape == (16, 9)
    x = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        again = svae.reconstruct(flow, x)
        assert torch.allclose(again, flow.autoencoder.decode(flow.code(x)), atol=1e-4)


@pytest.mark.parametrize("kind", BOUND)
def test_more_draws_tighten_the_bound(kind: str) -> None:
    peer, x = made(kind), torch.rand(8, 1, 8, 8)
    with torch.no_grad():
        weights = peer.log_weights(x, 60)
    assert weights.shape == (60, 8)
    elbo, iwae = weights.mean(0), weights.logsumexp(0) - math.log(60)
    assert bool((iwae > elbo).all())


def test_unlabelled_examples_sum_the_bound_over_labels() -> None:
    m2, x = made("M2"), torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        m2.head.weight.zero_()
        m2.head.bias.zero_()
        m2.head.bias[3] = 50.0  # q(y given x) is certain of class 3
        torch.manual_seed(0)
        _, unlabelled = m2.loss(x, torch.full((4,), -1))
        bounds = []
        for _ in range(200):
            _, labelled = m2.loss(x, torch.full((4,), 3))
            bounds.append(float(labelled["bound"]))
    assert float(unlabelled["bound"]) == pytest.approx(sum(bounds) / 200, abs=2.0)


def test_a_label_that_explains_best_is_the_answer_of_a_conditional_vae() -> None:
    data = svae.data.Digits()
    torch.manual_seed(0)
    cvae = CVAE(SIZES)
    svae.fit(cvae, data, max_epochs=12, enable_progress_bar=False, compile=False)
    with torch.no_grad():
        x, y = data.test.floats(), data.test.y
        assert y is not None
        assert float((cvae.predict(x).argmax(1) == y).float().mean()) > 0.75
        # Its bound without the label draws that from the answer, so that little is lost.
        given = cvae.bound(cvae.trunk(x), x, cvae.one_hot(y)).mean()
        assert float(cvae.log_weights(x, 4).mean()) > float(given) - 1.0


def test_the_classifier_of_characteristic_captures_is_moved_by_the_bound() -> None:
    peer, x, y = made("CCVAE"), torch.rand(64, 1, 8, 8), torch.arange(64) % 10
    found = []
    for _ in range(60):
        loss = peer.loss(x, y)[0]
        found.append(torch.cat(torch.autograd.grad(loss, [peer.weight, peer.bias])))
    each = torch.stack(found)
    # Of a weight that is not learnt through, its terms cancel: the mean is .03 then, all noise.
    assert float(each.mean(0).norm()) > 0.5


@pytest.mark.parametrize("kind", GENERATE)
def test_samples_are_pictures_and_repeatable(kind: str) -> None:
    peer, y = made(kind), torch.arange(10)
    with torch.no_grad():
        first, again = (peer.sample(y, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.shape == (10, 1, 8, 8)
    assert torch.equal(first, again)
    assert bool(((first >= 0) & (first <= 1)).all())


@pytest.mark.parametrize("kind", ["Classifier", "VIB", *GENERATE])
def test_every_peer_learns_by_the_one_loop(kind: str) -> None:
    data, peer = svae.data.Digits(), made(kind)
    assert data.train.y is not None
    x, y = data.train.floats(limit=256), data.train.y[:256]
    peer.train()
    parameters = [p for p in peer.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, 2e-3)
    values = []
    for step in range(100 if kind == "M1M2" else 30):  # which learns of codes that say little
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss, named = peer.loss(x, y)
        loss.backward()
        optimizer.step()
        values.append(float(named["loss"]))
        assert bool(loss.isfinite())
    if kind != "GAN":  # two players
        assert sum(values[-5:]) < sum(values[:5])
    svae.fit(peer, data, max_epochs=1, enable_progress_bar=False, compile=False)


def test_draws_are_sorted_by_their_answer() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.tensor([2, 0, 1, 2])
    found = answering(lambda n: torch.rand(n, 3, generator=generator), lambda x: x, y, n_each=20)
    assert torch.equal(found.argmax(1), y)


def test_pythae_is_trained_and_drawn_from_by_its_own_api() -> None:
    from benchmarks.peers.pythae_models import PythaeVAE

    data, y = svae.data.Digits(), torch.arange(10)
    peer = PythaeVAE(SIZES, flow_prior=True)
    peer.fit(data, 10, seed=0)
    with torch.no_grad():
        right = peer.predict(data.test.floats()).argmax(1) == data.test.y
        assert peer.sample(y).shape == (10, 1, 8, 8)
    assert float(right.float().mean()) > 0.5
