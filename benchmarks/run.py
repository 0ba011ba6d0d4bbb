"""The comparison: everyone whom a user could pick instead, on one split, by one loop.

Question: what does a supervised VAE with a split latent give, and what does it cost, beside
classifiers, other VAEs, flows and generators of the same size?
Expectation: as accurate as a classifier, and the best of those that split their latent at keeping
the class while everything else varies.
Cost: half a minute to two for each model and seed. Finished cells are kept, and run side by side
where there are cores.

    python benchmarks/run.py --suite digits --tune    # settings, on validation data
    python benchmarks/run.py --suite digits           # writes benchmarks/results/run_digits.json
    python benchmarks/run.py --suite mnist --quick    # a few minutes, for the tests
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.evidence import average, claim, command, commit, write  # noqa: E402
from benchmarks.measuring import cell, score  # noqa: E402
from benchmarks.suites import SUITES  # noqa: E402

# Columns of each table: name, title, format, and whether more is better.
Column = tuple[str, str, str, bool]
TABLES: dict[str, tuple[Column, ...]] = {
    "Class part, nuisance part": (
        ("preservation", "class kept", ".3f", True),
        ("preservation_swapped", "kept, swapped", ".3f", True),
        ("diversity_ratio", "diversity", ".2f", True),
        ("conditional_coverage", "coverage in class", ".2f", True),
        ("switch_rate", "switch rate", ".3f", True),
        ("leakage_samples_strongest", "leakage", ".3f", False),
        ("leakage_means_strongest", "leakage, means", ".3f", False),
        ("reconstruction_preservation", "reconstruction kept", ".3f", True),
    ),
    "Samples": (
        ("fid", "FID", ".3g", False),
        ("fid_conditional", "FID in class", ".3g", False),
        ("fid_reconstructed", "FID redrawn", ".3g", False),
        ("kid", "KID", ".2g", False),
        ("precision", "precision", ".2f", True),
        ("recall", "recall", ".2f", True),
        ("density", "density", ".2f", True),
        ("coverage", "coverage", ".2f", True),
    ),
    "Answers": (
        ("test_accuracy", "accuracy", ".3f", True),
        ("test_accuracy_12_samples", "12 samples", ".3f", True),
        ("nll", "NLL", ".3f", False),
        ("ece", "ECE", ".3f", False),
        ("fgsm_accuracy", "FGSM", ".3f", True),
        ("pgd_accuracy", "PGD", ".3f", True),
        ("rotated_accuracy", "rotated", ".3f", True),
        ("noisy_accuracy", "noisy", ".3f", True),
        ("elbo", "ELBO", ".1f", True),
        ("iwae", "IWAE", ".1f", True),
    ),
    "Cost": (
        ("seconds_to_target", "seconds to target", ".1f", False),
        ("seconds_per_epoch", "seconds per epoch", ".1f", False),
        ("seconds_training", "seconds of training", ".0f", False),
        ("samples_per_second", "samples per second", ",.0f", True),
        ("peak_memory_gb", "memory, GB", ".2f", False),
        ("n_parameters", "parameters", ",.0f", False),
    ),
}
BETTER = {name: up for columns in TABLES.values() for name, _, _, up in columns}
# What must not be bought with its opposite.
OPPOSITES = (
    ("preservation", "diversity_ratio"),
    ("leakage_samples_strongest", "reconstruction_preservation"),
    ("leakage_means_strongest", "reconstruction_preservation"),
    ("test_accuracy", "fid"),
)


class Job(NamedTuple):
    """A cell that is to be run.

    Attributes:
        suite: Name of the suite.
        model: Name of the contestant.
        seed: Of everything random.
        quick: Few images and two epochs.
        setting: Which of the contestant's settings.
        tuning: Whether settings are being tried, on validation data.
    """

    suite: str
    model: str
    seed: int
    quick: bool
    setting: int
    tuning: bool

    def file(self, runs: Path) -> Path:
        """Where its numbers are kept."""
        kind = f"{self.suite}{'_tuning' * self.tuning}{'_quick' * self.quick}"
        name = f"{self.model.replace(' ', '_')}_{self.setting}_{self.seed}.json"
        return runs / "run" / kind / name

    def values(self) -> dict[str, float]:
        """The setting itself."""
        from benchmarks.contest import CONTESTANTS

        return CONTESTANTS[self.model].settings[self.setting]


def code_version() -> str:
    """A hash of everything that a cell's numbers depend on."""
    digest = hashlib.sha256()
    here = ROOT / "benchmarks"
    places = [*(ROOT / "svae").rglob("*.py"), *(here / "peers").glob("*.py")]
    places += [here / "contest.py", here / "measuring.py", here / "suites.py"]
    for path in sorted(places):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def jobs_of(options: argparse.Namespace) -> list[Job]:
    """Every cell: each setting of each model where they are tried, else what was chosen."""
    from benchmarks.contest import CONTESTANTS

    chosen = {} if options.tune else previous(options.tuned).get("chosen", {})
    return [
        Job(options.suite, model, seed, options.quick, setting, options.tune)
        for model in options.models
        for setting in (
            range(len(CONTESTANTS[model].settings)) if options.tune else [chosen.get(model, 0)]
        )
        for seed in options.seeds
    ]


