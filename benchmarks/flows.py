"""Does the flow invert, is its log-determinant right, and is it faster than other packages' flows?

Question: the errors of both directions, where they grow, and the time of a training step and of a
batch of samples beside FrEIA, normflows and zuko's own composition.
Expectation: round trips within 1e-4 (float32) and 1e-9 (float64) for affine couplings, worse for
inputs far from the data and for steep splines; at least 1.1 times as fast as the fastest peer.
Cost: about ten minutes on one CPU core; ``--quick`` runs all of it within a minute.

    pip install -e ".[bench]"
    OMP_NUM_THREADS=1 python benchmarks/flows.py    # writes results/flows.json

Every flow has 16 affine couplings of half of 64 features, each with one network of hidden widths
(256, 256), and mixings in between. Ours runs as :func:`svae.fit` runs it: the loss through
``CompiledLoss``, AdamW fused; samples through ``torch.compile``. Peers run as their documents have
it (eager, ``torch.optim.Adam``), and once more compiled with the optimizer that ours has. One
thread, all ways in turn.
"""

import argparse
import copy
import importlib.metadata
import importlib.util
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import zuko
from torch import Tensor, nn

from svae.compilation import CompiledLoss
from svae.flows import ActNorm, ConditionalFlow

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.evidence import claim, command, write  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
TABLE = ROOT / "docs" / "_tables" / "flows.md"
PEERS = {"FrEIA": "FrEIA", "normflows": "normflows", "zuko": "zuko"}  # package → module
OURS = "svae, compiled"
KINDS: dict[str, dict[str, Any]] = {
    "affine": {},
    "rotation": {"rotate": True},
    "spline": {"bins": 8},
}


class Size(NamedTuple):
    """How large the compared flows are."""

    features: int = 64
    n_blocks: int = 8
    hidden: int = 256
    batch: int = 128


class Way(NamedTuple):
    """One flow as one would use it."""

    module: nn.Module
    loss: Callable[[Tensor], Tensor]
    sample: Callable[[], Tensor]


def ours(size: Size) -> ConditionalFlow:
    """This package's flow."""
    hidden = (size.hidden, size.hidden)
    return ConditionalFlow(size.features, n_blocks=size.n_blocks, hidden=hidden)


def ours_way(size: Size) -> Way:
    """Ours, as it is written."""
    flow = ours(size)
    return Way(flow, lambda x: -flow.log_prob(x).mean(), lambda: flow.sample(size.batch))


def zuko_way(size: Size) -> Way:
    """Zuko's RealNVP, as its tutorials use it."""
    flow = zuko.flows.NICE(
        size.features,
        transforms=2 * size.n_blocks,
        randmask=True,
        hidden_features=(size.hidden, size.hidden),
    )
    return Way(flow, lambda x: -flow().log_prob(x).mean(), lambda: flow().sample((size.batch,)))


def freia_way(size: Size) -> Way:
    """FrEIA's SequenceINN of its AllInOneBlock, with hard permutations, the faster choice."""
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import AllInOneBlock

    def subnet(n_in: int, n_out: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(n_in, size.hidden),
            nn.ReLU(),
            nn.Linear(size.hidden, size.hidden),
            nn.ReLU(),
            nn.Linear(size.hidden, n_out),
        )

    flow = SequenceINN(size.features)
    for _ in range(2 * size.n_blocks):
        flow.append(AllInOneBlock, subnet_constructor=subnet)

    def loss(x: Tensor) -> Tensor:
        noise, log_det = flow(x)
        return (0.5 * noise.square().sum(1) - log_det).mean()

    return Way(
        flow, loss, lambda: flow(torch.randn(size.batch, size.features), rev=True, jac=False)[0]
    )


