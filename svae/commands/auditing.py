"""``svae audit`` and ``svae report``: a trained model's certificate, and a page about it."""

import json
import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from svae.auditing import AuditSettings, Gate, audit, compare, failed
from svae.commands.explaining import explained
from svae.data import choose
from svae.loading import load
from svae.reporting import ReportSettings, report
from svae.saving import writable

__all__ = ["audit_command", "report_command"]

Numbers = dict[str, Any]


def audit_command(options: Namespace) -> int:
    """Audits what the options describe; gives the exit status.

    Raises:
        SystemExit: With a message, if model, data or the other audit are not there.
    """
    try:
        for text in options.fail_if:  # before anything is measured
            Gate.parse(text)
    except ValueError as error:
        print(f"svae audit: {error}", file=sys.stderr)
        return 2
    run = Path(options.run)
    numbers = _audited(run, options)
    for name, value in numbers.items():
        if name.endswith(("_low", "_high")) or isinstance(value, dict):
            continue
        interval = ""
        if f"{name}_low" in numbers:
            interval = f"  [{numbers[f'{name}_low']:.4g}, {numbers[f'{name}_high']:.4g}]"
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"{name:<36}{shown}{interval}")
    if options.compare is not None:
        other = _read(Path(options.compare) / "audit.json")
        print(f"\nfrom {options.compare} to {options.run}, * where it is hardly chance:")
        for one in compare(other, numbers):
            print(f"  {one}")
    try:
        wrong = failed(numbers, options.fail_if)
    except ValueError as error:
        print(f"svae audit: {error}", file=sys.stderr)
        return 2
    for text in wrong:
        print(f"FAILED: {text}", file=sys.stderr)
    return 1 if wrong else 0


def _audited(run: Path, options: Namespace) -> Numbers:
    """The audit that lies in the folder, else a new one."""
    path = run / "audit.json"
    settings = AuditSettings(n_test=options.n_test, seed=options.seed)
    if path.exists() and not options.again:
        found = _read(path)
        if found.get("settings") == asdict(settings):
            return found
    model, data, layers = _opened(run, options)
    result = audit(model, data, None, settings, layers=layers)
    numbers = {"dataset": data.name, **result.flat(), "settings": asdict(settings)}
    (writable(run) / "audit.json").write_text(json.dumps(numbers, indent=1) + "\n", "utf-8")
    return numbers


def report_command(options: Namespace) -> Path:
    """Writes the page that the options describe.

    Raises:
        SystemExit: With a message, if the model or its data are not there.
    """
    run = Path(options.run)
    model, data, layers = _opened(run, options)
    settings = ReportSettings(seed=options.seed)
    page = report(model, data, options.out or run / "report", layers=layers, settings=settings)
    print(page)
    return page


def _opened(run: Path, options: Namespace) -> tuple[Any, Any, dict[str, Any] | None]:
    """The model in a folder, its data and, of an explained network, all of its layers."""
    try:
        if (found := explained(run)) is not None:
            layers, data = found
            return list(layers.values())[-1], data, layers
        model = load(run)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"svae: {error}") from error
    name = _data_name(run, options.data)
    return model, choose(name, options.data_root, seed=options.seed), None


def _data_name(run: Path, given: str | None) -> str:
    if given is not None:
        return given
    path = run / "metrics.json"
    name = _read(path).get("dataset") if path.exists() else None
    if name is None:
        raise SystemExit(f"svae audit: {path} does not name the data set; give --data")
    return str(name)


def _read(path: Path) -> Numbers:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SystemExit(
            f"svae audit: there is no {path}; audit that model first: svae audit {path.parent}"
        ) from None
