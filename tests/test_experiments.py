import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import svae
import svae.nets
import svae.training

ROOT = Path(__file__).parents[1]
RATES = (
    "test_accuracy",
    "test_accuracy_12_samples",
    "ece",
    "judge_accuracy",
    "reconstruction_preservation",
    "preservation",
    "preservation_swapped",
    "preservation_self",
    "preservation_swapped_self",
    "switch_rate",
    *(f"leakage_samples_{probe}" for probe in ("linear", "mlp", "knn", "strongest")),
    *(f"leakage_means_{probe}" for probe in ("linear", "mlp", "knn", "strongest")),
    *(f"probe_class_means_{probe}" for probe in ("linear", "mlp", "knn")),
    "conditional_coverage",
    "conditional_coverage_floor",
    *(f"{name}{end}" for name in ("precision", "recall", "coverage") for end in ("", "_floor")),
)
NUMBERS = (
    "nll",
    "elbo",
    "iwae_64",
    "diversity_ratio",
    *(f"{name}{end}" for name in ("fid", "kid", "density") for end in ("", "_floor")),
    "fid_reconstructed",
)
PICTURES = (
    "reconstructions",
    "samples",
    "nuisance_grid",
    "swap_grid",
    "traversals",
    "embedding",
    "confusion",
    "training_curves",
)


def script(name: str) -> ModuleType:
    """One of the experiments, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "experiments" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The script end to end, on the digits."""
    out = tmp_path_factory.mktemp("run")
    arguments = ["--dataset", "digits", "--max-epochs", "2", "--quick", "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVAE_CACHE", str(tmp_path_factory.mktemp("judges")))
        returned = script("mnist_svae").main([*arguments, "--out", str(out)])
    assert json.loads((out / "metrics.json").read_text()) == returned
    return returned, out


def test_metrics_are_flat_and_complete(run: tuple[dict[str, Any], Path]) -> None:
    metrics, _ = run
    assert metrics["dataset"] == "digits"
    assert metrics["max_epochs"] == 2
    assert metrics["likelihood"] == "Bernoulli"
    assert all(isinstance(value, int | float | str) for value in metrics.values())
    for name in (*RATES, *NUMBERS):
        value, low, high = (metrics[f"{name}{end}"] for end in ("", "_low", "_high"))
        assert low <= value <= high, name
        assert math.isfinite(low), name
        assert math.isfinite(high), name
    for name in RATES:
        assert metrics[f"{name}_low"] >= 0, name
        assert metrics[f"{name}_high"] <= 1, name
    assert metrics["elbo"] < metrics["iwae_64"] < 0
    assert 0.1 <= metrics["chance"] < 0.12
    assert metrics["judge_accuracy"] > 0.95


def test_pictures_are_there_and_small(run: tuple[dict[str, Any], Path]) -> None:
    _, out = run
    for name in PICTURES:
        content = (out / f"{name}.png").read_bytes()
        assert content.startswith(b"\x89PNG"), name
        assert 2_000 < len(content) <= 200_000, name
    assert {path.stem for path in out.glob("*.png")} == set(PICTURES)


def test_the_saved_model_is_the_one_that_was_measured(run: tuple[dict[str, Any], Path]) -> None:
    metrics, out = run
    vae = svae.load(out)
    test = svae.data.Digits(seed=0).test
    with torch.no_grad():
        hits = (vae.predict(test.floats()).argmax(1) == test.y).float().mean()
    assert metrics["test_accuracy"] == pytest.approx(float(hits), abs=1e-6)
    assert metrics["test_accuracy"] > 0.3  # two epochs, and one of them is the flow's
    assert (out / "checkpoints" / "last.ckpt").is_file()
    assert list((out / "logs").glob("version_*/metrics.csv"))


