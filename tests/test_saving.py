import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import svae
from svae import SVAE, Factorization, GaussianHead, LatentSplit, NetworkHead
from svae.flows import ConditionalFlow
from svae.likelihoods import ContinuousBernoulli, Gaussian
from svae.nets import MLP, ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from svae.priors import FlowPrior, StandardPrior
from svae.saving import Described, describe, read_json, rebuild
from tests.plain_pyro import N_X, LabelFirst, StructuredGuide

SPLIT = LatentSplit(2, 3)
PARTS: dict[str, Callable[[], Any]] = {
    "gaussian head": lambda: GaussianHead(2, 3, 4.0, class_probabilities=[0.2, 0.3, 0.5]),
    "network head": lambda: NetworkHead(2, 3, hidden=(4,)),
    "flow": lambda: ConditionalFlow(2, context=3, hidden=(4,), n_blocks=2),
    "flow prior": lambda: FlowPrior(ConditionalFlow(2, 3, 1, (4,))),
    "standard prior": lambda: StandardPrior(3),
    "likelihood": lambda: Gaussian(0.3, learned=False),
    "convolutions": lambda: ConvEncoder((1, 8, 9), n_features=4, width=2, dropout=0.1),
    "transposed convolutions": lambda: ConvDecoder((1, 8, 9), 4, width=2),
    "convolutions of gain and shape": lambda: ConvEncoder((3, 8, 9), 4, width=2, gain=True),
    "transposed convolutions times a gain": lambda: ConvDecoder((3, 8, 9), 4, width=2, gain=True),
    "perceptrons": lambda: MLPEncoder((2, 3), 4, hidden=()),
    "guide": lambda: svae.MeanFieldGuide(MLPEncoder((6,), 4, (5,)), SPLIT),
    "model": lambda: svae.SupervisedModel(
        GaussianHead(2, 3), StandardPrior(3), MLPDecoder((6,), 5, (4,)), ContinuousBernoulli()
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_rebuilt_from_its_description(name: str) -> None:
    part = PARTS[name]()
    description = json.loads(json.dumps(describe(part)))
    again = rebuild(description)
    assert type(again) is type(part)
    assert describe(again) == describe(part)
    again.load_state_dict(part.state_dict())  # strict: the same names and shapes


@pytest.mark.parametrize("value", [None, True, 3, 0.5, "a", [1, [2.0, None]], {"a": [1], "b": 2}])
def test_plain_values_come_back(value: Any) -> None:
    assert rebuild(json.loads(json.dumps(describe(value)))) == value


def test_tensors_and_splits_come_back() -> None:
    assert torch.equal(rebuild(describe(torch.eye(2))), torch.eye(2))
    assert rebuild(describe(SPLIT)) == SPLIT
    assert rebuild(describe((1, 2))) == [1, 2]


def test_positions_keywords_and_defaults_are_all_recorded() -> None:
    arguments = describe(GaussianHead(2, n_classes=3))["arguments"]
    assert arguments["n_class"] == 2
    assert arguments["n_classes"] == 3
    assert arguments["separation"] == 2.0
    assert "_arguments" not in dict(GaussianHead(2, 3).named_modules())


def test_a_part_from_elsewhere_is_not_described() -> None:
    class Mine(GaussianHead):
        pass

    for part in (nn.Linear(2, 2), Mine(2, 3), SVAE.for_images):
        with pytest.raises(TypeError, match=r"not a part of this package.*again when loading"):
            describe(part)
    with pytest.raises(TypeError, match="Linear"):
        describe(svae.MeanFieldGuide(_with_width(nn.Linear(6, 4)), SPLIT))


def _with_width(encoder: nn.Module) -> nn.Module:
    encoder.n_features = 4  # pyright: ignore[reportArgumentType]
    return encoder


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "subprocess.Popen",
        "torch.nn.modules.linear.Linear",
        "svaex.Thing",
        "svae.heads.Head.draw",
        "svae.heads.Nothing",
        "svae.nowhere.Thing",
        "svae.saving.import_module",
        "svae.nets.MLP",
        "svae.__main__.main",
        "",
    ],
)
def test_nothing_but_described_classes_of_this_package_is_called(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected a class of this package.*newer version"):
        rebuild({"class": name, "arguments": {}})
    assert not issubclass(MLP, Described)


def test_classes_of_older_files_are_found_where_they_were() -> None:
    # Written when these classes stood in one file; a folder of the same name keeps the path.
    flow = rebuild({"class": "svae.flows.ConditionalFlow", "arguments": {"features": 2}})
    assert isinstance(flow, ConditionalFlow)
    assert describe(rebuild(describe(flow))) == describe(flow)


def test_wrong_arguments_are_named() -> None:
    kind = "svae.priors.StandardPrior"
    with pytest.raises(ValueError, match=r"with the arguments \['width'\].*another version"):
        rebuild({"class": kind, "arguments": {"width": 3}})
    with pytest.raises(ValueError, match="no arguments"):
        rebuild({"class": kind})


def make(**changes: Any) -> SVAE:
    arguments: dict[str, Any] = {"n_features": 6, "n_classes": 3, "split": SPLIT, "hidden": (5,)}
    vae = SVAE.for_vectors(**{**arguments, **changes})
    for parameter in vae.parameters():
        nn.init.normal_(parameter, std=0.3)
    return vae


SVAES: dict[str, Callable[[], SVAE]] = {
    "default": make,
    "network head": lambda: make(head=NetworkHead(2, 3, (4,))),
    "no flow": lambda: make(style_prior=StandardPrior(3)),
    "likelihood": lambda: make(likelihood=Gaussian(0.2)),
    "images": lambda: SVAE.for_images((2, 8, 9), 3, SPLIT, width=2, dropout=0.2),
}


@pytest.mark.parametrize("name", SVAES)
def test_saved_and_loaded_gives_the_same_output(name: str, tmp_path: Path) -> None:
    vae = SVAES[name]()
    shape = vae.x_shape or ()
    x = torch.rand(20, *shape)
    vae.encode(x)  # in training mode: fills the running statistics that are saved too
    vae.save(tmp_path / "new" / "run")
    again = svae.load(tmp_path / "new" / "run")
    vae.eval()
    assert not any(module.training for module in again.modules())
    assert isinstance(again, Factorization)
    assert isinstance(again, svae.SVAE)
    assert again.x_shape == shape
    assert set(again.state_dict()) == set(vae.state_dict())
    latent = vae.encode(x)
    assert all(torch.equal(*pair) for pair in zip(latent, again.encode(x), strict=True))
    assert torch.equal(vae.predict(x), again.predict(x))
    assert torch.equal(vae.decode(latent), again.decode(latent))
    draws = [each.sample([0, 2], 2, torch.Generator().manual_seed(1)) for each in (vae, again)]
    assert torch.equal(*draws)


def test_files_are_safetensors_and_json_and_hold_each_weight_once(tmp_path: Path) -> None:
    vae = make()
    vae.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    size = sum(value.numel() * value.element_size() for value in vae.state_dict().values())
    assert (tmp_path / "model.safetensors").stat().st_size < size + 20_000
    config = json.loads((tmp_path / "model.json").read_text())
    assert config["model"]["class"] == "svae.models.SupervisedModel"


def test_a_users_own_part_is_given_again(tmp_path: Path) -> None:
    vae, x = SVAE(LabelFirst(), StructuredGuide()), torch.rand(4, N_X)
    predicted = vae.predict(x)
    vae.save(tmp_path)
    with pytest.raises(ValueError, match=r"the model saved in .* svae.load\(folder, model=...\)"):
        svae.load(tmp_path)
    with pytest.raises(ValueError, match=r"the guide saved in .*guide="):
        svae.load(tmp_path, model=LabelFirst())
    again = svae.load(tmp_path, model=LabelFirst(), guide=StructuredGuide())
    assert again.x_shape == (N_X,)
    assert torch.equal(again.predict(x), predicted)


def test_a_users_own_encoder_inside_our_guide_is_given_again(tmp_path: Path) -> None:
    model = PARTS["model"]()

    def guide() -> svae.MeanFieldGuide:
        return svae.MeanFieldGuide(_with_width(nn.Linear(6, 4)), SPLIT)

    vae, x = SVAE(model, guide()), torch.rand(4, 6)
    predicted = vae.predict(x)
    vae.save(tmp_path)
    with pytest.raises(ValueError, match="the guide saved in"):
        svae.load(tmp_path)
    assert torch.equal(svae.load(tmp_path, guide=guide()).predict(x), predicted)


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.999])
def test_truncated_weights(tmp_path: Path, keep: float) -> None:
    make().save(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(
        ValueError, match=r"model.safetensors is no readable .*damaged or cut short"
    ):
        svae.load(tmp_path)


def test_overwritten_weights(tmp_path: Path) -> None:
    make().save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04no pickle is ever read" * 100)
    with pytest.raises(ValueError, match="damaged or cut short"):
        svae.load(tmp_path)


@pytest.mark.parametrize(
    "changes", [{"hidden": (7,)}, {"hidden": (5, 5)}, {"head": NetworkHead(2, 3)}]
)
def test_weights_of_another_architecture(tmp_path: Path, changes: dict[str, Any]) -> None:
    make().save(tmp_path / "one")
    make(**changes).save(tmp_path / "other")
    weights = (tmp_path / "other" / "model.safetensors").read_bytes()
    (tmp_path / "one" / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"belong to another architecture(?s:.*)configuration"):
        svae.load(tmp_path / "one")


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_missing_files(tmp_path: Path, name: str) -> None:
    make().save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"\.save\(folder\)"):
        svae.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"class": "svae.S', b"\xff\xfe\x00"])