def normflows_way(size: Size) -> Way:
    """The RealNVP of normflows' front page, with as many permutations and ActNorms as ours."""
    import normflows as nf

    flows: list[nn.Module] = []
    for i in range(2 * size.n_blocks):
        half = size.features // 2
        net = nf.nets.MLP([half, size.hidden, size.hidden, 2 * half], init_zeros=True)
        flows.append(nf.flows.AffineCouplingBlock(net))
        flows.append(nf.flows.Permute(size.features, mode="shuffle" if i % 2 else "swap"))
        if i % 2:
            flows.append(nf.flows.ActNorm(size.features))
    base = nf.distributions.base.DiagGaussian(size.features, trainable=False)
    flow = nf.NormalizingFlow(base, flows)
    return Way(flow, flow.forward_kld, lambda: flow.sample(size.batch)[0])


WAYS = {"FrEIA": freia_way, "normflows": normflows_way, "zuko": zuko_way}


def step_of(way: Way, loss: Callable[[Tensor], Tensor], shipped: bool) -> Callable[[Tensor], None]:
    """One training step; ``shipped`` takes the optimizer of :func:`svae.fit`."""
    parameters = list(way.module.parameters())
    optimizer = (
        torch.optim.AdamW(parameters, lr=1e-3, fused=True)
        if shipped
        else torch.optim.Adam(parameters, lr=1e-3)
    )

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()

    return step


def without_gradient(sample: Callable[[], Tensor]) -> Callable[[Tensor], None]:
    """A draw of a batch of samples, called like a step."""

    def draw(x: Tensor) -> None:
        with torch.no_grad():
            sample()

    return draw


Calls = dict[str, Callable[..., None]]


def runs(size: Size, x: Tensor, backend: str) -> tuple[dict[str, Calls], dict[str, Any]]:
    """Steps and draws by the name of the way, and what else is to be said of each."""
    steps: Calls = {}
    draws: Calls = {}
    said: dict[str, Any] = {}

    def add(name: str, way: Way, loss: Callable, sample: Callable, shipped: bool) -> None:
        steps[name] = step_of(way, loss, shipped)
        draws[name] = without_gradient(sample)
        learned = [p.numel() for p in way.module.parameters() if p.requires_grad]
        said[name] = {"learned_parameters": sum(learned)}

    way = ours_way(size)
    with torch.no_grad():
        way.loss(x)
    plain = way.loss
    loss = CompiledLoss(lambda x: (plain(x), {}), way.module)
    sample = torch.compile(way.sample, fullgraph=True, backend=backend)
    add(OURS, way, lambda x: loss(x)[0], sample, shipped=True)
    way = ours_way(size)
    add("svae, as written", way, way.loss, way.sample, shipped=True)
    for name, build in WAYS.items():
        if importlib.util.find_spec(PEERS[name]) is None:
            continue
        way = build(size)
        add(f"{name}, as documented", way, way.loss, way.sample, shipped=False)
        way = build(size)
        way.loss(x)  # what starts from a first batch does so outside of the graph
        compiled = (torch.compile(of, backend=backend) for of in (way.loss, way.sample))
        add(f"{name}, compiled", way, *compiled, shipped=True)
    return {"step": steps, "sampling": draws}, said


def timed(ways: Calls, x: Tensor, rounds: int, calls: int = 10) -> dict[str, list[float]]:
    """Milliseconds of every round, the median of its calls; the ways take turns call by call.

    In time of this process on the CPU, which whatever else the machine does has no share in.
    """
    running = dict(ways)
    for name, call in ways.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what others compile
                for _ in range(4):
                    call(x)
        except Exception as error:
            print(f"{name}: {type(error).__name__}", flush=True)
            if name.startswith("svae"):
                raise
            del running[name]
    found: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(rounds):
        times: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(calls):
            for name, call in running.items():
                start = time.process_time()
                call(x)
                times[name].append(1e3 * (time.process_time() - start))
        for name, of in times.items():
            found[name].append(statistics.median(of))
    return found


def ratios(times: dict[str, list[float]]) -> tuple[str, list[float]]:
    """The fastest peer as its documents have it, and its time over ours in every round."""
    documented = [name for name in times if name.endswith("as documented")]
    fastest = min(documented, key=lambda name: statistics.median(times[name]))
    return fastest, [a / b for a, b in zip(times[fastest], times[OURS], strict=True)]


