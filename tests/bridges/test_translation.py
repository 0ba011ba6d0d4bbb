"""Translation: a conditional flow against closed forms, and what users give it that is wrong."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import svae
from svae import translating
from svae.auditing import AuditSettings
from svae.bridges import BagOfWords, Labels, MeanTranslator, TranslationObjective, Vectors
from svae.data import PairedData, paired
from svae.factorization import check_protocol
from svae.latent import Latent
from tests.translators import Net, Shift, linear_pairs, pictures, small
from tests.unchecked import as_a_user


@pytest.fixture(scope="module")
def fitted() -> tuple[svae.TranslationBridge, MeanTranslator, PairedData]:
    c, y = linear_pairs()
    data = paired(c, y, bounded=False)
    bridge = small()
    objective = svae.bridges.TranslationObjective(noise=0.0)
    svae.fit(bridge, data, objective=objective, max_epochs=25, enable_progress_bar=False)
    mean = MeanTranslator(Vectors(2), Shift(), context=32, hidden=(32,))
    svae.fit(mean, data, max_epochs=15, enable_progress_bar=False)
    return bridge, mean, data


def test_the_density_reaches_that_of_a_linear_gaussian(
    fitted: tuple[svae.TranslationBridge, MeanTranslator, PairedData],
) -> None:
    bridge, _, data = fitted
    y, c = data.test.floats(), data.source_inputs["test"]
    with torch.no_grad():
        nll = -bridge.log_prob(bridge.code(y), c).mean() + bridge.units.scale.log().sum()
    # H(y given c) of three independent normals of that noise; a flow of finite size is above it.
    least = 3 * (0.5 * math.log(2 * math.pi * math.e) + math.log(0.3))
    assert least - 0.15 < float(nll) < least + 0.25


def test_draws_have_the_mean_and_spread_of_what_is_left_open(
    fitted: tuple[svae.TranslationBridge, MeanTranslator, PairedData],
) -> None:
    bridge, _, _ = fitted
    c = torch.tensor([[0.5, -1.0]])
    drawn = bridge.translate(c, n=2000, generator=torch.Generator().manual_seed(0))[:, 0]
    code = 2 * drawn - 1
    assert torch.allclose(code.mean(0), torch.tensor([0.5, -0.25, 1.0]), atol=0.1)
    assert torch.allclose(code.std(0), torch.full((3,), 0.3), atol=0.08)


def test_decoding_is_the_inverse_of_encoding() -> None:
    bridge = small().eval()
    _, y = linear_pairs(50)
    c = torch.randn(50, 2)
    with torch.no_grad():
        latent = bridge.latent(y, c)
        assert torch.allclose(bridge.decode(latent), y, atol=1e-4)


def test_likeness_is_the_v_of_an_exemplar(
    fitted: tuple[svae.TranslationBridge, MeanTranslator, PairedData],
) -> None:
    bridge, _, data = fitted
    y, c = data.test.floats(), data.source_inputs["test"]
    assert torch.allclose(bridge.like(c, y, of=c), y, atol=1e-4)
    other = c.roll(1, 0)
    moved = bridge.like(other, y, of=c)
    # It is a draw given the other source: its noise has the size that draws have.
    mix = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, -1.0]])
    noise = (2 * moved - 1) - other @ mix.T
    assert torch.allclose(noise.mean(0), torch.zeros(3), atol=0.08)
    assert torch.allclose(noise.std(0), torch.full((3,), 0.3), atol=0.08)
    # And it is this exemplar's: with the like of its own source it comes back.
    assert torch.allclose(bridge.like(c, moved, of=other), y, atol=1e-3)
    y, c, other = y[:5], c[:5], other[:5]
    assert bridge.like(other, y[:1], of=c[:1]).shape == y.shape
    with pytest.raises(ValueError, match="got 2 exemplars for 5 inputs"):
        bridge.like(other, y[:2], of=c[:2])


def test_a_bridge_from_a_network_is_a_factorization(tmp_path: Path) -> None:
    frozen = svae.Frozen(Net(), "first", x_shape=(1, 8, 8))
    target = svae.bridges.Autoencoder((1, 8, 8), n_code=5, width=8)
    bridge = svae.TranslationBridge(frozen, target, n_blocks=2, hidden=(16,), context=8)
    data = pictures()
    svae.fit(bridge, data, max_epochs=1, enable_progress_bar=False)
    check_protocol(bridge, data.test.floats(limit=4))
    result = svae.audit(
        bridge, data, svae_judge(), AuditSettings(n_codes=60, n_test=60, n_flips=10)
    )
    assert "preservation" in result.flat()
    assert torch.equal(bridge.predict(data.test.floats()), frozen.predict(data.test.floats()))
    bridge.save(tmp_path)
    again = svae.load(tmp_path, source=svae.Frozen(frozen.model, "first"))
    x = data.test.floats(limit=4)
    assert torch.equal(again.encode(x).z_nuisance, bridge.encode(x).z_nuisance)
    other = svae.Frozen(Net(), "first")
    with pytest.raises(ValueError, match="another frozen network"):
        svae.load(tmp_path, source=other)
    with pytest.raises(ValueError, match=r"the source of .* is not from this package"):
        svae.load(tmp_path)


SHADES = ["dark", "grey", "bright"]


@pytest.mark.parametrize(
    ("source", "view"),
    [
        (Labels(3), lambda x: x.argmax(-1).sum((1, 2)) % 3),
        (
            BagOfWords(["pixel", *SHADES], answers=SHADES),
            lambda x: [f"{SHADES[int(3 * one)]} pixel" for one in x[:, 0, 0, 0].clamp(max=0.99)],
        ),
        (Vectors(3, head=lambda r: 5 * r), lambda x: x[:, 0, 0, :3]),
    ],
    ids=["labels", "words", "vectors"],
)
def test_a_bridge_from_what_answers_is_audited_and_reported(
    source: Any, view: Any, tmp_path: Path
) -> None:
    target = svae.bridges.Autoencoder((1, 8, 8), n_code=5, width=8)
    bridge = svae.TranslationBridge(source, target, view, n_blocks=2, hidden=(16,), context=8)
    data = pictures()
    svae.fit(bridge, data, max_epochs=1, enable_progress_bar=False)
    check_protocol(bridge, data.test.floats(limit=4))
    settings = AuditSettings(n_codes=60, n_test=60, n_flips=10)
    assert "preservation" in svae.audit(bridge, data, svae_judge(), settings).flat()
    if isinstance(source, BagOfWords):
        page = svae.report(bridge, data, tmp_path, judge=svae_judge())
        assert page.stat().st_size > 20_000


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_target_of_another_precision_is_translated_to(dtype: torch.dtype) -> None:
    target = svae.bridges.Autoencoder((1, 8, 8), n_code=5, width=8).to(dtype)
    bridge = svae.TranslationBridge(Vectors(3), target, n_blocks=2, hidden=(16,), context=8)
    data = pictures()
    pairs = PairedData(data, lambda part: torch.eye(3)[part.y])
    svae.fit(bridge, pairs, max_epochs=1, enable_progress_bar=False)
    drawn = bridge.translate(torch.eye(3))
    assert drawn.dtype == torch.float32
    assert bridge.code(data.test.floats()).dtype == torch.float32
    assert next(target.parameters()).dtype == dtype


def test_what_is_not_paired_is_refused() -> None:
    bridge = small()
    c, y = linear_pairs(40)
    with pytest.raises(ValueError, match="30 inputs of the source came with 40 of the target"):
        translating.translated(bridge, y, c[:30])
    with pytest.raises(ValueError, match="60 inputs of the source came with 40 of the target"):
        translating.noises(bridge, y, torch.randn(60, 2))
    with pytest.raises(ValueError, match="4 inputs of the source came with 5 of the target"):
        bridge.like(c[:5], y[:5], of=c[:4])


def test_a_fit_that_is_refused_changes_nothing() -> None:
    c, y = linear_pairs(200)
    data, other = paired(c, y, bounded=False), paired(3 * c + 1, 5 * y, bounded=False)
    mean = MeanTranslator(Vectors(2), Shift(), context=8, hidden=(8,))
    svae.fit(mean, data, max_epochs=1, enable_progress_bar=False)
    bridge = svae.TranslationBridge(mean.source, mean.target, n_blocks=2, centre=mean)
    svae.fit(bridge, data, max_epochs=1, enable_progress_bar=False)
    before = {name: buffer.clone() for name, buffer in bridge.state_dict().items()}
    with pytest.raises(ValueError, match="no parameters to train"):
        svae.fit(mean, other, enable_progress_bar=False)  # it is the bridge's centre now
    other.source_inputs["train"][3] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        svae.fit(bridge, other, objective=TranslationObjective(0.7), enable_progress_bar=False)
    for name, buffer in bridge.state_dict().items():
        assert torch.equal(buffer, before[name]), name
    assert bridge.code_noise == TranslationObjective().noise


def test_a_caption_that_is_refused_is_counted_in_all() -> None:
    words = BagOfWords(["one", "two"])
    captions = ["one", "two"] * 500
    data = paired(captions, torch.rand(1000, 3), bounded=False)
    data.source_inputs["train"][703] = " "
    bridge = small(source=words)
    with pytest.raises(ValueError, match=r"number 203, ' ', .*from number 500 of the training"):
        svae.fit(bridge, data, max_epochs=1, enable_progress_bar=False)


def svae_judge() -> Any:
    from svae.judge import Judge

    torch.manual_seed(0)
    return Judge((1, 8, 8), 3).eval()


def test_a_view_is_what_the_source_sees_of_the_target(tmp_path: Path) -> None:
    class Grey(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    target = svae.bridges.Autoencoder((3, 8, 8), n_code=5, width=8)
    frozen = svae.Frozen(Grey(), "net", x_shape=(1, 8, 8))
    blind = svae.TranslationBridge(frozen, target, n_blocks=2, hidden=(16,), context=8)
    x = torch.rand(4, 3, 8, 8)
    with pytest.raises(ValueError, match=r"takes inputs of shape \(1, 8, 8\).*give view="):
        blind.encode(x)

    def view(pictures: Tensor) -> Tensor:
        return pictures.mean(1, keepdim=True)

    bridge = svae.TranslationBridge(frozen, target, view, n_blocks=2, hidden=(16,), context=8)
    assert torch.equal(bridge.eval().encode(x).z_class, frozen.representation(view(x)))
    assert bridge.translate(view(x), n=2).shape == (2, 4, 3, 8, 8)
    bridge.save(tmp_path)
    with pytest.raises(ValueError, match="has a view, which is not kept"):
        svae.load(tmp_path, source=frozen)
    again = svae.load(tmp_path, source=frozen, view=view)
    assert torch.equal(again.encode(x).z_nuisance, bridge.encode(x).z_nuisance)


def test_captions_are_translated_to_pictures(tmp_path: Path) -> None:
    captions = [f"a {size} {digit}" for digit in ("one", "two") for size in ("big", "small")] * 10
    words = BagOfWords.of(captions, answers=["one", "two"])
    target = svae.bridges.Autoencoder((1, 8, 8), n_code=5, width=8)
    bridge = svae.TranslationBridge(words, target, n_blocks=2, hidden=(16,), context=8)
    data = paired(captions, torch.rand(40, 1, 8, 8))
    svae.fit(bridge, data, max_epochs=1, enable_progress_bar=False)
    assert bridge.translate(["a big two"], n=3).shape == (3, 1, 1, 8, 8)
    bridge.save(tmp_path)
    again = svae.load(tmp_path)  # words and autoencoder are of this package
    latent = Latent(words.representation(["a small one"]), torch.zeros(1, 5))
    assert torch.equal(again.decode(latent), bridge.decode(latent))
    assert again.source.words == words.words


def test_words_that_are_not_known_are_named() -> None:
    words = BagOfWords.of(["a thick red seven", "A thin blue one!"], answers=["one", "seven"])
    assert words.predict(["one, blue"]).argmax(1).tolist() == [0]
    with pytest.raises(ValueError, match=r"'sevem' of 'a red sevem' is not known. Was seven"):
        words.representation(["a red sevem"])
    with pytest.raises(ValueError, match=r"caption number 1, ' !', has no word"):
        words.representation(["a one", " !"])
    with pytest.raises(TypeError, match=r"put it in \[\.\.\.\]"):
        words.representation("a one")
    with pytest.raises(ValueError, match="answers must be words that are known; nine"):
        BagOfWords.of(["a one"], answers=["nine"])
    with pytest.raises(ValueError, match="captions answer nothing"):
        BagOfWords.of(["a one"]).predict(["a one"])


def test_sentences_are_embedded_by_a_frozen_encoder() -> None:
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import BoW

    counts = SentenceTransformer(modules=[BoW(vocab=["red", "seven", "thin"])])
    source = svae.bridges.SentenceEncoder(counts)
    assert source.shape == (3,)
    assert torch.equal(
        source.representation(["a thin seven", "a red red one"]),
        torch.tensor([[0.0, 1.0, 1.0], [2.0, 0.0, 0.0]]),
    )
    with pytest.raises(ValueError, match="has no word"):
        source.representation([""])
    target = svae.bridges.Autoencoder((1, 8, 8), n_code=5, width=8)
    bridge = svae.TranslationBridge(source, target, n_blocks=2, hidden=(16,), context=8)
    assert not any(p.requires_grad for p in bridge.source.parameters())
    assert bridge.translate(["a red seven"], n=2).shape == (2, 1, 1, 8, 8)


def test_without_the_extra_a_sentence_encoder_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r"svae\[text\]"):
        svae.bridges.SentenceEncoder()


def test_labels_and_vectors_say_what_is_wrong() -> None:
    labels = Labels(3)
    assert labels.predict(torch.tensor([2])).argmax().item() == 2
    with pytest.raises(ValueError, match=r"labels lie in 0\.\.3, expected 0\.\.2"):
        labels.representation(torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="at least 2, got 1"):
        Labels(1)
    vectors = Vectors(2)
    with pytest.raises(ValueError, match=r"of shape \(2,\), got \(3,\)"):
        vectors.representation(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="answer nothing"):
        vectors.predict(torch.zeros(4, 2))
    answered = Vectors(2, head=nn.Identity())
    assert torch.equal(answered.predict(torch.ones(1, 2)), torch.ones(1, 2))


@pytest.mark.parametrize(
    ("source", "target", "error", "message"),
    [
        (nn.Linear(2, 2), Shift(), TypeError, "the source needs representation"),
        (Vectors(2), nn.Identity(), TypeError, "Identity has no encode"),
        (Vectors(2), nn.Module(), TypeError, "needs encode"),
    ],
)
def test_parts_that_are_none(
    source: Any, target: nn.Module, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        svae.TranslationBridge(source, target)


def test_a_target_without_a_decoder_is_refused() -> None:
    class Encoder(nn.Module):
        x_shape = (3,)

        def encode(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(TypeError, match="Encoder has no decode"):
        svae.TranslationBridge(Vectors(2), Encoder())


def test_a_target_that_says_no_shape() -> None:
    class Quiet(nn.Module):
        def encode(self, x: Tensor) -> Tensor:
            return x

        def decode(self, code: Tensor) -> Tensor:
            return code

    with pytest.raises(ValueError, match="give x_shape="):
        svae.TranslationBridge(Labels(2), Quiet())
    bridge = svae.TranslationBridge(Labels(2), Quiet(), x_shape=(4,), n_blocks=2)
    assert bridge.n_code == 4


def test_pairs_of_unequal_length() -> None:
    with pytest.raises(ValueError, match="3 inputs of the source came with 12 of the target"):
        paired(["a"] * 3, torch.rand(12, 1, 8, 8))
    with pytest.raises(ValueError, match="5 pairs are too few"):
        paired(["a"] * 5, torch.rand(5, 1, 8, 8))
    with pytest.raises(ValueError, match="of the train set"):
        PairedData(pictures(), lambda part: ["a"])


def test_pairs_that_were_cut_later_are_refused() -> None:
    c, y = linear_pairs(40)
    data = paired(c, y, bounded=False)
    data.train = data.train.subset(torch.arange(10))
    with pytest.raises(ValueError, match=r"32 inputs of the source came with 10.*pair them then"):
        svae.fit(small(), data, max_epochs=1, enable_progress_bar=False)


def test_pictures_in_the_place_of_words_and_labels() -> None:
    target = svae.bridges.Autoencoder((1, 8, 8), n_code=5, width=8)
    x = torch.rand(2, 1, 8, 8)
    words = svae.TranslationBridge(BagOfWords(["one"]), target, n_blocks=2)
    with as_a_user(), pytest.raises(TypeError, match=r"list of captions, got a tensor.*view="):
        words.encode(x)
    labels = svae.TranslationBridge(Labels(2), target, n_blocks=2)
    with as_a_user(), pytest.raises(ValueError, match=r"expected labels.*view="):
        labels.encode(x)


def test_pairs_stay_together_when_they_are_split() -> None:
    n = 50
    target = torch.arange(n).float()[:, None, None, None].expand(n, 1, 8, 8) / n
    data = paired([str(i) for i in range(n)], target)
    for name in ("train", "validation", "test"):
        part = getattr(data, name)
        numbers = (part.floats()[:, 0, 0, 0] * n).round().long().tolist()
        assert [int(text) for text in data.source_inputs[name]] == numbers
    assert len(data.train) == 40


def test_numbers_out_of_range() -> None:
    with pytest.raises(ValueError, match="noise must be at least 0"):
        svae.bridges.TranslationObjective(noise=-1.0)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        small().translate(torch.zeros(1, 2), n=0)
    with pytest.raises(ValueError, match="representations of shape"):
        small().standardised(torch.zeros(1, 5))


def test_a_source_without_an_answer_says_so() -> None:
    class Mute(nn.Module):
        shape = (2,)

        def representation(self, x: Tensor) -> Tensor:
            return x

    bridge = svae.TranslationBridge(Mute(), Shift(), view=lambda x: x[:, :2], n_blocks=2)
    with pytest.raises(ValueError, match="a Mute, answers nothing"):
        bridge.predict(torch.zeros(2, 3))
    with as_a_user(), pytest.raises(TypeError, match="needs representation"):
        svae.TranslationBridge(3, Shift())


def test_invariance_bridges_of_older_files_are_read(tmp_path: Path) -> None:
    frozen = svae.Frozen(Net(), "first", x_shape=(1, 8, 8))
    target = svae.bridges.Autoencoder((1, 8, 8), n_code=5, width=8)
    bridge = svae.InvarianceBridge(frozen, target, n_blocks=2).eval()
    bridge.save(tmp_path)
    config = json.loads((tmp_path / "model.json").read_text())
    for name in ("source_shape", "code_noise", "view", "units", "digests", "opened", "sha256"):
        del config[name]
    kept = load_file(tmp_path / "model.safetensors")
    older = {name: value for name, value in kept.items() if "units" not in name}
    assert len(older) == len(kept) - 2
    save_file(older, tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_text(json.dumps(config))
    x = torch.rand(3, 1, 8, 8)
    again = svae.load(tmp_path, frozen=svae.Frozen(frozen.model, "first"))
    assert torch.equal(again.encode(x).z_nuisance, bridge.encode(x).z_nuisance)


def test_a_sample_of_v_has_the_noise_of_the_fit(tmp_path: Path) -> None:
    bridge = svae.TranslationBridge(
        svae.Frozen(Net(), "first", x_shape=(1, 8, 8)),
        svae.bridges.Autoencoder((1, 8, 8), n_code=5, width=8),
        n_blocks=2,
    ).eval()
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(bridge.encode(x, sample=True).z_nuisance, bridge.encode(x).z_nuisance)
    objective = svae.bridges.TranslationObjective(noise=0.3)
    svae.fit(bridge, pictures(), objective=objective, max_epochs=1, enable_progress_bar=False)
    assert bridge.code_noise == 0.3
    bridge.save(tmp_path)
    assert svae.load(tmp_path, source=bridge.source).code_noise == 0.3
    # Back from v, what was added to the code is that noise.
    x = x[:1].expand(2000, -1, -1, -1)
    latent = bridge.encode(x, sample=True)
    added = bridge.code_of(latent) - bridge.code(x)
    assert torch.allclose(added.std(0), torch.full((5,), 0.3), atol=0.03)
    assert torch.allclose(added.mean(0), torch.zeros(5), atol=0.03)


def test_translations_are_repeatable() -> None:
    bridge = small().eval()
    c = torch.randn(3, 2)
    one, other = (bridge.translate(c, 2, torch.Generator().manual_seed(4)) for _ in "ab")
    assert torch.equal(one, other)
    assert not torch.equal(one[0], one[1])


def around(mean: MeanTranslator) -> svae.TranslationBridge:
    return small(mean.target, mean.source, centre=mean)


def test_a_flow_around_the_mean_is_near_the_closed_form_at_once() -> None:
    noise = 0.05  # of codes of about one: the source determines nearly all
    data = paired(*linear_pairs(noise=noise), bounded=False)
    torch.manual_seed(0)
    mean = MeanTranslator(Vectors(2), Shift(), context=32, hidden=(32,))
    svae.fit(mean, data, max_epochs=8, enable_progress_bar=False)
    least = 3 * (0.5 * math.log(2 * math.pi * math.e) + math.log(noise))
    excess = {}
    for name, bridge in (("around", around(mean)), ("alone", small())):
        objective = svae.bridges.TranslationObjective(noise=0.0)
        svae.fit(bridge, data, objective=objective, max_epochs=3, enable_progress_bar=False)
        code, shown = bridge.code(data.test.floats()), data.source_inputs["test"]
        with torch.no_grad():
            nll = -bridge.log_prob(code, shown).mean() + bridge.units.scale.log().sum()
        excess[name] = float(nll) - least
    assert -0.2 < excess["around"] < 0.4
    assert excess["alone"] > excess["around"] + 0.5


def test_a_centre_moves_codes_and_changes_no_volume(tmp_path: Path) -> None:
    c, y = linear_pairs(600)
    torch.manual_seed(0)
    mean = MeanTranslator(Vectors(2), Shift(), context=32, hidden=(32,))
    data = paired(c, y, bounded=False)
    svae.fit(mean, data, max_epochs=2, enable_progress_bar=False)
    before = mean.code_of(c[:5])
    bridge = around(mean)
    # Other pairs than the centre's: the codes of the bridge have other units.
    svae.fit(bridge, paired(c, 3 * y, bounded=False), max_epochs=2, enable_progress_bar=False)
    assert torch.equal(mean.code_of(c[:5]), before)
    bridge.double()
    c, y = c[:5].double(), y[:5].double()
    code = bridge.code(y)
    middle = mean.units.inverse(mean.code_of(c))
    assert torch.allclose(bridge.units.inverse(bridge.start(c)), middle)
    v, log_det = bridge.noise(code, c)
    assert torch.allclose(bridge.code_of(Latent(c, v)), code)
    of_one = torch.func.jacrev(lambda one: bridge.noise(one[None], c[:1])[0][0])(code[0])
    assert torch.allclose(torch.linalg.slogdet(of_one).logabsdet, log_det[0])
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(v).sum(1)
    assert torch.allclose(bridge.log_prob(code, c), normal + log_det)
    # Draws are what standard normal v decode to.
    drawn = bridge.sample_codes(c, 500, torch.Generator().manual_seed(0))
    back = bridge.noise(drawn.flatten(0, 1), c.repeat(500, 1))[0]
    assert torch.allclose(back.mean(), torch.zeros(()).double(), atol=0.05)
    assert torch.allclose(back.std(), torch.ones(()).double(), atol=0.05)

    bridge.float().save(tmp_path)
    again = svae.load(tmp_path, target=bridge.target)
    latent = Latent(c.float(), v.float())
    assert torch.equal(again.code_of(latent), bridge.code_of(latent))
    with pytest.raises(ValueError, match="another source or to another target"):
        svae.TranslationBridge(Vectors(2), bridge.target, centre=mean)


def test_labels_and_vectors_come_in_lists_too() -> None:
    assert Labels(3).representation([2, 0]).argmax(1).tolist() == [2, 0]
    assert Vectors(2).representation([[1, 2.5]]).tolist() == [[1.0, 2.5]]
    with as_a_user(), pytest.raises(TypeError, match=r"begins with 'cat': .*names\.index\(name\)"):
        Labels(3).representation(["cat", "dog"])  # pyright: ignore[reportArgumentType]
    with as_a_user(), pytest.raises(TypeError, match="expected representations of shape"):
        Vectors(2).representation(["cat"])