def test_the_yaml_trains_as_the_script_does_by_default() -> None:
    import yaml

    config = yaml.safe_load((ROOT / "experiments" / "mnist_svae.yaml").read_text())
    experiment = script("mnist_svae")
    options = experiment.parser().parse_args([])
    preset = experiment.PRESETS["mnist", "default"]
    model = config["model"]
    assert model["objective"] == {
        "beta_class": experiment.objective(options, svae.data.Digits()).scales["z_class"],
        "beta_style": options.beta_style,
        "label_weight": options.label_weight,
    }
    assert model["recipe"] == {"flow_share": preset.flow_share}
    split = {"n_class": options.n_class, "n_nuisance": options.n_nuisance}
    assert model["vae"]["init_args"]["split"] == split
    assert model["vae"]["init_args"].get("width", 32) == preset.width
    assert config["data"].get("init_args", {}).get("batch_size", 128) == preset.batch_size
    assert config["trainer"]["max_epochs"] == preset.max_epochs
    assert config["seed_everything"] == options.seed


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        (["--penalty", "adversary"], "AdversarialProbe"),
        (["--penalty", "mmd"], "ClassConditionalMMD"),
        (["--penalty", "hsic"], "HSIC"),
        (["--penalty", "swap"], "SwapCycle"),
        (["--penalty", "tc"], "TotalCorrelation"),
    ],
)
def test_every_penalty_is_one_flag_away(flags: list[str], kind: str) -> None:
    experiment = script("mnist_svae")
    options = experiment.parser().parse_args([*flags, "--penalty-weight", "3"])
    (penalty,) = experiment.objective(options, svae.data.Digits()).penalties
    assert type(penalty).__name__ == kind
    assert penalty.weight == 3


@pytest.mark.parametrize("head", ["gaussian", "linear", "mlp"])
@pytest.mark.parametrize("flow", ["second-stage", "joint", "none"])
def test_every_head_and_flow_is_one_flag_away(head: str, flow: str) -> None:
    experiment = script("mnist_svae")
    options = experiment.parser().parse_args(["--head", head, "--style-flow", flow])
    data = svae.data.Digits()
    vae = experiment.build(options, data, experiment.PRESETS["digits", "default"])
    names = {type(module).__name__ for module in vae.modules()}
    assert ("GaussianHead" in names) == (head == "gaussian")
    assert ("ConditionalFlow" in names) == (flow != "none")
    assert vae.predict(data.test.floats(4)).shape == (4, 10)


def test_an_unwritable_out_is_said_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "run"
    with pytest.raises(
        SystemExit, match=r"--out: cannot write to the folder .*file/run \(.*\): give a"
    ):
        script("mnist_svae").main(["--dataset", "digits", "--out", str(out)])


def test_missing_mnist_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    root = str(tmp_path / "nowhere")
    arguments = ["--dataset", "mnist", "--data-root", root, "--out", str(tmp_path / "run")]
    with pytest.raises(FileNotFoundError, match=r"(?s)MNIST.*nowhere"):
        script("mnist_svae").main(arguments)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_unknown_data_set_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        script("mnist_svae").main(["--dataset", "imagenet"])
    assert stopped.value.code == 2
    assert "'imagenet'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the .* block has collapsed")
