"""The benchmark scripts run whole, with small settings."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import svae
from benchmarks import (
    against_classifier,
    choices,
    concepts,
    core,
    evidence,
    few_labels,
    flows,
    import_time,
    invariances,
    posteriors,
    speed,
    style_flow,
)
from benchmarks.evidence import put_between


def test_the_plain_classifier_runs_whole(tmp_path: Path) -> None:
    metrics = against_classifier.main(
        ["--dataset", "digits", "--max-epochs", "20", "--out", str(tmp_path)]
    )
    assert metrics["test_accuracy_low"] < metrics["test_accuracy"] < metrics["test_accuracy_high"]
    assert metrics["test_accuracy"] > 0.9
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics


def test_a_claim_is_the_mean_over_seeds_with_a_t_interval() -> None:
    claim = evidence.claim("core.accuracy", "accuracy", ">= 0.9", [0.91, 0.92, 0.93])
    assert claim["id"] == "core.accuracy"
    assert claim["measured"] == pytest.approx(0.92)
    # t(0.975, 2) = 4.303 standard errors of 0.01 / sqrt(3) either way
    assert claim["interval"] == pytest.approx([0.92 - 0.02484, 0.92 + 0.02484], abs=1e-4)


def test_the_interval_of_a_rate_ends_at_1() -> None:
    claim = evidence.claim("core.accuracy", "accuracy", ">= 0.9", [0.99, 0.97, 0.995])
    assert claim["interval"][1] == 1.0
    longer = evidence.claim("core.memory", "GB", "<= 9", [0.9, 1.7, 0.9])
    assert longer["interval"][1] > 1.0


def test_leakage_of_samples_is_counted_over_chance() -> None:
    metrics = {"leakage_samples_strongest": 0.13, "leakage_means_strongest": 0.2, "chance": 0.11}
    assert core.over_chance(metrics, "leakage_samples_strongest") == pytest.approx(0.02)
    assert core.over_chance(metrics, "leakage_means_strongest") == 0.2


def test_finished_runs_are_taken_from_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mnist_svae" / "digits" / "default" / "seed_7"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text('{"test_accuracy": 0.5}')
    found = core.run("experiments/mnist_svae.py", "digits", "default", 7, tmp_path)
    assert found == {"test_accuracy": 0.5}


def test_what_was_not_run_is_said_to_be_missing(tmp_path: Path) -> None:
    run = core.run("experiments/mnist_svae.py", "mnist", "best", 0, tmp_path, start=False)
    assert run is None
    claim = evidence.claim("core.best.accuracy", "accuracy", ">= 0.9", [])
    assert claim["measured"] is None
    assert claim["why"] == "not run yet"


def test_of_times_the_fastest_run_counts() -> None:
    assert evidence.claim("core.seconds", "seconds", "<= 720", [900.0, 500.0])["measured"] == 500.0


def test_evidence_says_where_it_comes_from() -> None:
    found = evidence.evidence("python benchmarks/core.py", [])
    assert found["command"] == "python benchmarks/core.py"
    assert set(found) >= {"commit", "date", "machine", "versions", "claims"}
    assert found["versions"]["torch"]


def test_a_command_can_be_repeated_elsewhere() -> None:
    given = ["--seeds", "0", "--runs", "/some/where", "--have", "--name", "two words"]
    found = evidence.command("concepts", given)
    assert found == "python benchmarks/concepts.py --seeds 0 --name 'two words'"


def test_import_times_are_paired() -> None:
    found = import_time.measure(1)
    assert found["ratio"] == found["ratio_lowest"] == found["ratio_highest"]
    assert found["ratio"] == pytest.approx(
        found["svae_seconds"] / found["torch_seconds"], rel=0.01
    )


def finished(folder: Path, seed: int, accuracy: float) -> None:
    run = folder / "digits" / "default" / f"seed_{seed}"
    run.mkdir(parents=True)
    numbers = {**dict.fromkeys(choices.COLUMNS, 0.5), "test_accuracy": accuracy, "chance": 0.1}
    (run / "metrics.json").write_text(json.dumps(numbers))


def test_choices_are_means_with_their_spread_in_a_table(tmp_path: Path) -> None:
    for seed, accuracy in ((0, 0.9), (1, 0.94)):
        finished(tmp_path / "runs", seed, accuracy)
    where = [f"--{name}={tmp_path / name}" for name in ("runs", "results", "table-folder")]
    choices.main([*where, "--seeds", "0", "1", "--rows", "default"])
    found = json.loads((tmp_path / "results" / "choices_digits.json").read_text())
    assert found["rows"][0]["test_accuracy"] == pytest.approx(0.92)
    assert "--seeds 0 1" in found["command"]
    table = (tmp_path / "table-folder" / "choices_digits.md").read_text()
    assert "| default | 0.920 ± 0.028 | 0.500 ± 0.000 |" in table
    assert "seeds [0, 1]" in table


def test_the_tables_of_the_documentation_are_those_of_the_results(tmp_path: Path) -> None:
    written = choices.write_tables(choices.RESULTS, tmp_path)
    assert written
    for path in written:
        assert path.read_text() == (choices.TABLES / path.name).read_text(), path.name


@pytest.mark.parametrize("kind", speed.NETWORKS)
def test_the_loss_by_hand_is_the_one_that_is_defined_in_pyro(kind: str) -> None:
    assert speed.check_equality(kind) < 1e-6


@pytest.mark.slow
def test_the_speed_benchmark_runs_whole(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- speed: begin -->\nold\n<!-- speed: end -->\nafter\n")
    # In a process of its own: Pyro's tracer gives shapes as tensors, which the checker refuses.
    command = [sys.executable, speed.__file__, "--quick"]
    command += [f"--results={tmp_path}", f"--page={page}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1400)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "speed_cpu.json").read_text())
    assert set(found["rows"]["steps"]) == {"mlp 32"}
    claims = {claim["id"]: claim for claim in found["claims"]}
    assert claims["speed.cpu.mlp.32"]["measured"] > 0
    assert claims["speed.cpu.mlp.128"]["why"] == "not part of this run"
    promised = json.loads((tmp_path / "speed_cuda.json").read_text())["claims"]
    assert {claim["why"] for claim in promised} == {"no GPU"}
    text = page.read_text()
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "| svae, compiled |" in text
    assert "old" not in text


def test_the_table_of_speed_is_that_of_the_results(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(speed.README.read_text())
    speed.write_table(speed.RESULTS, page)
    assert page.read_text() == speed.README.read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the .* block has collapsed")
def test_few_labels_are_measured(tmp_path: Path) -> None:
    data = svae.data.Digits()
    found = few_labels.train(100, 0, data, epochs=15)
    assert found["test_accuracy"] > 0.7
    assert int((data.train.marked >= 0).sum()) == 100
    (tmp_path / "few_labels").mkdir()
    path = tmp_path / "few_labels" / "100_seed_0_epochs_15.json"
    path.write_text(json.dumps(found))
    out = tmp_path / "few_labels.json"
    where = ["--runs", str(tmp_path), "--out", str(out), "--epochs", "15"]
    few_labels.main(["--labels", "100", "--seeds", "0", *where])
    claim = json.loads(out.read_text())["claims"][0]
    assert claim["id"] == "guides.labels.100"
    assert claim["measured"] == pytest.approx(found["test_accuracy"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the .* block has collapsed")
def test_posteriors_are_compared_whole(tmp_path: Path) -> None:
    where = ["--runs", str(tmp_path), "--out", str(tmp_path / "posteriors.json")]
    where += ["--table", str(tmp_path / "guides.md")]
    quick = ["--dataset", "digits", "--seeds", "0", "--epochs", "1", "--examples", "5"]
    posteriors.main([*quick, *where])
    found = json.loads((tmp_path / "posteriors.json").read_text())
    names = ["guides.gap.frozen", "guides.gap.linear", "guides.gap.images"]
    assert [claim["id"] for claim in found["claims"]] == names
    assert set(found["rows"]) == set(posteriors.guides())
    assert len((tmp_path / "guides.md").read_text().splitlines()) == 2 + len(posteriors.guides())
    for rows in found["rows"].values():
        linear = rows[0]["linear"]
        assert linear["elbo"] + linear["gap"] < linear["log_evidence"] + 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the .* block has collapsed")
def test_the_style_flow_is_compared_whole(tmp_path: Path) -> None:
    where = ["--runs", str(tmp_path), "--out", str(tmp_path / "style_flow.json")]
    style_flow.main(["--dataset", "digits", "--seeds", "0", "--epochs", "12", *where])
    found = json.loads((tmp_path / "style_flow.json").read_text())
    ratio = found["rows"][0]["flow"] / found["rows"][0]["standard"]
    assert found["claims"][0]["id"] == "guides.fid.equal"
    assert found["claims"][0]["measured"] == pytest.approx(ratio, abs=1e-4)


def test_the_table_of_guides_is_that_of_its_results() -> None:
    path = posteriors.ROOT / "benchmarks" / "results" / "posteriors.json"
    found = json.loads(path.read_text())
    page = posteriors.ROOT / "docs" / "_tables" / "guides.md"
    assert page.read_text() == posteriors.table(found["rows"], found["together"])


@pytest.mark.slow
def test_the_benchmark_of_flows_runs_whole(tmp_path: Path) -> None:
    # In a process of its own: the shape checker breaks the graphs that are timed.
    to = [f"--results={tmp_path}", f"--table={tmp_path / 'flows.md'}"]
    call = [sys.executable, flows.__file__, "--quick", *to]
    done = subprocess.run(call, capture_output=True, text=True, timeout=1400)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "flows.json").read_text())
    claims = {claim["id"].removeprefix("concepts.flow_"): claim for claim in found["claims"]}
    assert claims["round_trip_32"]["measured"] < 1e-4
    assert claims["round_trip_64"]["measured"] < 1e-9
    assert claims["log_det"]["measured"] < 1e-4
    assert {row["flow"] for row in found["errors"]} == set(flows.KINDS)
    times = {row["way"]: row["step_ms"] for row in found["times"]}
    assert times[flows.OURS] > 0
    assert times["zuko, as documented"] > 0
    for name in set(flows.PEERS) - set(found["peers"]):
        assert f"pip install {name}" in done.stdout.replace("FrEIA normflows", name)
        assert claims["step_ratio"]["measured"] is None


def test_the_table_of_flows_is_that_of_its_results() -> None:
    found = json.loads((flows.RESULTS / "flows.json").read_text())
    assert flows.TABLE.read_text() == flows.page(found["times"])


def test_the_flows_compared_are_of_one_size() -> None:
    size = flows.Size()
    n = sum(p.numel() for p in flows.ours(size).parameters())
    other = sum(p.numel() for p in flows.zuko_way(size).module.parameters())
    assert other == pytest.approx(n, rel=0.01)


def test_errors_of_a_flow_are_found() -> None:
    flow = flows.ours(flows.Size(4, 2, 8)).eval()
    x = flows.data(8, 4, 0)
    assert flows.round_trip(flow, x, torch.float64) == pytest.approx(0, abs=1e-12)
    assert flows.round_trip(flow, torch.full_like(x, math.inf), torch.float64) is None
    assert flows.log_det_error(flow, x) < 1e-5
    flow.register_forward_hook(
        lambda _, inputs, out: (out[0] + 0.1, out[1] + 0.1 * (inputs[0].dtype == torch.float32))
    )
    assert flows.round_trip(flow, x, torch.float64) == pytest.approx(0.1, rel=1e-3)
    assert flows.log_det_error(flow, x) == pytest.approx(0.1, rel=1e-3)


def test_the_fastest_documented_peer_is_compared() -> None:
    times = {
        "a, as documented": [3.0, 4.0],
        "b, as documented": [2.0, 3.0],
        "b, compiled": [1.0, 1.0],
        flows.OURS: [1.0, 2.0],
    }
    assert flows.ratios(times) == ("b, as documented", [2.0, 1.5])


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.filterwarnings("ignore::svae.bridges.UnitsDropped")
def test_the_benchmark_of_concepts_runs_whole(tmp_path: Path) -> None:
    arguments = [
        *("--quick", "--seeds", "0", "--steps", "30", "--layer-steps", "2"),
        *("--coloured", "digits", "--networks", "lenet", "--generators", "mnist"),
        *("--runs", str(tmp_path), "--out", str(tmp_path / "concepts.json")),
        *("--table", str(tmp_path / "table.md")),
    ]
    concepts.main(arguments)
    found = json.loads((tmp_path / "concepts.json").read_text())
    claims = {claim["id"]: claim for claim in found["claims"]}
    assert claims["concepts.kept.lenet"]["measured"] > 0.8
    assert claims["concepts.kept.resnet20"]["measured"] is None  # not asked for
    assert claims["concepts.round_trip"]["measured"] < 1e-3
    assert claims["concepts.generation.mnist"]["measured"] > 1
    assert {"concepts.response.digit", "concepts.swap.colour.digit"} <= set(claims)
    rows = (tmp_path / "table.md").read_text().splitlines()
    assert len(rows) == 2 + 2  # the first two layers


@pytest.mark.data
def test_frozen_networks_have_their_weights() -> None:
    from experiments.networks import LeNet, ResNet20

    digit = svae.data.MNIST().test.floats(limit=1)
    picture = svae.data.CIFAR10().test.floats(limit=1)
    with torch.no_grad():
        found = LeNet.trained()(digit)[0], ResNet20.trained()(picture)[0]
    assert found[0][:4].tolist() == pytest.approx([-1.729, -0.554, 2.168, 2.156], abs=2e-3)
    assert found[1][:4].tolist() == pytest.approx([19.373, -0.390, 5.018, -1.967], abs=2e-3)


def test_claims_on_concepts_are_made_of_what_is_finished(tmp_path: Path) -> None:
    row = {"answer_kept": 0.75, "round_trip": 1e-6, "class_entropy": 0.9, "scale": 2.0}
    row |= {"units": 5, "coordinates": 5, "class_dims": 2, "seconds": 1.0}
    folder = tmp_path / "concepts" / f"recipe{concepts.RECIPE}"
    folder.mkdir(parents=True)
    (folder / "lenet_relu_1_600.json").write_text(json.dumps(row))
    where = ["--runs", str(tmp_path), "--out", str(tmp_path / "c.json")]
    concepts.main(["--have", *where, "--table", str(tmp_path / "table.md")])
    found = json.loads((tmp_path / "c.json").read_text())
    measured = {claim["id"]: claim["measured"] for claim in found["claims"]}
    assert measured.pop("concepts.kept.lenet") == 0.75
    assert measured.pop("concepts.round_trip") == pytest.approx(1e-6)
    assert set(measured.values()) == {None}


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.filterwarnings("ignore::svae.explaining.InputScaling")
def test_the_benchmark_of_invariances_runs(tmp_path: Path) -> None:
    where = ["--runs", str(tmp_path), "--out", str(tmp_path / "i.json")]
    where += ["--table", str(tmp_path / "table.md"), "--seeds", "0"]
    readme = (Path(invariances.__file__).parents[1] / "README.md").read_text()
    parts = ("lenet", "colours", "cost", "weights", "seconds", "resamples")
    invariances.main(["--quick", "--parts", *parts, *where])
    found = json.loads((tmp_path / "i.json").read_text())
    claims = {claim["id"]: claim["measured"] for claim in found["claims"]}
    assert claims["invariances.known"] is None
    assert claims["invariances.lost.resnet20"] is None
    assert 0 < claims["invariances.explained.first"] < 1
    assert claims["invariances.metamer.middle"] > 0
    assert claims["invariances.colour"] > 0
    (gpu,) = json.loads((tmp_path / "i_cuda.json").read_text())["claims"]
    assert gpu["why"] == "no GPU" if not torch.cuda.is_available() else gpu["measured"] > 0
    assert claims["invariances.further.seconds"] > 0
    assert claims["invariances.first.seconds"] > 0
    weights = (tmp_path / "table_weights.md").read_text().splitlines()
    assert len(weights) == 2 + 2 * len(invariances.WEIGHTS[:2])
    rows = (tmp_path / "table.md").read_text().splitlines()
    assert len(rows) == 2 + 3  # the layers of the claims
    assert (Path(invariances.__file__).parents[1] / "README.md").read_text() == readme


def test_claims_on_invariances_follow_from_profiles() -> None:
    row = {"reconstructed": 0.99, "seconds": 1.0}
    for i, layer in enumerate(invariances.LAYERS["lenet"]):
        row |= {
            f"{layer}.kept": 0.98 - 0.01 * i,
            f"{layer}.variance_explained": 0.02 * (i + 1),
            f"{layer}.information": [30.0, 31.0, 20.0, 15.0, 9.0][i],
            f"{layer}.fibre_loss": 0.2,
            f"{layer}.fibre_loss_nearest": 0.4,
        }
    truth = {
        "judged": 4,
        "judged_right": 3,
        "wrong": ["power spectrum: shift", "honest 1: colour"],
    }
    claims = invariances.claims_of({"lenet": [row], "truth": [truth]})
    found = {claim["id"].removeprefix("invariances."): claim["measured"] for claim in claims}
    assert found["fibre.middle"] == found["fibre.logits"] == 0.5
    assert found["lost.lenet"] == pytest.approx(0.05)
    assert found["explained.ratio"] == pytest.approx(5)
    assert found["information"] == 1  # one layer seems to know more than the one before
    assert found["known"] == 0.75
    assert found["shortcut"] == 1
    assert found["lost.resnet20"] is None


def test_known_invariances_go_into_the_page(tmp_path: Path) -> None:
    from experiments.known_invariances import GROUPS, SUBJECTS

    run: dict[str, Any] = {"wrong": ["power spectrum: shift", "honest 1: colour"]}
    names = [*SUBJECTS, *(f"{kind} {i}" for kind in ("shortcut", "honest") for i in range(2))]
    for i, name in enumerate(names):
        run |= {f"{name.replace(' ', '_')}.{factor}": 0.1 * i for factor in GROUPS}
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- known invariances: begin -->\n<!-- known invariances: end -->\nb\n")
    put_between(page, "known invariances", invariances.known_table([run, run]))
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("a", "b")
    rows = {line.split(" | ")[0].strip("| "): line for line in lines if line.startswith("| ")}
    assert rows["power spectrum"].count("0.20 ignored") == 4
    assert rows["power spectrum"].count("**wrong**") == 1
    assert rows["planted shortcut, 2 networks"] == (
        "| planted shortcut, 2 networks |  |  |  | 0.45 ignored |"
    )
    assert "0.65 used, **wrong**" in rows["honest classifier, 2 networks"]
    with pytest.raises(ValueError, match="lacks the marks"):
        put_between(page, "other", "")


def test_the_distance_of_two_samples_is_wassersteins() -> None:
    a = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    assert invariances.wasserstein(a, a + torch.tensor([0.5, 0.1])) == pytest.approx(0.3)


def test_the_coverage_of_intervals_is_measured_whole(tmp_path: Path) -> None:
    from benchmarks import coverage

    coverage.main(["--quick", "--out", str(tmp_path / "coverage.json")])
    found = json.loads((tmp_path / "coverage.json").read_text())
    assert [one["id"] for one in found["claims"]] == [
        *("audit.coverage.least", "audit.coverage.most", "audit.coverage.exact")
    ]
    assert found["claims"][0]["measured"] == min(one["held"] for one in found["clustered"])
    assert all(0.8 <= one["held"] <= 1 for one in found["clustered"])


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.filterwarnings("ignore::svae.training.CollapsedBlock")  # after one epoch
def test_answers_are_measured_whole(tmp_path: Path) -> None:
    """Two minutes: a model of one epoch has no right answers, but all numbers."""
    from benchmarks import answers

    given = ["--quick", "--seeds", "0", "--runs", str(tmp_path)]
    table = tmp_path / "augment.md"
    answers.main([*given, "--out", str(tmp_path / "answers.json"), "--table", str(table)])
    assert table.read_text().startswith("| test set | plain |")
    rows = (tmp_path / "stability.md").read_text().splitlines()[2:]
    assert len(rows) >= 10
    assert all(row.count(" of 3 ") == 2 for row in rows)
    found = json.loads((tmp_path / "answers.json").read_text())
    measured = {one["id"]: one["measured"] for one in found["claims"]}
    assert measured["audit.names"] == 6
    assert measured["audit.names.noise"] == 0
    assert measured["audit.completeness"] < 0.1
    assert 0 <= measured["audit.attribution"] <= 1
    assert measured["audit.report.seconds"] > 0


@pytest.mark.slow
def test_translations_are_measured_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import translations

    monkeypatch.setenv("SVAE_CACHE", str(tmp_path / "cache"))
    page, out = tmp_path / "page.md", tmp_path / "translations.json"
    page.write_text("<!-- translations: begin -->\n<!-- translations: end -->\n")
    given = ["--quick", "--seeds", "0", "--tasks", "captions", "colour", "--runs", str(tmp_path)]
    given += ["--figures", str(tmp_path)]
    translations.main([*given, "--out", str(out), "--page", str(page)])
    found = json.loads(out.read_text())
    one = found["captions"][0]
    measured = {claim["id"]: claim["measured"] for claim in found["claims"]}
    assert measured["translation.captions.colour"] == round(one["read_colour"], 5)
    assert measured["translation.captions.probe"] >= round(
        one["probe_digit"] - one["probe_chance_digit"], 5
    )
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 1 + 1 + len(translations.ATTRIBUTES)
    assert (tmp_path / "translations_captions.png").stat().st_size > 5000
    assert one["commit"] == found["commit"]
    # The same again from what is kept.
    translations.main([*given, "--have", "--out", str(out), "--page", str(page)])
    assert json.loads(out.read_text())["captions"] == found["captions"]
    # What other code began is gone on with, and says so.
    assert "begun" not in one
    (tmp_path / "translations" / "colour_0_quick" / "commit.txt").write_text("an earlier one")
    (tmp_path / "translations" / "quick" / "colour_0.json").unlink()
    translations.main([*given, "--out", str(out), "--page", str(page)])
    again = json.loads(out.read_text())["colour"][0]
    assert (again["commit"], again["begun"]) == (found["commit"], "an earlier one")


def test_translations_that_are_not_run_stay_as_they_are(tmp_path: Path) -> None:
    from benchmarks import translations

    committed = translations.ROOT / "benchmarks" / "results" / "translations.json"
    page = translations.ROOT / "docs" / "models" / "translations.md"
    copies = tmp_path / "translations.json", tmp_path / "translations.md"
    for path, copy in zip((committed, page), copies, strict=True):
        copy.write_text(path.read_text())
    given = ["--have", "--runs", str(tmp_path), "--figures", str(tmp_path)]
    given += ["--out", str(copies[0]), "--page", str(copies[1])]
    translations.main(given)
    assert copies[1].read_text() == page.read_text()  # the table is that of the results
    before = json.loads(committed.read_text())
    one = before["captions"][0] | {"seed": 7}
    folder = tmp_path / "translations" / "whole"
    folder.mkdir(parents=True)
    (folder / "captions_7.json").write_text(json.dumps(one))
    translations.main([*given, "--seeds", "7"])
    after = json.loads(copies[0].read_text())
    assert after["captions"] == [*before["captions"], one]
    assert after["layers"] == before["layers"]


def test_finished_parts_are_not_run_again(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def measure(part: str, seed: int) -> dict[str, int]:
        asked.append((part, seed))
        return {"seed": seed}

    seeds = {"a": [0, 1], "b": [0]}
    assert evidence.finished_parts(measure, seeds, tmp_path, have=True) == {}
    found = evidence.finished_parts(measure, seeds, tmp_path)
    assert found == {"a": [{"seed": 0}, {"seed": 1}], "b": [{"seed": 0}]}
    assert asked == [("a", 0), ("a", 1), ("b", 0)]
    (tmp_path / "a_1.json").unlink()
    have = evidence.finished_parts(measure, seeds, tmp_path, have=True)
    assert have == {"a": [{"seed": 0}], "b": [{"seed": 0}]}
    assert evidence.finished_parts(measure, seeds, tmp_path) == found
    assert asked[3:] == [("a", 1)]