def previous(path: Path) -> dict[str, Any]:
    """What an earlier run wrote, if one did."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def kept(job: Job, options: argparse.Namespace) -> dict[str, Any] | None:
    """The numbers of a finished cell; None for those of a setting that has another value now."""
    one = previous(job.file(options.runs))
    return one if one and one.get("setting") == job.values() else None


def keep(job: Job, found: dict[str, Any], options: argparse.Namespace) -> None:
    """Writes the numbers of a cell, and what they are of."""
    path = job.file(options.runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = {"seed": job.seed, "quick": job.quick, "setting": job.values()}
    path.write_text(json.dumps({**found, **made}, indent=1), encoding="utf-8")


def recall(options: argparse.Namespace, version: str, jobs: list[Job]) -> None:
    """Keeps cells of the results so far that are not here: a clone runs only what is new."""
    cells = {} if options.tune else previous(options.out).get("cells", {})
    for job in jobs:
        wanted = {"seed": job.seed, "quick": job.quick, "setting": job.values()}
        wanted |= {} if options.mixed else {"code": version}
        for one in cells.get(job.model, []):
            same = all(one.get(name) == value for name, value in wanted.items())
            if same and kept(job, options) is None:
                keep(job, one, options)


def run_cells(options: argparse.Namespace) -> None:
    """Runs what is not finished, side by side; a cell that fails leaves the others alone."""
    version = code_version()
    jobs = jobs_of(options)
    recall(options, version, jobs)
    waiting = [job for job in jobs if kept(job, options) is None]
    if waiting:  # before hours of work, not after them
        refuse_mixture({version} | codes(gathered(options)), options)
    made, failed = {"code": version, "commit": commit()}, []
    engine = ray_engine if options.engine == "ray" else process_engine
    for job, result in engine(options, waiting):
        name = f"{job.model}, seed {job.seed}"
        if isinstance(result, BaseException):
            failed.append(f"{name}: {type(result).__name__}: {result}")
            print(f"FAILED: {failed[-1]}", flush=True)
        else:
            keep(job, {**result, **made}, options)
            print(f"{name}: {result['seconds_training']:.0f} s of training", flush=True)
    if failed:
        raise SystemExit(f"{len(failed)} cells failed; the others are kept:\n" + "\n".join(failed))


def process_engine(options: argparse.Namespace, jobs: list[Job]) -> Iterator[tuple[Job, Any]]:
    """Results as they come, from a process for each core."""
    if options.cores == 1 and options.quick:
        for job in jobs:
            try:
                yield job, cell(*job)
            except Exception as error:  # noqa: BLE001  # whatever it is, other cells go on
                yield job, error
        return
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    # The peak of a process is that of all its cells, so that each has its own.
    each = None if options.quick else 1
    with ProcessPoolExecutor(options.cores, context, max_tasks_per_child=each) as pool:
        waiting = {pool.submit(cell, *job): job for job in jobs}
        for future in as_completed(waiting):
            error = future.exception()
            yield waiting[future], future.result() if error is None else error


def ray_engine(options: argparse.Namespace, jobs: list[Job]) -> Iterator[tuple[Job, Any]]:
    """Results as they come, from a Ray cluster: the one that ``$RAY_ADDRESS`` names, else here."""
    import ray

    if "RAY_ADDRESS" in os.environ:
        ray.init(runtime_env={"working_dir": str(ROOT), "excludes": ["/runs", "/.git", "/data"]})
    else:  # workers here inherit the environment
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        # Ray's workers give way to everyone else; on one machine the cells are what it is for.
        os.environ.setdefault("RAY_worker_niceness", "0")
        ray.init(num_cpus=options.cores, include_dashboard=False)
    remote = ray.remote(num_cpus=1, max_calls=0 if options.quick else 1)(cell)
    waiting = {remote.remote(*job): job for job in jobs}
    while waiting:
        done, _ = ray.wait(list(waiting))
        for one in done:
            try:
                yield waiting[one], ray.get(one)
            except Exception as error:  # noqa: BLE001  # whatever it is, other cells go on
                yield waiting[one], error
            del waiting[one]
    ray.shutdown()


def gathered(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Finished cells by model: those asked for, and of others what the results so far hold."""
    from benchmarks.contest import CONTESTANTS

    before = {} if options.tune else previous(options.out).get("cells", {})
    found: dict[str, list[dict[str, Any]]] = {
        model: [one for one in runs if one.get("quick") == options.quick]
        for model, runs in before.items()
        if model not in options.models
    }
    for job in jobs_of(options):
        one = kept(job, options)
        if one is not None:
            found.setdefault(job.model, []).append(one)
    return {model: found[model] for model in CONTESTANTS if found.get(model)}


