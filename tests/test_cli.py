import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml

import svae
from svae.cli import main
from svae.commands.fitting import fit_command
from svae.training import Recipe

# Three epochs with few examples: the latents are not in use yet.
pytestmark = pytest.mark.filterwarnings("ignore::svae.training.CollapsedBlock")

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "pyro", "pytorch_lightning", "jsonargparse", "numpy", "sklearn", "matplotlib"}


def settings(out: Path) -> dict[str, Any]:
    """One YAML for `svae fit`, on the embedded digits."""
    split = {"n_class": 4, "n_nuisance": 4}
    arguments = {"shape": [1, 8, 8], "n_classes": 10, "split": split, "width": 4}
    return {
        "seed_everything": 3,
        "out": str(out),
        "model": {
            "vae": {"class_path": "svae.models.SVAE.for_images", "init_args": arguments},
            "objective": {"beta_class": 5.0, "label_weight": 20.0},
            "recipe": {"flow_share": 0.5, "learning_rate": 1e-3},
        },
        "data": {"class_path": "svae.data.digits.Digits", "init_args": {"batch_size": 100}},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False},
    }


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "fit.yaml"
    path.write_text(yaml.safe_dump(settings(tmp_path / "run")))
    return path


def test_fit_from_yaml_does_what_svae_fit_does(config: Path, tmp_path: Path) -> None:
    assert main(["fit", "--config", str(config)]) == 0
    loaded = svae.load(tmp_path / "run")
    pl.seed_everything(3, workers=True, verbose=False)
    vae = svae.SVAE.for_images((1, 8, 8), 10, svae.LatentSplit(4, 4), width=4)
    svae.fit(
        vae,
        svae.data.Digits(batch_size=100),
        objective=svae.SupervisedELBO(beta_class=5.0, label_weight=20.0),
        recipe=Recipe(flow_share=0.5, learning_rate=1e-3),
        seed=3,
        max_epochs=2,
        accelerator="cpu",
        enable_progress_bar=False,
    )
    trained = vae.state_dict()
    assert trained.keys() == loaded.state_dict().keys()
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, trained[name]), name
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {
        "best.ckpt",
        "last.ckpt",
    }
    assert list((tmp_path / "run" / "logs").glob("version_*/metrics.csv"))


def test_options_go_before_the_file_and_a_run_resumes(
    config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def losses(*arguments: str) -> list[float]:
        seen: list[float] = []

        class Listen(pl.Callback):
            def on_train_batch_end(
                self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
            ) -> None:
                seen.append(float(outputs["loss"]))
                if stop_at == trainer.global_step:
                    raise KeyboardInterrupt

        original: Callable[..., Any] = svae.commands.fitting.trainer_settings

        def listening(folder: Path, wanted: Any) -> dict[str, Any]:
            return original(folder, {**wanted, "callbacks": [Listen()]})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("svae.commands.fitting.trainer_settings", listening)
            fit_command(["--config", str(config), "--model.recipe.flow_share", "0", *arguments])
        return seen

    stop_at = -1
    whole = losses("--out", str(tmp_path / "whole"))
    assert len(whole) == 24
    stop_at = 17
    with pytest.raises(SystemExit):
        losses("--out", str(tmp_path / "cut"))
    stop_at = -1
    assert losses("--out", str(tmp_path / "cut"), "--resume") == whole[12:]
    assert "nothing to resume" not in caplog.text


def test_print_config_is_a_config(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(config), "--trainer.max_epochs", "5", "--print_config"])
    assert stopped.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["trainer"]["max_epochs"] == 5
    assert printed["trainer"]["use_distributed_sampler"] is False  # ours are distributed
    objective = printed["model"]["objective"]["init_args"]
    assert objective["beta_class"] == 5.0
    assert objective["particles"] == 1  # the defaults are there too
    assert printed["data"]["class_path"].endswith("Digits")
    assert not Path(printed["out"]).exists()


def test_the_experiments_config_parses(capsys: pytest.CaptureFixture[str]) -> None:
    file = ROOT / "experiments" / "mnist_svae.yaml"
    digits = ["--data", "svae.data.digits.Digits"]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(file), *digits, "--print_config"])
    assert stopped.value.code == 0
    assert "SVAE.for_images" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["fit", "--help"], ["fit", "-h"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from svae.cli import main; status = main(sys.argv[1:]); "
        "print({n.split('.')[0] for n in sys.modules}, file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("usage: svae")
    assert ("--config FILE" in done.stdout) == (arguments[0] == "fit")
    loaded = set(json.loads(done.stderr.strip().replace("'", '"').translate({123: 91, 125: 93})))
    assert loaded & HEAVY == set()


def test_python_m_svae_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "svae", "fit", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "usage: svae fit" in done.stdout
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"svae": "svae.cli:main"}


@pytest.mark.parametrize(
    ("arguments", "status"), [([], 2), (["--help"], 0), (["--version"], 0), (["fits"], 2)]
)
def test_exit_status(
    arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == status
    out, err = capsys.readouterr()
    if arguments == ["--version"]:
        assert out.strip() == svae.__version__
    if arguments == ["fits"]:
        assert "unknown command 'fits'; there is: fit" in err
        assert out == ""


def test_a_wrong_option_says_so(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(config), "--model.objective.beta_classs", "3"])
    assert stopped.value.code == 2
    assert "beta_classs" in capsys.readouterr().err