def test_damaged_json(tmp_path: Path, content: bytes) -> None:
    make().save(tmp_path)
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"model.json is no readable JSON"):
        svae.load(tmp_path)
    with pytest.raises(ValueError, match=r"model.json is no readable JSON"):
        read_json(tmp_path / "model.json")


@pytest.mark.parametrize("content", ["[1, 2]", "{}", '{"model": 3, "guide": 4}'])
def test_json_of_something_else(tmp_path: Path, content: str) -> None:
    make().save(tmp_path)
    (tmp_path / "model.json").write_text(content)
    messages = r"not from this package|no entry 'x_shape'|is not what \.save\(folder\) writes"
    with pytest.raises(ValueError, match=messages):
        svae.load(tmp_path)


def test_json_that_names_another_class(tmp_path: Path) -> None:
    make().save(tmp_path)
    config = json.loads((tmp_path / "model.json").read_text())
    config["guide"] = {"class": "subprocess.Popen", "arguments": {"args": ["true"]}}
    (tmp_path / "model.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"cannot build 'subprocess.Popen'"):
        svae.load(tmp_path)


def test_weights_that_were_damaged_inside(tmp_path: Path) -> None:
    make().save(tmp_path)
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-40:] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is not the .* checksum differs"):
        svae.load(tmp_path)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    vae = make()
    with pytest.raises(OSError, match=r"cannot write to the folder .*file/run .*: give a folder"):
        vae.save(tmp_path / "file" / "run")
