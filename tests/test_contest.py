"""The command that compares: cells that are kept, code that is not mixed, and what beats ours."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import svae
from benchmarks import evidence, reproductions, run
from benchmarks.contest import CONTESTANTS, _from_examples
from benchmarks.measuring import score
from benchmarks.peers import Classifier
from benchmarks.peers.common import Sizes
from benchmarks.suites import Suite, cut

NUMBERS = {"preservation": 0.9, "diversity_ratio": 0.5, "test_accuracy": 0.9, "fid": 10.0}
NUMBERS |= {"leakage_samples_strongest": 0.2, "reconstruction_preservation": 0.9}
NUMBERS |= {"leakage_means_strongest": 0.4}


def row(**changes: float) -> list[dict[str, Any]]:
    return [{**NUMBERS, **changes}]


def test_a_peer_that_is_better_is_an_exception_unless_it_pays() -> None:
    ours = row()
    assert run.exceptions({"SVAE": ours, "M2": row(preservation=0.8, diversity_ratio=0.4)}) == []
    paid = row(preservation=0.95, diversity_ratio=0.4, fid=9.0, test_accuracy=0.89)
    assert run.exceptions({"SVAE": ours, "M2": paid}) == []
    found = run.exceptions({"SVAE": ours, "M2": row(preservation=0.95)})
    assert found == ["M2: preservation and diversity_ratio, better than SVAE"]
    # Less leakage and a lower FID are better.
    found = run.exceptions({"SVAE": ours, "M2": row(leakage_samples_strongest=0.1, fid=5.0)})
    assert [text.split(" and ")[0] for text in found] == [
        "M2: leakage_samples_strongest",
        "M2: test_accuracy",
    ]
    # What another of ours is better at in both is not on our frontier.
    other, better = row(preservation=0.97), row(preservation=0.95)
    assert run.exceptions({"SVAE": ours, "SVAE, no flow": other, "M2": better}) == []


def test_numbers_that_a_model_has_not_stay_empty() -> None:
    plain = [{"test_accuracy": 0.5, "nll": 1.0}, {"test_accuracy": 0.7, "nll": 1.0}]
    found = {"classifier": plain, "SVAE": row()}
    lines = run.tables(found).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    # Only where it has a number; seeds that agree have no interval.
    (cells,) = [row for row in rows if row[0] == "classifier"]
    assert cells == ["classifier", "0.600 ± 1.271", "1.000"]
    # Nor is there a column of what nobody has.
    heads = [row for row in rows if row[0] == "model"]
    assert ["model", "accuracy", "NLL"] in heads
    assert not any("FID redrawn" in head or "12 samples" in head for head in heads)
    assert sum(row[0] == "SVAE" for row in rows) == 3
    assert [line for line in lines if line.startswith("**")] == [f"**{t}**" for t in run.TABLES]
    assert run.exceptions(found) == []


def options(folder: Path, *more: str) -> list[str]:
    given = ["--suite", "digits", "--quick", "--models", "classifier", "M2", "SVAE"]
    given += ["--runs", str(folder), "--out", str(folder / "found.json")]
    given += ["--tuned", str(folder / "tuned.json")]
    return [*given, "--tables", str(folder), "--plots", str(folder), *more]


def test_cells_are_kept_and_code_is_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def cell(
        suite: str, name: str, seed: int, quick: bool, setting: int, tuning: bool
    ) -> dict[str, Any]:
        asked.append(name)
        if name == "M2" and len(asked) < 4:
            raise RuntimeError("out of luck")
        found = {**NUMBERS, "setting": CONTESTANTS[name].settings[setting]}
        return found | {"seconds_training": 1.0, "n_parameters": 5, "seconds_per_epoch": 1.0}

    monkeypatch.setattr(run, "cell", cell)
    given = options(tmp_path, "--cores", "1")
    with pytest.raises(SystemExit, match=r"1 cells failed.*\nM2, seed 0: RuntimeError: out of"):
        run.main(given)
    run.main(given)
    assert asked == ["classifier", "M2", "SVAE", "M2"]  # what was finished is not run again
    found = json.loads((tmp_path / "found.json").read_text())
    names = ["classifier", "M2", "SVAE"]
    assert list(found["cells"]) == names
    assert found["code"] == [run.code_version()]
    assert found["source"] == "scikit-learn's 8x8 digits, UCI"
    # Nor where only the results are left; another seed is.
    path = tmp_path / "run" / "digits_quick" / "SVAE_0_0.json"
    path.unlink()
    run.main(given)
    assert len(asked) == 4
    assert json.loads(path.read_text())["preservation"] == NUMBERS["preservation"]
    run.main([*given, "--models", "M2", "--seeds", "0", "1", "--out", str(tmp_path / "b.json")])
    assert asked[4:] == ["M2"]
    # What was not asked for stays in the results.
    run.main([*given, "--models", "M2", "SVAE"])
    assert list(json.loads((tmp_path / "found.json").read_text())["cells"]) == names
    # A cell whose setting has another value now is none.
    path.write_text(path.read_text().replace('"beta_style": 0.3', '"beta_style": 0.7'))
    (tmp_path / "found.json").unlink()
    run.main(given)
    assert asked[5:] == ["SVAE"]
    monkeypatch.setattr(run, "code_version", lambda: "another")
    with pytest.raises(SystemExit, match=r"cells of 2 versions of the code.*say --mixed"):
        run.main([*given, "--seeds", "0", "1"])
    assert len(asked) == 6  # it is said before anything is run
    run.main([*given, "--seeds", "0", "1", "--mixed"])
    assert asked[6:] == ["classifier", "SVAE"]  # seed 1 of M2 is there, see above
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["code"]) == 2
    assert found["cells"]["M2"][1]["commit"] == evidence.commit()
    assert (tmp_path / "run_digits.png").stat().st_size > 10_000
    capsys.readouterr()


def test_ratios_are_of_one_seed() -> None:
    found = {"SVAE": [*row(seed=1, fid=2.0), *row(seed=2, fid=9.0)]}
    found["VAE + classifier"] = [*row(seed=0, fid=1.0), *row(seed=1, fid=8.0)]
    (ratio,) = [one for one in run.claims_of("x", found, []) if one["id"] == "compare.x.fid"]
    assert ratio["values"] == [0.25]


def test_settings_are_chosen_by_what_the_comparison_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, int, int, bool]] = []

    def cell(
        suite: str, name: str, seed: int, quick: bool, setting: int, tuning: bool
    ) -> dict[str, Any]:
        asked.append((name, seed, setting, tuning))
        found = {**NUMBERS, "conditional_coverage": 0.5 + 0.1 * (setting == 1)}
        found |= {"seconds_training": 1.0, "n_parameters": 5, "seconds_per_epoch": 1.0}
        return found if name != "classifier" else {"test_accuracy": 0.9, **without(found)}

    def without(found: dict[str, Any]) -> dict[str, Any]:
        return {name: found[name] for name in ("seconds_training", "seconds_per_epoch")}

    monkeypatch.setattr(run, "cell", cell)
    given = options(tmp_path, "--cores", "1")
    run.main([*given, "--tune"])
    names = ("classifier", "M2", "SVAE")
    assert asked == [(name, 100, setting, True) for name in names for setting in range(3)]
    found = json.loads((tmp_path / "tuned.json").read_text())
    assert found["chosen"] == {"classifier": 0, "M2": 1, "SVAE": 1}
    assert found["scores"]["M2"][1] == pytest.approx((0.9 + 0.9 + 0.5 + 0.6) / 4)
    rows = (tmp_path / "run_digits_tuning.md").read_text().splitlines()
    assert rows[3] == "| M2 | label weight 50, 10, 250 | 0.7, 0.725, 0.7 | 10 |"
    asked.clear()
    # Who is not asked for keeps what was chosen; who was not tried everywhere has nothing chosen.
    run.main([*given, "--tune", "--models", "VIB", "--seeds", "100", "101"])
    assert asked == [("VIB", seed, s, True) for s in range(3) for seed in (100, 101)]
    (tmp_path / "run" / "digits_tuning_quick" / "CCVAE_0_100.json").write_text(
        json.dumps({**NUMBERS, "conditional_coverage": 0.5, "code": run.code_version()})
    )
    run.main([*given, "--tune", "--models", "CCVAE", "--have"])
    found = json.loads((tmp_path / "tuned.json").read_text())
    assert found["chosen"] == {"classifier": 0, "M2": 1, "VIB": 1, "SVAE": 1}
    asked.clear()
    capsys.readouterr()
    # Which takes what was chosen, and measures it with seeds of its own.
    run.main([*given, "--models", "classifier", "M2", "SVAE", "DIVA"])
    assert "at their first setting, as none was tried (--tune): DIVA" in capsys.readouterr().out
    assert asked.pop() == ("DIVA", 0, 0, False)
    assert asked == [("classifier", 0, 0, False), ("M2", 0, 1, False), ("SVAE", 0, 1, False)]
    capsys.readouterr()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, (0.9 + 0.9 + 0.5 + 0.8) / 4), ({"diversity_ratio": 1.25}, (0.9 + 0.9 + 0.8 + 0.8) / 4)],
)
def test_too_much_diversity_is_no_better_than_too_little(
    changes: dict[str, float], expected: float
) -> None:
    found = {**NUMBERS, "conditional_coverage": 0.8, **changes}
    assert score(found) == pytest.approx(expected)
    assert score({"test_accuracy": 0.7, "fid": 3.0}) == -3.0
    assert score({"test_accuracy": 0.7}) == 0.7


def test_a_suite_takes_examples_evenly_and_means_of_pixels() -> None:
    whole = svae.data.Digits()
    found = cut(svae.data.Digits(), Suite("digits", 1, n_train=100, n_test=50, pooled=2))
    assert (len(found.train), len(found.test)) == (100, 50)
    assert found.x_shape == (1, 4, 4)
    rows = torch.arange(100) * len(whole.train) // 100
    assert whole.train.y is not None
    assert torch.equal(found.train.y, whole.train.y[rows])
    corner = whole.train.x[rows, :, :2, :2].float().mean((2, 3))
    assert torch.allclose(found.train.x[:, :, 0, 0].float(), corner, atol=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_models_are_compared_whole(tmp_path: Path, engine: str) -> None:
    models = list(CONTESTANTS) if engine == "processes" else ["classifier", "CCVAE"]
    run.main([*options(tmp_path, "--engine", engine, "--cores", "2"), "--models", *models])
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["cells"]) == models
    for runs in found["cells"].values():
        assert 0 < runs[0]["test_accuracy"] <= 1
        assert runs[0]["pgd_accuracy"] <= runs[0]["test_accuracy"] + 0.1
        assert runs[0]["n_parameters"] > 1000
        assert ("fid_reconstructed" in runs[0]) == ("preservation" in runs[0])
        assert runs[0].get("fid_reconstructed", 1.0) > 0
    lines = (tmp_path / "run_digits.md").read_text().splitlines()
    costs = lines[lines.index("**Cost**") :]
    assert len([line for line in costs if line.startswith("| ")]) == 1 + len(models)


def test_tables_of_the_comparison_are_those_of_its_results() -> None:
    results = run.ROOT / "benchmarks" / "results"
    for path in results.glob("run_*.json"):
        cells = json.loads(path.read_text())["cells"]
        page = run.ROOT / "docs" / "_tables" / f"{path.stem}.md"
        assert page.read_text() == run.tables(cells), path.stem


def test_a_bridge_makes_new_pictures_of_classes_from_training_examples() -> None:
    class Same(Classifier):
        def encode(self, x: torch.Tensor, sample: bool = False) -> svae.Latent:
            return svae.Latent(x.flatten(1), x.new_zeros(len(x), 1))

        def sample_nuisance(
            self, latent: svae.Latent, n: int, generator: torch.Generator | None = None
        ) -> torch.Tensor:
            return torch.rand(n, len(latent.z_class), 1, generator=generator)

        def decode(self, latent: svae.Latent) -> torch.Tensor:
            return (latent.z_class + latent.z_nuisance).view(-1, 1, 8, 8)

    data, y = svae.data.Digits(), torch.tensor([3, 3, 0, 9, 3])
    sample = _from_examples(Same(Sizes((1, 8, 8), 10)), data)
    found, again = (sample(y, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(found, again)
    known, train = data.train.y, data.train.floats().flatten(1)
    assert known is not None
    rows = []
    for picture, label in zip(found, y, strict=True):
        # Up to the nuisance, which is a number added to all pixels here.
        moved = picture.flatten() - train
        row = int((moved.amax(1) - moved.amin(1)).argmin())
        assert float(moved[row].std()) < 1e-6
        assert known[row] == label
        rows.append(row)
    assert len(set(rows)) == 5


def test_every_contestant_says_what_it_is() -> None:
    assert sum(one.ours for one in CONTESTANTS.values()) >= 5
    assert sum(not one.ours for one in CONTESTANTS.values()) >= 12
    for one in CONTESTANTS.values():  # as many tries for each, of one number
        assert len(one.settings) == 3
        assert all(list(setting) == list(one.settings[0]) for setting in one.settings)


def test_the_table_of_other_peoples_numbers_is_that_of_the_results(tmp_path: Path) -> None:
    page = run.ROOT / "docs" / "benchmarks.md"
    copy = tmp_path / "benchmarks.md"
    copy.write_text(page.read_text())
    reproductions.main(["--table", "--page", str(copy)])
    assert copy.read_text() == page.read_text()
    assert "| IIN, entropy of the answers when the digit is drawn" in page.read_text()


@pytest.mark.slow
@pytest.mark.data
def test_other_peoples_numbers_are_measured(tmp_path: Path) -> None:
    out = tmp_path / "reproductions.json"
    page = tmp_path / "page.md"
    page.write_text("<!-- reproductions: begin -->\n<!-- reproductions: end -->\n")
    given = ["--quick", "--seeds", "0", "--runs", str(tmp_path), "--out", str(out)]
    reproductions.main([*given, "--page", str(page)])
    assert len(page.read_text().splitlines()) == 2 + 2 + 3  # two errors and an accuracy
    found = json.loads(out.read_text())
    assert 0 < found["vib"][0]["error_12"] <= found["vib"][0]["error_1"] < 0.5
    claims = {one["id"]: one["measured"] for one in found["claims"]}
    assert claims["compare.vib.1"] == round(found["vib"][0]["error_1_averaged"], 5)
    assert 0.15 < claims["compare.m2"] < 1  # of 200 labels, in 200 steps