def test_a_guide_of_ones_own_beside_the_default(tmp_path: Path) -> None:
    out = tmp_path / "run"
    found = script("custom_guide").main(
        ["--dataset", "digits", "--quick", "--max-epochs", "3", "--out", str(out)]
    )
    assert found == json.loads((out / "metrics.json").read_text())
    assert found["gap_ratio"] == pytest.approx(found["custom_gap"] / found["default_gap"])
    assert found["custom_iwae_16"] > found["custom_elbo"]
    assert found["dataset"] == "digits"
    assert found["likelihood_is_density"]
    guide = script("custom_guide").JointGaussian(svae.nets.MLPEncoder((1, 8, 8)), 8, 16)
    vae = svae.load(out, guide=guide)
    assert vae.predict(torch.rand(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["wine", "mixed"])
def test_a_table_is_measured_as_images_are(dataset: str, tmp_path: Path) -> None:
    epochs = {"wine": "40", "mixed": "8"}[dataset]
    arguments = ["--dataset", dataset, "--max-epochs", epochs, "--quick", "--out", str(tmp_path)]
    found = script("table_svae").main(arguments)
    assert found == json.loads((tmp_path / "metrics.json").read_text())
    assert found["test_accuracy"] > {"wine": 0.8, "mixed": 0.6}[dataset]
    for name in ("preservation", "leakage_samples_strongest", "diversity_ratio", "chance"):
        assert 0 <= found[name] <= 2
    for name in ("embedding", "confusion", "training_curves"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    assert svae.load(tmp_path).n_classes == {"wine": 3, "mixed": 4}[dataset]


def test_few_labels_are_one_flag_away() -> None:
    experiment = script("mnist_svae")
    options = experiment.parser().parse_args(["--dataset", "digits", "--n-labels", "50"])
    data, _ = experiment.load_data(options)
    assert int((data.train.marked >= 0).sum()) == 50
    assert not bool((data.validation.marked >= 0).any())
    assert data.augment is not None
    objective = experiment.objective(options, data)
    assert objective.scales["z_class"] == 1.0
    assert [type(penalty).__name__ for penalty in objective.penalties] == ["Consistency"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::svae.bridges.UnitsDropped")
def test_concepts_of_coloured_digits(tmp_path: Path) -> None:
    arguments = ["--dataset", "digits", "--quick", "--max-epochs", "12", "--out", str(tmp_path)]
    found = script("colour_mnist_concepts").main(arguments)
    assert found == json.loads((tmp_path / "metrics.json").read_text())
    assert found["dataset"] == "coloured-digits"
    assert found["response_entropy_digit"] > 0.8
    assert found["response_entropy_residual"] < 0.2
    assert found["answer_kept"] > 0.9
    assert found["swap_digit_digit_read"] > 0.7
    assert found["fid_flow"] < found["fid_normal"]
    for name in (
        *("transfer_digit", "transfer_colour", "transfer_residual", "interpolations", "resampled"),
        *("generated", "responses", "walk", "axes", "linearisation"),
    ):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    bridge = svae.load(tmp_path)
    assert bridge.parts == ("digit", "colour", "residual")
    assert svae.reconstruct(bridge, torch.rand(2, 3, 8, 8)).shape == (2, 3, 8, 8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::svae.bridges.UnitsDropped")
def test_concepts_of_a_folder_of_pictures(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = ["file,shape,shade"]
    for i in range(120):
        picture = np.full((24, 24, 3), 40 * (i % 3), dtype=np.uint8)
        picture[6:18, 6:18] = (220, 40, 40) if i % 2 else (40, 40, 220)
        picture += generator.integers(0, 20, picture.shape, dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{'red' if i % 2 else 'blue'},{i % 3}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    found = script("natural_concepts").main(
        [
            *("--folder", str(tmp_path), "--table", str(tmp_path / "table.csv")),
            *("--label", "shape", "--size", "24", "--quick", "--max-epochs", "3"),
            *("--out", str(tmp_path / "out")),
        ]
    )
    assert found == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 0 <= found["response_kept_residual"] <= 1
    assert {"dims_class", "dims_shade", "dims_residual"} <= set(found)
    for name in ("transfer_class", "transfer_shade", "transfer_residual", "reconstructions"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 2000


def test_a_classifier_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVAE_CACHE", str(tmp_path / "cache"))
    arguments = ["--dataset", "digits", "--quick", "--layers", "trunk.3", "head"]
    found = script("explain_classifier").main([*arguments, "--out", str(tmp_path / "out")])
    assert found == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["reconstructed"] > 0.7
    assert found["head.variance_explained"] > 2 * found["trunk.3.variance_explained"]
    assert found["head.information"] < found["trunk.3.information"]
    assert found["head.fixes_slant"] < found["trunk.3.fixes_slant"]
    for name in ("profile", "concepts", "invariances", "attacks", "swaps", "edits"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 5000
    bridge = svae.load(tmp_path / "out")
    x = torch.rand(2, 1, 8, 8)
    assert svae.resample_nuisance(bridge, x, 3).shape == (3, 2, 1, 8, 8)


def test_subjects_ignore_what_they_are_built_to_ignore() -> None:
    from svae.data.morphed import morph

    known = script("known_invariances")
    grey = torch.nn.functional.pad(torch.rand(3, 1, 8, 8), [8, 8, 8, 8])
    still = torch.zeros(3, 7)
    still[:, 3:] = 1
    moved, dim, red, turned = (still.clone() for _ in range(4))
    moved[:, 1], dim[:, 3], turned[:, 0] = 2.0, 0.5, 90.0
    red[:, 5:] = 0.3
    changed = {"shift": moved, "brightness": dim, "colour": red, "rotation": turned}
    for name, (build, ignored) in known.SUBJECTS.items():
        net = build()
        before = net(morph(grey, still))
        for factor, factors in changed.items():
            after = net(morph(grey, factors))
            change = float((after - before).norm() / before.norm())
            if factor in ignored:
                assert change < 0.05, (name, factor, change)
            else:
                assert change > 0.1, (name, factor, change)


@pytest.mark.slow
def test_known_invariances_are_judged(tmp_path: Path) -> None:
    quick = ["--quick", "--steps", "40", "--autoencoder-steps", "80", "--shortcuts", "1"]
    found = script("known_invariances").main([*quick, "--out", str(tmp_path)])
    assert found == json.loads((tmp_path / "metrics.json").read_text())
    assert found["judged"] == 18
    blind, scaled = found["brightest_channel.colour"], found["over_the_brightest.colour"]
    assert blind < scaled
    assert found["over_the_brightest.brightness"] < found["brightest_channel.brightness"]
    assert (tmp_path / "table.md").read_text().count("\n") == 8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::svae.training.CollapsedBlock")  # after one epoch
def test_augmentation_is_measured_whole(tmp_path: Path) -> None:
    """Fifteen seconds: one epoch of the VAE, six classifiers of twenty steps."""
    found = script("augment").main(
        ["--dataset", "digits", "--quick", "--labels", "100", "--out", str(tmp_path)]
    )
    assert json.loads((tmp_path / "metrics.json").read_text()) == found
    for name in ("test", "slant", "thickness", "rotation", "size", "position", "blur", "noise"):
        for kind in ("plain", "resampled", "affine"):
            assert 0 <= found[f"{kind}.{name}"] <= 1
        gain = found[f"resampled.{name}"] - found[f"plain.{name}"]
        assert found[f"gain.resampled.{name}"] == pytest.approx(gain)
        low, high = (found[f"gain.resampled.{name}_{end}"] for end in ("low", "high"))
        assert low <= found[f"gain.resampled.{name}"] <= high
    assert found["test_accuracy"] == found["resampled.test"]
    assert (tmp_path / "table.md").read_text().count("\n") == 10
    assert isinstance(svae.load(tmp_path), svae.SVAE)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["captions", "layers", "colour", "resolution", "domains"])
def test_translations_are_measured_and_drawn(
    task: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SVAE_CACHE", str(tmp_path / "cache"))
    decays, fit = [], svae.training.fit_steps

    def noting(*arguments: Any, **how: Any) -> Any:
        decays.extend([how["recipe"].weight_decay] if "recipe" in how else [])
        return fit(*arguments, **how)

    monkeypatch.setattr(svae.training, "fit_steps", noting)
    given = ["--task", task, "--quick", "--out", str(tmp_path)]
    if task == "captions":
        given += ["--encoder", "words", "--text", "a bold red two, upright"]
    found = script("translate").main(given)
    assert decays[1:3] == 2 * [0.5 if task == "layers" else 1e-4]  # 0: the target's
    assert json.loads((tmp_path / "metrics.json").read_text()) == found
    names = [name for name in found if name.endswith("explained")]
    assert names
    for name in names:
        stem = name.removesuffix("explained")
        assert -1 < found[name] < 1
        assert found[f"{stem}case"] in ("determined", "ambiguous")
        assert found[f"{stem}better"] in ("draws", "mean", "either")
        assert found[f"{stem}frechet_flow"] > found[f"{stem}frechet_target"] >= 0
        assert f"{stem}gap" in found
    if task == "layers":  # the last is measured again, and nothing fitted
        fits = len(decays)
        (tmp_path / "metrics.json").write_text(json.dumps(found | {"answer.read_digit": -1.0}))
        script("translate").main([*given, "--resume"])
        assert json.loads((tmp_path / "metrics.json").read_text())["answer.read_digit"] == -1
        (tmp_path / "metrics.json").write_text(
            json.dumps({name: v for name, v in found.items() if name != "answer.gap"})
        )
        again = script("translate").main([*given, "--resume"])
        assert capsys.readouterr().out.count("is fitted already") == 2 * len(names)
        assert len(decays) == fits
        assert again.pop("seconds_total") > found.pop("seconds_total")
        assert again == found
        with pytest.raises(SystemExit, match=r"is of --seed 0, not 1: leave that out"):
            script("translate").main([*given, "--resume", "--seed", "1"])
    if task == "domains":
        assert svae.load(tmp_path, view=lambda x: x[:, 0, 0, 0] > 0).code_noise == 0.2
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert sum("translations" in name for name in pictures) == len(names)
    if task == "captions":
        assert "text.png" in pictures
        assert 0.3 < found["diversity"] < 2
        (tmp_path / "text.png").unlink()
        script("translate").main([*given, "--resume"])
        assert (tmp_path / "text.png").stat().st_size > 2000
        bridge = svae.load(tmp_path, view=lambda x: ["a red two"] * len(x))
        assert bridge.translate(["a fine blue nine, leaning left"]).shape == (1, 1, 3, 28, 28)


def test_a_run_that_was_cut_off_is_resumed_by_its_own_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script("translate")
    seen = []

    def cut(options: Any) -> Any:
        seen.append(options)
        raise KeyboardInterrupt

    monkeypatch.setitem(module.TASKS, "resolution", cut)
    given = ["--task", "resolution", "--quick", "--steps", "7", "--out", str(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        module.main(given)
    resumed = ["--out", str(tmp_path), "--resume"]
    with pytest.raises(KeyboardInterrupt):
        module.main(resumed)
    assert (seen[1].task, seen[1].quick, seen[1].steps) == ("resolution", True, 7)
    for name, had, other in (("seed", 0, 1), ("steps", 7, 8), ("centre", "auto", "never")):
        with pytest.raises(SystemExit, match=f"is of --{name} {had}, not {other}: leave that"):
            module.main([*resumed, f"--{name}", str(other)])
    assert len(seen) == 2


def test_a_model_of_another_run_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script("translate")
    given = ["--task", "resolution", "--quick", "--out", str(tmp_path)]

    def cut(*_: Any) -> Any:
        raise KeyboardInterrupt

    for folder in (tmp_path, tmp_path / "mean"):
        folder.mkdir(exist_ok=True)
        (folder / "model.json").write_text("of another run, which --seed 1 is not")
    monkeypatch.setattr(module, "fitted_target", cut)
    with pytest.raises(KeyboardInterrupt):
        module.main([*given, "--seed", "1"])
    with pytest.raises(KeyboardInterrupt):  # begins anew, and loads nothing
        module.main([*given, "--resume"])


def test_copies_of_digits_are_a_little_moved() -> None:
    whole = svae.data.Digits().train
    found = script("translate").moved(svae.data.Digits(), 3, 0).train
    assert whole.y is not None
    assert torch.equal(found.y, whole.y.repeat(3))
    first, *others = found.x.float().flatten(1).chunk(3)
    assert torch.equal(first, whole.x.float().flatten(1))
    for other in others:
        near = torch.nn.functional.cosine_similarity(first, other)
        assert float(near.max()) < 1
        assert float(near.mean()) > 0.95
    assert not torch.equal(*others)


@pytest.mark.slow
@pytest.mark.data
def test_attributes_are_translated_to_sprites(tmp_path: Path) -> None:
    found = script("translate").main(["--task", "attributes", "--quick", "--out", str(tmp_path)])
    assert found["all.explained"] > found["shape and size.explained"]


@pytest.mark.slow
def test_a_flow_starts_from_a_mean_that_leaves_little(tmp_path: Path) -> None:
    given = ["--task", "resolution", "--quick", "--out"]
    for centre in ("auto", "always", "never"):
        found = script("translate").main([*given, str(tmp_path / centre), "--centre", centre])
        wanted = {"auto": found["explained"] >= 0.8, "always": True, "never": False}[centre]
        assert found["centred"] is wanted
        bridge = svae.load(tmp_path / centre, view=lambda x: x)
        assert isinstance(bridge, svae.TranslationBridge)
        assert (bridge.centre is not None) is wanted
