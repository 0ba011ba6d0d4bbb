"""What every file of evidence has: claims with intervals, and what produced them."""

import datetime
import functools
import importlib.metadata
import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

ROOT = Path(__file__).resolve().parents[1]


def claim(name: str, text: str, target: str, values: list[float]) -> dict[str, Any]:
    """Mean over seeds with a t interval, and every single value.

    Of times the fastest: runs that share the machine with others say nothing about the code.
    """
    found: dict[str, Any] = {"id": name, "text": text, "target": target}
    if not values:
        return {**found, "measured": None, "why": "not run yet"}
    mean = min(values) if name.endswith("seconds") else statistics.fmean(values)
    interval = None
    if len(values) > 1 and not name.endswith("seconds"):
        error = statistics.stdev(values) / math.sqrt(len(values))
        half = float(stats.t.ppf(0.975, len(values) - 1)) * error
        high = mean + half
        if all(0 <= value <= 1 for value in values):
            high = min(high, 1.0)  # t knows nothing of the end of a rate's range
        interval = [round(mean - half, 5), round(high, 5)]
    shown = [round(value, 5) for value in values]
    return {**found, "measured": round(mean, 5), "interval": interval, "values": shown}


def average(runs: list[dict[str, Any]], name: str) -> float | None:
    """Mean over seeds of a number that all runs have."""
    values = [one.get(name) for one in runs]
    if any(value is None for value in values):
        return None
    return sum(values) / len(values)


def evidence(command: str, claims: list[dict[str, Any]]) -> dict[str, Any]:
    """The claims with what produced them."""
    packages = ("torch", "torchvision", "pyro-ppl", "pytorch-lightning", "zuko", "numpy")
    return {
        "command": command,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), {_gpu()}",
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "claims": claims,
    }


def commit() -> str:
    """That of the code at hand."""
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False
    ).stdout.strip()


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def finished(path: Path, measure: Callable[[], Any]) -> Any:
    """What ``measure`` gives, from its file where a run was finished before."""
    if not path.exists():
        found = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(f"{path.stem}: {found}", flush=True)
    return json.loads(path.read_text(encoding="utf-8"))


def finished_parts(
    measure: Callable[[str, int], Any],
    seeds: Mapping[str, Sequence[int]],
    folder: Path,
    have: bool = False,
) -> dict[str, list[Any]]:
    """Every part with each of its seeds, from their files where they were finished before.

    Args:
        measure: From part and seed to its numbers.
        seeds: Those of each part, in the order in which they are run.
        folder: Where the files lie.
        have: Take what is finished, and run nothing.
    """
    found: dict[str, list[Any]] = {}
    for part, some in seeds.items():
        for seed in some:
            path = folder / f"{part}_{seed}.json"
            if not have or path.exists():
                one = finished(path, functools.partial(measure, part, seed))
                found.setdefault(part, []).append(one)
    return found


def put_between(page: Path, name: str, text: str) -> None:
    """Puts text between the marks of that name on a page.

    Raises:
        ValueError: If the page has no such marks.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    whole = page.read_text(encoding="utf-8")
    before, found, rest = whole.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"{page} lacks the marks {begin} and {end}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def command(script: str, arguments: list[str] | None) -> str:
    """The command line of a benchmark that was called with ``arguments``, or from a shell.

    Without what says where finished runs lie, which changes nothing of what is measured.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--runs" in given:
        place = given.index("--runs")
        del given[place : place + 2]
    given = [word for word in given if word != "--have"]
    return shlex.join(["python", f"benchmarks/{script}.py", *given])


def write(command: str, claims: list[dict[str, Any]], path: Path, **more: Any) -> None:
    """Writes claims with their evidence, and what else belongs to them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(evidence(command, claims) | more, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
