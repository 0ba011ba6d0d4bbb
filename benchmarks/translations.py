"""Does a conditional flow say in pictures what a source says, and all that it leaves open?

Question: are a caption's attributes in the picture; are pictures of one caption as different as
real ones; does v know nothing of the source; and when would the mean of the code do?
Expectation: 95 % of each attribute, .8 to 1.2 of the real diversity, probes within three points
of chance; the mean is as good where a layer shows nearly everything and far worse at the logits.
Cost: half an hour of one core for a seed of the captions, an hour and a half for the four layers,
twenty minutes to an hour for each other task. Finished runs are kept.

    python benchmarks/translations.py       # writes results, and table and pictures of the page
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.evidence import (  # noqa: E402
    claim,
    command,
    commit,
    finished_parts,
    put_between,
    write,
)

TASKS = ("captions", "layers", "attributes", "colour", "resolution", "domains")
# Of what no claim is made, half as many steps as by default show what there is to see.
STEPS = {task: ["--steps", "1500"] for task in ("colour", "resolution")}
ATTRIBUTES = ("digit", "colour", "thickness", "slant")
# Rows of the table: title, task, and what stands before the names of its numbers.
ROWS = (
    ("captions to coloured digits", "captions", ""),
    ("LeNet's conv1 to digits", "layers", "conv1."),
    ("LeNet's pool2", "layers", "pool2."),
    ("LeNet's logits", "layers", "ip2."),
    ("LeNet's answer", "layers", "answer."),
    ("all attributes to dSprites", "attributes", "all."),
    ("shape and size alone", "attributes", "shape and size."),
    ("grey to coloured digits", "colour", ""),
    ("7 by 7 pixels to 28 by 28", "resolution", ""),
    ("name of the domain to its pictures", "domains", ""),
)


# Pictures of the page, by what they are named there: task and what the experiment names them.
FIGURES = {
    "captions": ("captions", "translations.png"),
    "logits": ("layers", "ip2_translations.png"),
    "answer": ("layers", "answer_translations.png"),
}


def copy_figures(options: argparse.Namespace) -> None:
    """Puts pictures of the first seed, where they were drawn here, beside the page."""
    quick = "_quick" * options.quick
    for name, (task, picture) in FIGURES.items():
        path = options.runs / "translations" / f"{task}_0{quick}" / picture
        if path.exists():
            shutil.copyfile(path, options.figures / f"translations_{name}.png")


def run(task: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The experiment, without the single intervals."""
    from experiments.translate import main as experiment

    out = options.runs / "translations" / f"{task}_{seed}{'_quick' * options.quick}"
    begun = out / "commit.txt"
    if not begun.exists():
        out.mkdir(parents=True, exist_ok=True)
        begun.write_text(commit(), encoding="utf-8")
    first = begun.read_text(encoding="utf-8")
    found = experiment(
        ["--task", task, "--seed", str(seed), "--encoder", "words", "--out", str(out)]
        + [*STEPS.get(task, []), "--resume"]
        + ["--quick"] * options.quick
    )
    ends = ("_low", "_high")
    kept = {name: value for name, value in found.items() if not name.endswith(ends)}
    # A run that was gone on with has numbers, or models, of the code that began it.
    last = commit()
    return kept | {"commit": last} | ({"begun": first} if first != last else {})


def leak(one: dict[str, Any]) -> float:
    """How far the most telling probe of an attribute is above chance."""
    return max(one[f"probe_{name}"] - one[f"probe_chance_{name}"] for name in ATTRIBUTES)