def finished_cells(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Cells by model, after those not finished are run, unless only what is there is wanted."""
    if not options.have:
        run_cells(options)
    found = gathered(options)
    refuse_mixture(codes(found), options)
    return found


def codes(found: dict[str, list[dict[str, Any]]]) -> set[str]:
    """Versions of the code that cells come from."""
    return {one["code"] for runs in found.values() for one in runs}


def refuse_mixture(versions: set[str], options: argparse.Namespace) -> None:
    """Stops where cells would be of different versions of the code.

    Raises:
        SystemExit: If they are, unless that is said to be wanted.
    """
    if len(versions) > 1 and not options.mixed:
        raise SystemExit(
            f"cells of {len(versions)} versions of the code, {', '.join(sorted(versions))}, in "
            f"{options.runs / 'run'} and {options.out}. Remove the old ones, or say --mixed."
        )


def tune(options: argparse.Namespace) -> None:
    """Tries every setting of every model, and writes which was best by :func:`score`.

    Models that were not asked for keep what was chosen before.
    """
    from benchmarks.contest import CONTESTANTS

    found, before = finished_cells(options), previous(options.tuned)
    scores: dict[str, list[float]] = {}
    settings: dict[str, Any] = {}
    for model, one in CONTESTANTS.items():
        if model in found:
            tried = [[run for run in found[model] if run["setting"] == s] for s in one.settings]
            if not all(tried):
                print(f"{model}: {sum(map(bool, tried))} of {len(tried)} settings, none is chosen")
                continue
            scores[model] = [round(sum(map(score, runs)) / len(runs), 4) for runs in tried]
            settings[model] = list(one.settings)
        elif model in before.get("chosen", {}):
            scores[model] = before["scores"][model]
            settings[model] = before["settings"][model]
    chosen = {model: values.index(max(values)) for model, values in scores.items()}
    write(
        command("run", options.given), [], options.tuned, chosen=chosen, scores=scores,
        settings=settings, code=sorted(codes(found) | set(before.get("code", []))),
    )  # fmt: skip
    lines = ["| model | tried | score | taken |", "|---|---|---|---|"]
    for model, values in scores.items():
        name = next(iter(settings[model][0]))
        tried = ", ".join(f"{one[name]:g}" for one in settings[model])
        taken = settings[model][chosen[model]][name]
        shown = ", ".join(f"{value:.3g}" for value in values)
        words = name.replace("_", " ").replace("beta", "β")
        lines.append(f"| {model} | {words} {tried} | {shown} | {taken:g} |")
    options.tables.mkdir(parents=True, exist_ok=True)
    path = options.tables / f"run_{options.suite}_tuning.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def slim(one: dict[str, Any]) -> dict[str, Any]:
    """Numbers of a cell with five digits; intervals over one test set stay with the cell."""
    kept = {
        name: value
        for name, value in one.items()
        if not isinstance(value, list) and not name.endswith(("_low", "_high"))
    }
    return {
        name: float(f"{value:.5g}") if isinstance(value, float) else value
        for name, value in kept.items()
    }


def tables(found: dict[str, list[dict[str, Any]]]) -> str:
    """A row for each model in every table that it has a number of, means with half an interval.

    The interval is that of 95 % over seeds. Columns that no model has a number of are left out.
    """
    lines: list[str] = []
    for title, every in TABLES.items():
        columns = [
            one
            for one in every
            if any(average(runs, one[0]) is not None for runs in found.values())
        ]
        lines += [f"**{title}**", ""]
        lines.append(f"| model | {' | '.join(head for _, head, _, _ in columns)} |")
        lines.append("|---" * (1 + len(columns)) + "|")
        for model, runs in found.items():
            cells = [shown(runs, name, form) for name, _, form, _ in columns]
            if any(cells):
                lines.append(f"| {model} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def shown(runs: list[dict[str, Any]], name: str, form: str) -> str:
    """A number's mean over seeds, with half a 95 % interval where seeds differ."""
    value = average(runs, name)
    if value is None:
        return ""
    values = [float(run[name]) for run in runs]
    interval = claim(name, "", "", values).get("interval")
    if interval is None or max(values) == min(values):
        return format(value, form)
    # The intervals of rates end at 1: their lower half is the whole one.
    half = f" ± {format(value - interval[0], form)}"
    return f"{format(value, form)}{half}"


def exceptions(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Peers outside the frontier of ours: better than one of ours on it, and worse in nothing.

    Two numbers that are opposites are looked at together: what is bought with the other is a
    choice, what costs nothing is not.
    """
    from benchmarks.contest import CONTESTANTS

    sign = {name: 1 if up else -1 for name, up in BETTER.items()}

    def dominates(one: list[float], other: list[float]) -> bool:
        return one != other and all(a >= b for a, b in zip(one, other, strict=True))

    said = []
    for pair in OPPOSITES:
        points = {}
        for model, runs in found.items():
            values = [average(runs, name) for name in pair]
            if None not in values:
                points[model] = [sign[n] * float(v) for n, v in zip(pair, values, strict=True)]  # type: ignore[arg-type]
        ours = {name: point for name, point in points.items() if CONTESTANTS[name].ours}
        front = {
            name: point
            for name, point in ours.items()
            if not any(dominates(other, point) for other in ours.values())
        }
        for model, point in points.items():
            beaten = [name for name, other in front.items() if dominates(point, other)]
            if model not in ours and beaten:
                said.append(f"{model}: {pair[0]} and {pair[1]}, better than {', '.join(beaten)}")
    return said


def main(arguments: list[str] | None = None) -> None:
    """Runs a suite, and writes its results, its table and its plots."""
    from benchmarks.contest import CONTESTANTS

    parser = argparse.ArgumentParser(description="Compares models on one suite.")
    parser.add_argument("--suite", default="digits", choices=[*SUITES])
    parser.add_argument("--tune", action="store_true", help="try the settings of each model")
    parser.add_argument("--models", nargs="*", default=[*CONTESTANTS], choices=[*CONTESTANTS])
    parser.add_argument(
        "--seeds", nargs="*", type=int, help="0 1 2; 0 for --quick, 100 for --tune"
    )
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="cells at a time")
    parser.add_argument("--engine", default="processes", choices=["processes", "ray"])
    parser.add_argument("--quick", action="store_true", help="two epochs of few images, for tests")
    parser.add_argument("--have", action="store_true", help="write what is finished, run nothing")
    parser.add_argument("--mixed", action="store_true", help="accept cells of other code versions")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--out", type=Path, help="benchmarks/results/run_SUITE.json if not given")
    parser.add_argument(
        "--tuned", type=Path, help="benchmarks/results/tuned_SUITE.json, of --tune"
    )
    parser.add_argument("--tables", type=Path, default=ROOT / "docs" / "_tables")
    parser.add_argument("--plots", type=Path, default=ROOT / "docs" / "_static")
    options = parser.parse_args(arguments)
    options.given = arguments
    if options.seeds is None:  # settings are tried with a seed that the comparison has not
        options.seeds = [100] if options.tune else [0] if options.quick else [0, 1, 2]
    results = ROOT / "benchmarks" / "results"
    options.out = options.out or results / f"run_{options.suite}.json"
    options.tuned = options.tuned or results / f"tuned_{options.suite}.json"
    if options.tune:
        tune(options)
        return
    if SUITES[options.suite].colour and not options.have:
        from experiments.networks import squeezenet_features

        squeezenet_features()  # says what is missing, if something is, before anything is trained
    tried = previous(options.tuned).get("chosen", {})
    untried = [name for name in options.models if name not in tried]
    if untried:
        print(f"at their first setting, as none was tried (--tune): {', '.join(untried)}")
    found = finished_cells(options)
    said = exceptions(found)
    claims = claims_of(options.suite, found, said)
    cells = {model: [slim(one) for one in runs] for model, runs in found.items()}
    write(
        command("run", arguments), claims, options.out, source=SUITES[options.suite].source,
        exceptions=said, cells=cells, code=sorted(codes(found)),
    )  # fmt: skip
    options.tables.mkdir(parents=True, exist_ok=True)
    (options.tables / f"run_{options.suite}.md").write_text(tables(cells), encoding="utf-8")
    from benchmarks.frontiers import draw

    draw(found, {name: CONTESTANTS[name].ours for name in found}, options.plots, options.suite)
    for text in said:
        print(f"beats ours: {text}")


def claims_of(
    suite: str, found: dict[str, list[dict[str, Any]]], said: list[str]
) -> list[dict[str, Any]]:
    """Claims of one suite."""
    text = "peers better than one of ours on our frontier, and worse in nothing"
    made = [claim(f"compare.{suite}.exceptions", f"{text}, {suite}", "<= 0", [float(len(said))])]
    if "SVAE" in found and "VAE + classifier" in found:
        theirs = {one["seed"]: one["fid"] for one in found["VAE + classifier"]}
        pairs = [(one["fid"], theirs.get(one["seed"])) for one in found["SVAE"]]
        ratios = [fid / other for fid, other in pairs if other is not None]
        text = f"FID of the supervised VAE over that of the unsupervised one, {suite}"
        made.append(claim(f"compare.{suite}.fid", text, "<= 0.7", ratios))
    return made


if __name__ == "__main__":
    main()