def data(n: int, features: int, seed: int) -> Tensor:
    """Correlated values with two modes in every direction."""
    mix = torch.randn(features, features, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (n, features), generator=generator) * 2 - 1
    values = signs + 0.5 * torch.randn(n, features, generator=generator)
    return values @ mix / features**0.5


def trained(kind: str, size: Size, steps: int, seed: int) -> ConditionalFlow:
    """A flow fitted to :func:`data`."""
    torch.manual_seed(seed)
    hidden = (size.hidden, size.hidden)
    flow = ConditionalFlow(size.features, 0, size.n_blocks, hidden, **KINDS[kind])
    optimizer = torch.optim.AdamW(flow.parameters(), lr=1e-3, fused=True)
    for step in range(steps):
        optimizer.zero_grad()
        (-flow.log_prob(data(size.batch, size.features, 1000 * seed + step)).mean()).backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 100.0)
        optimizer.step()
    return flow.eval()


def enlarged(flow: ConditionalFlow, factor: float = 3.0) -> ConditionalFlow:
    """The flow with all weights of its couplings multiplied: far steeper than any fit."""
    flow = copy.deepcopy(flow)
    for block in flow.blocks:
        if not isinstance(block, ActNorm):
            for parameter in block.parameters():
                parameter.data *= factor
    return flow


@torch.no_grad()
def round_trip(flow: ConditionalFlow, x: Tensor, dtype: torch.dtype) -> float | None:
    """Largest absolute difference of a value and what comes back; None where it is no number."""
    flow, x = copy.deepcopy(flow).to(dtype), x.to(dtype)
    worst = float((flow.inverse(flow(x)[0])[0] - x).abs().max())
    return worst if math.isfinite(worst) else None


def log_det_error(flow: ConditionalFlow, x: Tensor) -> float:
    """Largest error of the float32 log-determinant, relative to max(1, its size).

    Against the Jacobian by autograd in float64, row by row.
    """
    exact = copy.deepcopy(flow).double()
    worst = 0.0
    for row, log_det in zip(x, flow(x)[1].detach(), strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda v: exact(v)[0], row.double())
        assert isinstance(jacobian, Tensor)
        expected = float(torch.linalg.slogdet(jacobian).logabsdet)
        worst = max(worst, abs(float(log_det) - expected) / max(1.0, abs(expected)))
    return worst


def errors(size: Size, steps: int, seeds: int, n: int) -> list[dict[str, Any]]:
    """Round trips and log-determinants of every kind of flow, one row for each seed."""
    rows = []
    for kind in KINDS:
        for seed in range(seeds):
            flow = trained(kind, size, steps, seed)
            x = data(n, size.features, 10**6 + seed)
            tails = torch.sinh(2 * torch.randn(n, size.features))
            small = trained(kind, size._replace(features=8, n_blocks=4), steps, seed)
            row: dict[str, Any] = {"flow": kind, "seed": seed}
            for name, of, values in (
                ("data", flow, x),
                ("heavy tails", flow, tails),
                ("large weights", enlarged(flow), x),
            ):
                row[f"round trip, {name}, float32"] = round_trip(of, values, torch.float32)
                row[f"round trip, {name}, float64"] = round_trip(of, values, torch.float64)
            row["log-det, 8 features"] = log_det_error(small, data(32, 8, 10**6 + seed))
            rows.append(row)
            print({k: f"{v:.1e}" if isinstance(v, float) else v for k, v in row.items()})
    return rows