CLAIMS: tuple[tuple[str, str, str, str, Callable[[dict[str, Any]], float]], ...] = (
    *(
        (f"captions.{name}", f"{name} of the caption, read from its translations", ">= 0.95",
         "captions", lambda one, name=name: one[f"read_{name}"])
        for name in ATTRIBUTES
    ),
    ("captions.diversity", "spread of the translations of a caption over that of real pictures "
     "with its attributes", ">= 0.8, <= 1.2", "captions", lambda one: one["diversity"]),
    ("captions.probe", "probe of an attribute from v, less chance, the most telling of four",
     "<= 0.03", "captions", leak),
    ("layers.early", "Frechet distance of the flow's pictures over that of the mean translator's, "
     "LeNet's first layer", "<= 1.2", "layers",
     lambda one: one["conv1.frechet_flow"] / one["conv1.frechet_mean"]),
    ("layers.last", "Frechet distance of the mean translator's pictures over that of the flow's, "
     "LeNet's logits", ">= 5", "layers",
     lambda one: one["ip2.frechet_mean"] / one["ip2.frechet_flow"]),
    ("layers.answer", "the same, LeNet's answer, the class probabilities", ">= 5", "layers",
     lambda one: one["answer.frechet_mean"] / one["answer.frechet_flow"]),
    ("layers.probe", "probe of the answer from v, less chance, LeNet's worst layer", "<= 0.03",
     "layers", lambda one: max(
         one[f"{k}.probe_digit"] - one[f"{k}.probe_chance_digit"]
         for k in ("conv1", "pool2", "ip2", "answer"))),
)  # fmt: skip


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """A row for each source and target, of the first seed."""
    lines = [
        "| from, to | determined | Fréchet: draws | mean | target itself | better | gap, nats |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, task, stem in ROWS:
        if not found.get(task) or f"{stem}explained" not in found[task][0]:
            continue
        one = found[task][0]
        cells = [f"{one[f'{stem}explained']:.0%}"]
        cells += [f"{one[f'{stem}frechet_{name}']:.3g}" for name in ("flow", "mean", "target")]
        gap = round(one[f"{stem}gap"], 2) + 0.0  # no minus before a zero
        cells += [one[f"{stem}better"], f"{gap:.2f}"]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    if found.get("captions"):
        one = found["captions"][0]
        lines += ["", "| of captions | read from draws | from the mean | probe of v | chance |"]
        lines.append("|---|---|---|---|---|")
        for name in ATTRIBUTES:
            kinds = ("read", "mean_read", "probe", "probe_chance")
            cells = [f"{one[f'{kind}_{name}']:.3f}" for kind in kinds]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Writes the claims, every run and the table of the page."""
    parser = argparse.ArgumentParser(description="Translation bridges against the mean.")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], help="of the captions")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--have", action="store_true", help="write what is finished, run nothing")
    parser.add_argument("--quick", action="store_true", help="small settings, for tests")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    results = ROOT / "benchmarks" / "results"
    parser.add_argument("--out", type=Path, default=results / "translations.json")
    page = ROOT / "docs" / "models" / "translations.md"
    parser.add_argument("--page", type=Path, default=page)
    parser.add_argument("--figures", type=Path, default=ROOT / "docs" / "_static")
    options = parser.parse_args(arguments)
    seeds = {task: options.seeds[: None if task == "captions" else 1] for task in options.tasks}
    folder = options.runs / "translations" / ("quick" if options.quick else "whole")
    found = finished_parts(
        lambda task, seed: run(task, seed, options), seeds, folder, options.have
    )
    # Tasks and seeds that are not run now stay as they are; every run says which code made it.
    before = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    for task in TASKS:
        by_seed = {one["seed"]: one for runs in (before, found) for one in runs.get(task, [])}
        if by_seed:
            found[task] = [by_seed[seed] for seed in sorted(by_seed)]
    claims = [
        claim(f"translation.{name}", text, target, [float(of(one)) for one in found.get(task, [])])
        for name, text, target, task, of in CLAIMS
        if not options.quick or task == "captions"
    ]
    write(command("translations", arguments), claims, options.out, **found)
    put_between(options.page, "translations", table(found))
    copy_figures(options)
    for one in claims:
        print(f"{one['id']:<32}{one['measured']}  {one['target']}")


if __name__ == "__main__":
    main()
