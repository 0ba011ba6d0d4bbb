"""Claims are compared with their targets here and nowhere else."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scoreboard

RESULT: dict[str, Any] = {
    "command": "python experiments/mnist_svae.py --seed 0",
    "commit": "0123456789abcdef",
    "date": "2026-01-01",
    "machine": "2 cores, no GPU",
    "versions": {"torch": "2.6.0"},
    "claims": [
        {
            "id": "core.accuracy",
            "text": "test accuracy",
            "target": ">= 0.992",
            "measured": 0.9934,
            "interval": [0.9918, 0.9947],
            "met": False,
        },
        {
            "id": "speed.step",
            "text": "milliseconds a step on a GPU",
            "target": "<= 2",
            "measured": None,
            "met": True,
            "why": "no GPU",
        },
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    results = tmp_path / "results"
    results.mkdir()
    (results / "core.json").write_text(json.dumps(RESULT))
    (results / "curve.json").write_text("[1, 2, 3]")
    (results / "settings.json").write_text('{"seed": 0}')
    return results


@pytest.mark.parametrize(
    ("target", "measured", "met"),
    [
        (">= 0.992", 0.992, True),
        (">= 0.992", 0.9919, False),
        ("> 0.992", 0.992, False),
        ("<= 12", 12, True),
        ("<= 12", 12.01, False),
        ("< 12", 12, False),
        ("== 0", 0, True),
        (">= 0.8, <= 1.1", 0.95, True),
        (">= 0.8, <= 1.1", 1.2, False),
        (">= 0.8, <= 1.1", 0.7, False),
        (">= -1e-3", -0.01, False),
        (">= 0.992", None, False),
        (">= 0.992", float("nan"), False),
    ],
)
def test_met_follows_from_target_and_measured(
    target: str, measured: float | None, met: bool
) -> None:
    assert scoreboard.is_met(target, measured) is met


@pytest.mark.parametrize("target", ["0.992", "about 1", ">= 99 %", "", ">= 1,"])
def test_an_unreadable_target_says_what_is_expected(target: str) -> None:
    with pytest.raises(ValueError, match="expected a relation and a number"):
        scoreboard.is_met(target, 1.0)


def test_a_typed_met_is_overruled(folder: Path) -> None:
    (result,) = scoreboard.read_results(folder).values()
    assert [claim["met"] for claim in result["claims"]] == [True, False]


def test_page_shows_every_claim_and_its_command(folder: Path) -> None:
    text = scoreboard.page(scoreboard.read_results(folder))
    assert "1 of 2 claims are met." in text
    assert "| test accuracy | >= 0.992 | 0.9934 (0.9918, 0.9947) | yes |" in text
    assert "| milliseconds a step on a GPU | <= 2 | not measured: no GPU | **no** |" in text
    assert text.count("`python experiments/mnist_svae.py --seed 0`") == 2
    assert "commit 0123456789" in text


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"id": "other.accuracy"}, "begins with none of core, speed"),
        ({"text": ""}, "lacks text"),
        ({"measured": None}, 'say "why"'),
        ({"id": "speed.step"}, "stands in core.json too"),
    ],
)
def test_a_broken_claim_is_refused(folder: Path, claim: dict[str, Any], message: str) -> None:
    result = copy.deepcopy(RESULT)
    result["claims"] = [RESULT["claims"][0] | {"id": "core.other"} | claim]
    (folder / "other.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match=message):
        scoreboard.read_results(folder)


def test_check_finds_what_is_stale(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "scoreboard.md"
    arguments = ["--results", str(folder), "--page", str(page)]
    assert scoreboard.main([*arguments, "--check"]) == 1
    assert not page.exists()
    assert scoreboard.main(arguments) == 0
    assert json.loads((folder / "core.json").read_text())["claims"][0]["met"] is True
    assert scoreboard.main([*arguments, "--check"]) == 0
    page.write_text(page.read_text().replace("0.9934", "0.9999"))
    assert scoreboard.main([*arguments, "--check"]) == 1


def test_the_committed_page_is_up_to_date() -> None:
    assert scoreboard.main(["--check"]) == 0
