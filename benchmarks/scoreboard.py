"""Writes ``docs/scoreboard.md`` from the evidence in ``benchmarks/results``.

Question: what do we promise, what was measured, and how is it repeated?
Expectation: one row a claim, unmet claims visible, every row with its command.
Cost: below a second.
Command: ``python benchmarks/scoreboard.py``; with ``--check`` it fails where the page is stale

A result is a JSON object with ``claims``; other JSON files beside it are passed over. ``met`` is
computed here, from ``target`` and ``measured``, and written back into the file: nobody types it.
"""

import argparse
import json
import math
import operator
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "scoreboard.md"

TOPICS = {
    "core": "The supervised VAE",
    "speed": "Speed",
    "guides": "Guides and labels",
    "concepts": "Concept bridges",
    "invariances": "Invariance bridges",
    "audit": "Audit",
    "compare": "Against other libraries",
    "translation": "Translation bridges",
}
RELATIONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}
_BOUND = re.compile(r"(>=|<=|==|>|<)\s*([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)")
_NOTHING = "Nothing has been measured yet.\n"


def is_met(target: str, measured: float | None) -> bool:
    """Compares a measurement with its target.

    Args:
        target: One bound or several, all of which must hold: ``">= 0.992"``, ``">= 0.8, <= 1.1"``.
        measured: The number, or None where it could not be measured.

    Raises:
        ValueError: If ``target`` is no comma-separated list of a relation and a number.
    """
    bounds = [_BOUND.fullmatch(part.strip()) for part in target.split(",")]
    if not all(bounds):
        raise ValueError(
            f'target is "{target}", expected a relation and a number such as ">= 0.992", or '
            f'several joined by commas such as ">= 0.8, <= 1.1"'
        )
    if measured is None or not math.isfinite(measured):
        return False
    return all(RELATIONS[bound[1]](measured, float(bound[2])) for bound in bounds if bound)


def read_results(folder: Path) -> dict[Path, dict[str, Any]]:
    """Reads every result of a folder, with ``met`` of each claim computed afresh.

    Raises:
        ValueError: If a claim has no id, text or target, an id stands twice or begins with no
            known topic, nothing was measured and no reason is given, or the command is missing.
    """
    results: dict[Path, dict[str, Any]] = {}
    seen: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.json")):
        result = json.loads(path.read_text())
        if not isinstance(result, dict) or "claims" not in result:
            continue
        if not result.get("command"):
            raise ValueError(f'{path.name}: no "command"; a claim has to say how it is repeated')
        for claim in result["claims"]:
            _check(claim, path)
            if claim["id"] in seen:
                raise ValueError(
                    f"{path.name}: claim {claim['id']} stands in {seen[claim['id']].name} too"
                )
            seen[claim["id"]] = path
            claim["met"] = is_met(claim["target"], claim.get("measured"))
        results[path] = result
    return results


def page(results: dict[Path, dict[str, Any]]) -> str:
    """Renders the results as one Markdown page, a table for each topic."""
    claims = [(claim, result) for result in results.values() for claim in result["claims"]]
    n_met = sum(claim["met"] for claim, _ in claims)
    lines = [
        "# Scoreboard",
        "",
        "What is promised, what was measured, and how to repeat it.",
        "`python benchmarks/scoreboard.py` writes this page from `benchmarks/results/*.json`;",
        "whether a target is met is computed from the target and the measurement.",
        "",
    ]
    if not claims:
        return "\n".join(lines) + "\n" + _NOTHING
    lines += [f"{n_met} of {len(claims)} claims are met.", ""]
    for topic, title in TOPICS.items():
        rows = [pair for pair in claims if _topic(pair[0]["id"]) == topic]
        if rows:
            lines += [
                f"## {title}",
                "",
                "| claim | target | measured | met |",
                "|---|---|---|---|",
            ]
            lines += [_row(claim) for claim, _ in sorted(rows, key=lambda pair: pair[0]["id"])]
            lines += ["", *_evidence(rows), ""]
    return "\n".join(lines).rstrip() + "\n"


def _topic(claim_id: str) -> str:
    return re.split(r"[^a-z]", claim_id, maxsplit=1)[0]


def _check(claim: dict[str, Any], path: Path) -> None:
    missing = [key for key in ("id", "text", "target") if not claim.get(key)]
    if missing:
        raise ValueError(f"{path.name}: a claim lacks {', '.join(missing)}: {claim}")
    if _topic(claim["id"]) not in TOPICS:
        raise ValueError(
            f"{path.name}: claim {claim['id']} begins with none of {', '.join(TOPICS)}"
        )
    if claim.get("measured") is None and not claim.get("why"):
        raise ValueError(
            f'{path.name}: claim {claim["id"]} was not measured; say "why", such as "no GPU"'
        )


def _number(value: float) -> str:
    return f"{value:.4g}"


def _row(claim: dict[str, Any]) -> str:
    measured = claim.get("measured")
    if measured is None:
        shown = f"not measured: {claim['why']}"
    else:
        shown = _number(measured)
        if claim.get("interval"):
            shown += f" ({', '.join(map(_number, claim['interval']))})"
    cells = [claim["text"], claim["target"], shown, "yes" if claim["met"] else "**no**"]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _evidence(rows: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    """One line for each result behind a table: its command, machine, commit, date and versions."""
    lines: dict[str, None] = {}  # a dict keeps the order and drops what stands twice
    for _, result in rows:
        versions = [f"{name} {number}" for name, number in result.get("versions", {}).items()]
        origin = [result.get("machine", ""), result.get("date", ""), *versions]
        if result.get("commit"):
            origin.append(f"commit {result['commit'][:10]}")
        lines[f"- `{result['command']}`: " + ", ".join(filter(None, origin))] = None
    return ["Repeat with:", "", *lines]


def main(arguments: list[str] | None = None) -> int:
    """Writes the page and ``met``, or with ``--check`` says whether both are up to date."""
    parser = argparse.ArgumentParser(description="Write docs/scoreboard.md from the results.")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--check", action="store_true", help="compare only; fail where stale")
    args = parser.parse_args(arguments)
    results = read_results(args.results)
    wanted = {path: json.dumps(result, indent=1) + "\n" for path, result in results.items()}
    wanted[args.page] = page(results)
    stale = [
        path
        for path, text in wanted.items()
        if not path.exists() or _content(path.read_text(), path) != _content(text, path)
    ]
    if not args.check:
        for path in stale:
            path.write_text(wanted[path])
    for path in stale:
        print(f"{'stale' if args.check else 'wrote'}: {path}")
    return int(args.check and bool(stale))


def _content(text: str, path: Path) -> object:
    """Results are compared as data, whatever their indentation; pages as text."""
    return json.loads(text) if path.suffix == ".json" else text


if __name__ == "__main__":
    sys.exit(main())