def accuracy_claims(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Errors of the default flow, one value for each seed."""
    of = [row for row in rows if row["flow"] == "affine"]
    given = "affine flow fitted to correlated bimodal data"
    found = []
    for digits, target in (("32", "<= 1e-4"), ("64", "<= 1e-9")):
        text = f"largest absolute error of a round trip in float{digits}, {given}, held-out data"
        values = [row[f"round trip, data, float{digits}"] for row in of]
        found.append(worst_of(f"concepts.flow_round_trip_{digits}", text, target, values))
    text = (
        f"largest error of the float32 log-determinant, relative to max(1, |log-det|), {given} of "
        "8 features, against the autograd Jacobian in float64"
    )
    values = [row["log-det, 8 features"] for row in of]
    return [*found, worst_of("concepts.flow_log_det", text, "<= 1e-4", values)]


def worst_of(name: str, text: str, target: str, values: list[float]) -> dict[str, Any]:
    """A claim of the worst seed, with the digits that rounding would take from small numbers."""
    shown = [float(f"{value:.3g}") for value in values]
    text = f"{text}; the worst of {len(values)} seeds"
    return {**claim(name, text, target, values), "measured": max(shown), "values": shown} | {
        "interval": None
    }


def speed_claims(times: dict[str, dict[str, list[float]]], missing: str) -> list[dict[str, Any]]:
    """The fastest documented peer over ours."""
    found = []
    for name, what in (("step", "training step"), ("sampling", "batch of samples")):
        fastest, values = ratios(times[name])
        text = f"CPU, one thread, {what}: {fastest}, the fastest of the peers, over {OURS}"
        row = claim(f"concepts.flow_{name}_ratio", text, ">= 1.1", [] if missing else values)
        found.append(row | {"why": f"peers are missing: {missing}"} if missing else row)
    return found


def table(times: dict[str, dict[str, list[float]]], said: dict[str, Any]) -> list[dict[str, Any]]:
    """Medians and quartiles in milliseconds, fastest step first."""
    rows = []
    for name in said:
        row: dict[str, Any] = {"way": name, **said[name]}
        for what, found in times.items():
            if name not in found:
                row[f"{what}_ms"] = None
                continue
            low, median, high = statistics.quantiles(found[name], n=4)
            row[f"{what}_ms"] = round(median, 3)
            row[f"{what}_quartiles"] = [round(low, 3), round(high, 3)]
        rows.append(row)
    return sorted(rows, key=lambda row: row["step_ms"] or float("inf"))


def page(rows: list[dict[str, Any]]) -> str:
    """The table of the documentation: times of a step and of a batch of samples, fastest first."""
    lines = [
        "| way | training step, ms | quartiles | sampling, ms | quartiles |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        shown = [f"| {row['way']} "]
        for what in ("step", "sampling"):
            low, high = row[f"{what}_quartiles"]
            shown.append(f"| {row[f'{what}_ms']:.1f} | {low:.1f} to {high:.1f} ")
        lines.append("".join(shown) + "|")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Measures and writes the evidence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small flows and few rounds")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", type=Path, default=TABLE)
    given = parser.parse_args(arguments)
    size = Size(8, 1, 8, 16) if given.quick else Size()
    torch.set_num_threads(1)
    absent = [name for name, module in PEERS.items() if importlib.util.find_spec(module) is None]
    missing = f"pip install {' '.join(absent)} --no-deps" if absent else ""
    if missing:
        print(f"not compared, since not installed: {', '.join(absent)}. {missing}", flush=True)

    torch.manual_seed(0)
    x = data(size.batch, size.features, 0)
    # Graphs are found in any case; code is generated from those whose times are of interest.
    ways, said = runs(size, x, "aot_eager" if given.quick else "inductor")
    times = {name: timed(of, x, 3 if given.quick else 12) for name, of in ways.items()}
    rows = table(times, said)
    for row in rows:
        print(row, flush=True)
    wrong = errors(size, *((3, 1, 8) if given.quick else (300, 3, 2000)))
    write(
        command("flows", arguments),
        accuracy_claims(wrong) + speed_claims(times, missing),
        given.results / "flows.json",
        size=size._asdict(),
        peers={p: importlib.metadata.version(p) for p in PEERS if p not in absent},
        times=rows,
        errors=wrong,
    )
    given.table.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
