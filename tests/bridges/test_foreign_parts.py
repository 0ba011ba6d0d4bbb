"""Sources and targets that somebody else wrote: scales, modes, types, and what is wrong."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import svae
from svae.bridges import BagOfWords, Labels, MeanTranslator, SentenceEncoder, UnseenUnits, Vectors
from svae.bridges.units import CodeUnits, moments
from svae.data import ArrayData, ArraySet, PairedData, paired
from svae.latent import Latent
from tests.translators import Net, Shift, linear_pairs, pictures, small
from tests.unchecked import as_a_user

QUIET: dict[str, Any] = {"enable_progress_bar": False}


class Scaled(Shift):
    """Codes a hundred times smaller and far from 0."""

    def encode(self, x: Tensor) -> Tensor:
        return 0.01 * x + 5

    def decode(self, code: Tensor) -> Tensor:
        return 100 * (code - 5)


def test_codes_of_any_scale_are_fitted_as_those_of_unit_scale() -> None:
    c, y = linear_pairs(2000)
    data = paired(c, y, bounded=False)
    nlls, spreads = [], []
    for target in (Shift(), Scaled()):
        bridge = small(target)
        svae.fit(bridge, data, max_epochs=4, **QUIET)
        code = bridge.code(data.train.floats())
        assert torch.allclose(code.mean(0), torch.zeros(3), atol=1e-2)
        assert torch.allclose(code.std(0), torch.ones(3), atol=1e-2)
        assert torch.allclose(bridge.show(code), data.train.floats(), atol=1e-4)
        with torch.no_grad():
            nlls.append(float(-bridge.log_prob(code, data.source_inputs["train"]).mean()))
        drawn = bridge.translate(torch.zeros(500, 2), 1, torch.Generator().manual_seed(0))
        spreads.append(drawn[0].std(0))
    assert nlls[0] == pytest.approx(nlls[1], abs=0.02)
    assert torch.allclose(spreads[0], spreads[1], rtol=0.05)


def test_codes_that_say_nothing_are_refused() -> None:
    units = CodeUnits(2)
    with pytest.raises(ValueError, match="all codes of the target are the same"):
        units.take(torch.ones(5, 2))
    with pytest.raises(ValueError, match="not finite"):
        units.take(torch.tensor([[0.0, 1.0], [math.nan, 2.0]]))
    units.take(torch.tensor([[0.0, 1.0], [4.0, 1.0]]))  # one dim that does not move
    assert torch.equal(
        units.inverse(units(torch.tensor([[3.0, 1.5]]))), torch.tensor([[3.0, 1.5]])
    )


def test_moments_are_those_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svae.bridges.units._ROWS", 7)
    rows = torch.cat([torch.zeros(20, 2), 1000 + torch.randn(13, 2)])  # sorted, as sets often are
    mean, spread = moments(rows)
    assert torch.allclose(mean, rows.mean(0))
    assert torch.allclose(spread, rows.std(0))


def test_classes_that_come_last_count_as_the_first() -> None:
    n = 30
    y = torch.arange(4).repeat_interleave(n)
    part = ArraySet(torch.rand(4 * n, 3), y)
    data = PairedData(ArrayData(part, part, part, tuple("abcd"), bounded=False), lambda p: p.y)
    bridge = svae.TranslationBridge(Labels(4), Shift(), n_blocks=2, hidden=(8,), context=8)
    svae.fit(bridge, data, max_epochs=1, **QUIET)
    assert bool(bridge.scale.isfinite().all())


def test_what_occurs_nowhere_is_named() -> None:
    words = BagOfWords(["one", "two", "three"])
    bridge = svae.TranslationBridge(words, Shift(), n_blocks=2, hidden=(8,), context=8)
    data = paired(["one two", "two"] * 10, torch.rand(20, 3))
    with pytest.warns(UnseenUnits, match=r"^'three': in no training example"):
        svae.fit(bridge, data, max_epochs=1, **QUIET)


class Noisy(nn.Module):
    """A source with a memory of what it has seen."""

    shape = (2,)

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(2), nn.Dropout()

    def representation(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(x))


def test_a_source_of_ones_own_keeps_every_bit() -> None:
    c, y = linear_pairs(40)
    source = Noisy()
    before = {name: value.clone() for name, value in source.state_dict().items()}
    bridge = svae.TranslationBridge(source, Shift(), n_blocks=2, hidden=(8,), context=8)
    assert not source.training
    svae.fit(bridge, paired(c, y, bounded=False), max_epochs=1, **QUIET)
    assert all(torch.equal(before[name], value) for name, value in source.state_dict().items())


def test_a_look_before_the_fit_starts_nothing() -> None:
    bridge = small()
    bridge.latent(torch.rand(2, 3), torch.zeros(2, 2))
    assert not bridge.flow.started


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64])
def test_representations_of_any_type_are_taken(dtype: torch.dtype) -> None:
    class Counts(nn.Module):
        shape = (2,)

        def representation(self, x: Tensor) -> Tensor:
            return x.to(dtype)

    bridge = svae.TranslationBridge(Counts(), Shift(), n_blocks=2, hidden=(8,), context=8)
    drawn = bridge.translate(torch.tensor([[1, 0], [0, 2]]), n=3)
    assert drawn.dtype == torch.float32
    latent = Latent(bridge.shown(torch.tensor([[1, 0]])), torch.zeros(1, 3))
    v = bridge.sample_nuisance(latent, 50)
    assert v.dtype == torch.float32
    assert len(v.unique()) == v.numel()


def test_bytes_are_pictures_on_both_sides() -> None:
    small_ones = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8)
    bridge = svae.TranslationBridge(Vectors((1, 4, 4)), Shift(), n_blocks=2, hidden=(8,))
    data = paired(small_ones, torch.rand(40, 3))
    svae.fit(bridge, data, max_epochs=1, **QUIET)
    assert float(bridge.mean.max()) < 1
    again = bridge.translate(small_ones[:2] / 255, 1, torch.Generator().manual_seed(0))
    drawn = bridge.translate(small_ones[:2], 1, torch.Generator().manual_seed(0))
    assert torch.allclose(drawn, again, atol=1e-5)


def test_a_target_that_codes_or_decodes_otherwise() -> None:
    class Posterior(Shift):
        def encode(self, x: Tensor) -> Any:
            return x, x

    class Cropping(Shift):
        def decode(self, code: Tensor) -> Tensor:
            return code[:, :2]

    with as_a_user():
        with pytest.raises(TypeError, match=r"must give a tensor of codes, got a tuple. Wrap"):
            svae.TranslationBridge(Vectors(2), Posterior())
        with pytest.raises(ValueError, match=r"decodes to \(2,\), its inputs have shape \(3,\)"):
            svae.TranslationBridge(Vectors(2), Cropping())


def test_a_target_is_fitted_before() -> None:
    target = svae.bridges.Autoencoder((1, 8, 8), n_code=5, width=8)
    svae.TranslationBridge(Vectors(2), target, n_blocks=2)
    with pytest.raises(ValueError, match="this Autoencoder has no parameters to train"):
        svae.fit(target, pictures(), max_epochs=1, **QUIET)


def test_captions_that_are_none_say_so_in_a_fit() -> None:
    words = BagOfWords(["a", "one"])
    bridge = svae.TranslationBridge(words, Shift(), n_blocks=2, hidden=(8,), context=8)
    with pytest.raises(ValueError, match=r"the word 'two' of 'a two' is not known"):
        svae.fit(bridge, paired(["a one", "a two"] * 10, torch.rand(20, 3)), **QUIET)


def test_words_are_words() -> None:
    assert BagOfWords(["Red", "seven"], answers=["SEVEN"]).words == ["red", "seven"]
    with pytest.raises(ValueError, match=r"'t-shirt' is not one word.*\['t', 'shirt'\]"):
        BagOfWords(["t-shirt"])
    with as_a_user():
        with pytest.raises(TypeError, match=r"list of words, got the one 'red'"):
            BagOfWords("red")
        with pytest.raises(TypeError, match=r"list of captions, got the one 'a red seven'"):
            BagOfWords.of("a red seven")
        with pytest.raises(TypeError, match=r"caption number 1 is None, a NoneType"):
            BagOfWords(["red"]).representation(["red", None])  # pyright: ignore


def test_sentences_answer_by_a_head() -> None:
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import BoW

    counts = SentenceTransformer(modules=[BoW(vocab=["red", "seven"])])
    assert SentenceEncoder(counts, head=nn.Identity()).predict(["a seven"]).argmax().item() == 1
    with pytest.raises(ValueError, match="these captions answer nothing"):
        SentenceEncoder(counts).predict(["a seven"])


def test_a_mean_translator_comes_back_from_its_files(tmp_path: Path) -> None:
    c, y = linear_pairs(40)
    mean = MeanTranslator(Vectors(2), Shift(), context=8, hidden=(8, 8))
    svae.fit(mean, paired(c, y, bounded=False), max_epochs=1, **QUIET)
    mean.save(tmp_path)
    again = svae.load(tmp_path, target=Shift())
    assert isinstance(again, MeanTranslator)
    assert torch.equal(again.translate(c), mean.translate(c))
    assert torch.equal(again.units.scale, mean.units.scale)


def test_other_parts_than_were_fitted_to_are_refused(tmp_path: Path) -> None:
    class Linear(Shift):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3, 3))

        def encode(self, x: Tensor) -> Tensor:
            return x @ self.weight

    target = Linear()
    bridge = svae.TranslationBridge(Vectors(2), target, n_blocks=2, hidden=(8,), context=8)
    bridge.save(tmp_path)
    svae.load(tmp_path, target=target)
    with pytest.raises(ValueError, match="fitted to another target"):
        svae.load(tmp_path, target=Linear())
    with pytest.raises(ValueError, match="fitted to another source"):
        svae.load(tmp_path, target=target, source=Labels(2))
    with pytest.raises(ValueError, match="holds a function or a model"):
        svae.load(tmp_path)

    net = Net()
    opened = svae.TranslationBridge(
        svae.Frozen(net, "first", x_shape=(1, 8, 8)), target, lambda x: x, n_blocks=2
    )
    opened.save(tmp_path)
    with pytest.raises(ValueError, match=r"opened at .*'first'.*got .*'last'"):
        svae.load(
            tmp_path,
            source=svae.Frozen(net, "last", x_shape=(1, 8, 8)),
            target=target,
            view=lambda x: x,
        )
    config = json.loads((tmp_path / "model.json").read_text())
    del config["settings"]
    (tmp_path / "model.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"not what .save\(folder\) writes \(it lacks settings"):
        svae.load(tmp_path, target=target, view=lambda x: x)