NET = """
import torch
from torch import nn

def load():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 10))

number = 3
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    name = f"nets_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path / name


SHORT = ("--autoencoder-steps", "5", "--steps", "3", "--code", "4", "--cache", "cache")


@pytest.mark.filterwarnings("ignore::svae.explaining.InputScaling")
def test_explain_writes_pictures_and_numbers(nets: Path) -> None:
    model = f"{nets.name}:load"
    call = ["explain", "--model", model, "--data", "digits", "--layer", "1", "3", *SHORT]
    assert main([*call, "--out", "report"]) == 0
    out = nets.parent / "report"
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"reconstructed", "1.kept", "3.information"} <= set(metrics)
    for name in ("profile", "invariances", "swaps"):
        assert (out / f"{name}.png").stat().st_size > 1000
    assert (out / "profile.md").read_text().count("\n") == 4
    # What was explained is audited without a word of what it was.
    assert main(["audit", "report", "--n-test", "60", "--fail-if", "flip_rate_layer_1 < 0"]) == 0
    numbers = json.loads((out / "audit.json").read_text())
    assert {"flip_rate", "flip_rate_layer_1", "cycle_distance_layer_3"} <= set(numbers)
    assert numbers["flip_rate"] == numbers["flip_rate_layer_3"]
    assert main(["report", "report", "--out", "page"]) == 0
    page = (nets.parent / "page" / "index.html").read_text()
    assert '<th scope="col">layer</th>' in page


def test_explain_reads_a_folder_without_classes(nets: Path) -> None:
    from PIL import Image

    folder = nets.parent / "images"
    folder.mkdir()
    for i in range(40):
        Image.effect_noise((20 + i, 30), 80).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    call = ["explain", "--model", f"{nets.name}:load", "--data", "images", "--layer", "3"]
    assert main([*call, "--size", "8", "--channels", "1", *SHORT]) == 0


def test_explain_says_what_is_wrong_with_a_model(nets: Path) -> None:
    for model, message in (
        ("nets", "expected package.module:function"),
        ("no.such:load", "No module named 'no'"),
        (f"{nets.name}:loads", "has no attribute 'loads'"),
        (f"{nets.name}:number", "gives a int, expected a torch module"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["explain", "--model", model, "--data", "digits"])


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hardly trained model of the digits, and its audit."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    data = svae.data.Digits()
    vae = svae.SVAE.for_images((1, 8, 8), 10, svae.LatentSplit(4, 3), width=8)
    svae.fit(vae, data, max_epochs=2, enable_progress_bar=False)
    vae.save(folder)
    (folder / "metrics.json").write_text(json.dumps({"dataset": "digits"}))
    assert main(["audit", str(folder), "--n-test", "60"]) == 0
    return folder


@pytest.mark.filterwarnings("ignore::svae.training.CollapsedBlock")
def test_an_audit_stops_what_is_not_good_enough(
    audited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = json.loads((audited / "audit.json").read_text())
    assert numbers["dataset"] == "digits"
    assert numbers["settings"]["n_test"] == 60
    assert 0 <= numbers["flip_rate_low"] <= numbers["flip_rate"] <= numbers["flip_rate_high"] <= 1
    given = ["audit", str(audited), "--n-test", "60", "--fail-if"]
    assert main([*given, "test_accuracy < 0"]) == 0
    assert "flip_rate_dim_2" in capsys.readouterr().out
    assert main([*given, "test_accuracy >= 0", "flip_rate > 2"]) == 1
    assert "FAILED: test_accuracy >= 0 (it is" in capsys.readouterr().err
    assert main([*given, "flip_rat > 2"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main([*given, "much"]) == 2
    assert "is no condition" in capsys.readouterr().err


def test_an_audit_is_compared_with_another(
    audited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = json.loads((audited / "audit.json").read_text())
    for end in ("", "_low", "_high"):
        numbers[f"test_accuracy{end}"] -= 0.9
    (tmp_path / "audit.json").write_text(json.dumps(numbers))
    given = ["audit", str(audited), "--n-test", "60", "--compare"]
    assert main([*given, str(tmp_path)]) == 0
    lines = capsys.readouterr().out.partition("hardly chance:\n")[2].splitlines()
    assert lines[0].strip().startswith("test_accuracy: ")
    assert "(+0.9, p = " in lines[0]
    assert lines[0].endswith(" *")
    with pytest.raises(SystemExit, match="audit that model first"):
        main([*given, str(tmp_path / "none")])


def test_an_audit_says_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="svae: "):
        main(["audit", str(tmp_path)])


def test_a_report_is_written_beside_the_model(
    audited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(audited)]) == 0
    page = Path(capsys.readouterr().out.strip().splitlines()[-1])
    assert page == audited / "report" / "index.html"
    assert "What SVAE ignores of digits" in page.read_text()
