"""Is one Pyro definition as fast as a loss written by hand and compiled?

Question: time of a step, of a whole epoch and peak memory, beside what else one would write.
Expectation: as fast as plain torch under ``torch.compile``, and faster than every other way.
Cost: about fifteen minutes on two CPU cores; ``--quick`` runs all of it within a minute or two.

    pip install -e ".[bench]"
    python benchmarks/speed.py                 # writes results/speed_cpu.json and the table
    python benchmarks/speed.py --device cuda   # writes results/speed_cuda.json
    python benchmarks/speed.py --tables        # only the table in benchmarks/README.md, again

All ways train the same networks on the same batches with the same terms, in turn, so that whatever
else the machine does falls on all of them. Pyro's own ELBOs leave out the separate label term, and
pythae's VAE the labels altogether: both do less than ours.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyro
import pytorch_lightning as pl
import torch
from pyro.infer import SVI, JitTraceMeanField_ELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.optim import Adam
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import svae
from svae.compilation import CompiledLoss
from svae.nets import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from svae.priors import StandardPrior

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.evidence import evidence, put_between  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "benchmarks" / "README.md"
SPLIT, K, SHAPE = svae.LatentSplit(10, 20), 10, (1, 28, 28)
OBJECTIVE = svae.SupervisedELBO()
NETWORKS = ("mlp", "conv")
BATCHES = (32, 128, 1024)
OURS, COMPILED, PLAIN = "svae, compiled", "torch.compile", "plain torch"
SVIS = ("Pyro SVI, Trace_ELBO", "Pyro SVI, TraceMeanField_ELBO")
Step = Callable[[Tensor, Tensor], object]


def networks(kind: str) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder, the same for every way."""
    if kind == "conv":
        return ConvEncoder(SHAPE), ConvDecoder(SHAPE, SPLIT.n_features)
    return MLPEncoder(SHAPE, 400, (400,)), MLPDecoder(SHAPE, SPLIT.n_features, (400, 400))


def definition(kind: str) -> svae.SVAE:
    """Model and guide in Pyro."""
    encoder, decoder = networks(kind)
    head = svae.GaussianHead(SPLIT.n_class, K)
    prior = StandardPrior(SPLIT.n_nuisance)
    from svae.likelihoods import Bernoulli

    model = svae.SupervisedModel(head, prior, decoder, Bernoulli())
    return svae.SVAE(model, svae.MeanFieldGuide(encoder, SPLIT), SHAPE)


class ByHand(nn.Module):
    """The loss of :class:`svae.SupervisedELBO`, written out for these networks."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.encoder, self.decoder = networks(kind)
        n_features = self.encoder.n_features
        assert isinstance(n_features, int)
        self.parameters_of = nn.Linear(n_features, 2 * SPLIT.n_features)
        self.head = svae.GaussianHead(SPLIT.n_class, K)

    def load(self, vae: svae.SVAE) -> "ByHand":
        """Takes the weights of a definition in Pyro."""
        guide, model = vae.guide, vae.model
        assert isinstance(guide, svae.MeanFieldGuide)
        assert isinstance(model, svae.SupervisedModel)
        for mine, theirs in (
            (self.encoder, guide.encoder),
            (self.parameters_of, guide.parameters_of),
            (self.decoder, model.decoder),
            (self.head, model.head),
        ):
            mine.load_state_dict(theirs.state_dict())
        return self

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        loc, raw = self.parameters_of(self.encoder(x)).chunk(2, -1)
        scale = functional.softplus(raw) + 1e-3
        n = SPLIT.n_class
        z_class = loc[:, :n] + scale[:, :n] * torch.randn_like(loc[:, :n])
        style = loc[:, n:] + scale[:, n:] * torch.randn_like(loc[:, n:])
        logits = self.decoder(torch.cat([z_class, style], -1))
        distortion = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        centre, width = self.head.loc, self.head.scale
        spread = (scale[:, :n] / width[y]).square()
        offset = ((loc[:, :n] - centre[y]) / width[y]).square()
        rate_class = 0.5 * (spread + offset - 1 - spread.log()).sum()
        variance = scale[:, n:].square()
        rate_style = 0.5 * (variance + loc[:, n:].square() - 1 - variance.log()).sum()
        standardised = (z_class[:, None] - centre) / width
        joint = (-0.5 * standardised.square() - width.log()).sum(-1)
        label = functional.cross_entropy(joint, y, reduction="sum")
        weight = OBJECTIVE.scales
        total = distortion + weight["z_class"] * rate_class + weight["style"] * rate_style
        return (total + weight["label"] * label) / len(x) - self.head.log_prior[0]


def optimizer(module: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of every way that takes one of torch."""
    return torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)


def by_hand(kind: str, device: str, compiled: bool) -> Step:
    """Plain torch, eager or compiled."""
    module = ByHand(kind).to(device)
    update = optimizer(module)
    loss = torch.compile(module) if compiled else module

    def step(x: Tensor, y: Tensor) -> None:
        update.zero_grad()
        loss(x, y).backward()
        update.step()

    return step


def replayed(kind: str, device: str) -> Step:
    """Plain torch, its step captured by hand in a CUDA graph."""
    module = ByHand(kind).to(device)
    update = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True, capturable=True)
    loss = torch.compile(module)
    held: dict[str, Any] = {}

    def step(x: Tensor, y: Tensor) -> None:
        if not held:
            held.update(x=x.clone(), y=y.clone(), graph=torch.cuda.CUDAGraph())
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    update.zero_grad()
                    loss(held["x"], held["y"]).backward()
                    update.step()
            torch.cuda.current_stream().wait_stream(stream)
            update.zero_grad()
            with torch.cuda.graph(held["graph"]):
                loss(held["x"], held["y"]).backward()
                update.step()
        held["x"].copy_(x)
        held["y"].copy_(y)
        held["graph"].replay()

    return step


def svi(kind: str, device: str, elbo: Any) -> Step:
    """Pyro's own inference, as its tutorials write it, without validation."""
    vae = definition(kind).to(device)
    if isinstance(elbo, JitTraceMeanField_ELBO):
        # Pyro's store copies what is not contiguous, and its tracer then misses the parameter.
        vae.to(memory_format=torch.contiguous_format)  # pyright: ignore

    def model(x: Tensor, y: Tensor) -> None:
        pyro.module("model", vae.model)  # pyright: ignore
        vae.model(x, y)

    def guide(x: Tensor, y: Tensor) -> None:
        pyro.module("guide", vae.guide)  # pyright: ignore
        vae.guide(x)

    store = pyro.get_param_store()
    inference = SVI(model, guide, Adam({"lr": 1e-3}), elbo)
    kept: dict[str, Any] = {}

    def step(x: Tensor, y: Tensor) -> None:
        # Each way has a parameter store of its own, as in a program of its own.
        with store.scope(kept or None) as scope, pyro.validation_enabled(False):
            inference.step(x, y)
        kept.update(scope)

    return step


def ours(kind: str, device: str, compiled: bool) -> Step:
    """This package's step: one definition in Pyro, as written or compiled."""
    vae = definition(kind).to(device)
    parts = nn.ModuleDict({"vae": vae, "objective": OBJECTIVE})
    update = optimizer(vae)

    def written(x: Tensor, y: Tensor) -> Any:
        with pyro.validation_enabled(False):
            return OBJECTIVE(vae, x, y)

    loss = CompiledLoss(written, parts) if compiled else written

    def step(x: Tensor, y: Tensor) -> None:
        update.zero_grad()
        loss(x, y)[0].backward()
        update.step()

    return step


def pythae_model(kind: str) -> Any:
    """Pythae's VAE with the same networks; it knows no labels."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    inner_encoder, inner_decoder = networks(kind)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = inner_encoder
            self.out = nn.Linear(inner_encoder.n_features, 2 * SPLIT.n_features)  # pyright: ignore

        def forward(self, x: Tensor) -> ModelOutput:
            loc, log_variance = self.out(self.net(x)).chunk(2, -1)
            return ModelOutput(embedding=loc, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = inner_decoder

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.net(z).sigmoid())

    config = VAEConfig(SHAPE, latent_dim=SPLIT.n_features, reconstruction_loss="bce")
    return VAE(config, Encoder(), Decoder())


def pythae_step(kind: str, device: str) -> Step:
    """One step of pythae's VAE with a torch optimizer, as its trainer takes it."""
    from pythae.models.base.base_utils import ModelOutput

    module = pythae_model(kind).to(device)
    update = torch.optim.Adam(module.parameters(), lr=1e-3)

    def step(x: Tensor, y: Tensor) -> None:
        update.zero_grad()
        module(ModelOutput(data=x, labels=y)).loss.backward()
        update.step()

    return step


def ways(device: str) -> dict[str, Callable[[str], Step]]:
    """Every way by its name."""
    found: dict[str, Callable[[str], Step]] = {
        PLAIN: lambda kind: by_hand(kind, device, compiled=False),
        COMPILED: lambda kind: by_hand(kind, device, compiled=True),
        SVIS[0]: lambda kind: svi(kind, device, Trace_ELBO()),
        SVIS[1]: lambda kind: svi(kind, device, TraceMeanField_ELBO()),
        "Pyro SVI, JitTraceMeanField_ELBO": lambda kind: svi(
            kind, device, JitTraceMeanField_ELBO(ignore_jit_warnings=True)
        ),
        "svae, as written": lambda kind: ours(kind, device, compiled=False),
        OURS: lambda kind: ours(kind, device, compiled=True),
    }
    if importlib.util.find_spec("pythae") is not None:
        found["pythae"] = lambda kind: pythae_step(kind, device)
    if device == "cuda":
        found["CUDA graph by hand"] = lambda kind: replayed(kind, device)
    return found


def steps(kind: str, size: int, device: str, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of a step, one median of five steps for each round, ways in turn."""
    x = torch.rand(size, *SHAPE, device=device)
    y = torch.arange(size, device=device) % K
    found: dict[str, list[float]] = {}
    running: dict[str, Step] = {}
    for name, build in ways(device).items():
        torch.manual_seed(0)
        running[name] = build(kind)
        for _ in range(4):
            running[name](x, y)
    for _ in range(rounds):
        for name, step in running.items():
            times = []
            for _ in range(5):
                start = time.perf_counter()
                step(x, y)
                if device == "cuda":
                    torch.cuda.synchronize()
                times.append(1e3 * (time.perf_counter() - start))
            found.setdefault(name, []).append(statistics.median(times))
    return found


def check_equality(kind: str) -> float:
    """Relative difference of the loss by hand and the definition, for the same noise."""
    torch.manual_seed(0)
    vae = definition(kind)
    by_hand_of = ByHand(kind).load(vae)
    x, y = torch.rand(16, *SHAPE), torch.arange(16) % K
    torch.manual_seed(1)
    written = float(OBJECTIVE(vae, x, y)[0].detach())
    torch.manual_seed(1)
    return abs(float(by_hand_of(x, y).detach()) / written - 1)


class EpochTimes(pl.Callback):
    """Seconds of every training epoch, evaluation aside."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops it after the last batch."""
        if batch_idx + 1 == trainer.num_training_batches:
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize()
            self.seconds.append(time.perf_counter() - self._start)


def epoch_ours(kind: str, size: int, device: str, data: Any, n_epochs: int) -> float:
    """Fastest epoch of ``svae.fit``."""
    times = EpochTimes()
    data = svae.data.ArrayData(
        data.train, data.validation, data.test, data.class_names, batch_size=size
    )
    with tempfile.TemporaryDirectory() as out, quiet():
        svae.fit(
            definition(kind),
            data,
            compile=True,
            out=out,
            max_epochs=n_epochs,
            accelerator=device,
            devices=1,
            callbacks=[times],
            enable_progress_bar=False,
        )
    return min(times.seconds)


def epoch_loop(
    build: Callable[[str], Step], kind: str, size: int, device: str, data: Any, n_epochs: int
) -> float:
    """Fastest epoch of the loop that one writes around a step, with torch's DataLoader."""
    train = TensorDataset(data.train.floats(), data.train.y)
    loader = DataLoader(train, batch_size=size, shuffle=True, drop_last=True)
    step, seconds = build(kind), []
    for _ in range(n_epochs):
        start = time.perf_counter()
        for x, y in loader:
            step(x.to(device), y.to(device))
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def epoch_pythae(kind: str, size: int, device: str, data: Any, n_epochs: int) -> float:
    """Fastest epoch of pythae's own trainer."""
    import logging

    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    class Clock(TrainingCallback):
        seconds: list[float] = []  # noqa: RUF012 - one instance
        start = 0.0

        def on_train_step_begin(self, *_: Any, **__: Any) -> None:
            if not self.start:
                Clock.start = time.perf_counter()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            Clock.seconds.append(time.perf_counter() - Clock.start)
            Clock.start = 0.0

    from pythae.data.datasets import BaseDataset

    logging.getLogger("pythae").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as out:
        config = BaseTrainerConfig(
            output_dir=out,
            num_epochs=n_epochs,
            per_device_train_batch_size=size,
            no_cuda=device != "cuda",
        )
        trainer = BaseTrainer(
            pythae_model(kind),
            train_dataset=BaseDataset(data.train.floats(), data.train.y),
            training_config=config,
            callbacks=[Clock()],
        )
        trainer.train()
    return min(Clock.seconds)


def epochs(kind: str, size: int, device: str, n_epochs: int, data: Any) -> dict[str, float]:
    """Seconds of a whole epoch of the training set, by the script one writes for each way."""
    found = {}
    for name, build in ways(device).items():
        if name == "svae, as written" or "Jit" in name or "by hand" in name:
            continue
        if name == OURS:
            found[name] = epoch_ours(kind, size, device, data, n_epochs)
        elif name == "pythae":
            with quiet():
                found[name] = epoch_pythae(kind, size, device, data, n_epochs)
        else:
            found[name] = epoch_loop(build, kind, size, device, data, n_epochs)
    return found


def memory(name: str, kind: str, size: int, device: str) -> float:
    """Peak memory of a step in MB: of the device, or of this process on a CPU."""
    x = torch.rand(size, *SHAPE, device=device)
    y = torch.arange(size, device=device) % K
    step = ways(device)[name](kind)
    for _ in range(3):
        step(x, y)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew, after compiling
    for _ in range(3):
        step(x, y)
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10


def memories(kind: str, size: int, device: str) -> dict[str, float]:
    """Peak memory of the ways that are compared, each in a process of its own."""
    found = {}
    for name in (PLAIN, COMPILED, OURS):
        command = [sys.executable, __file__, "--memory-of", name, kind, str(size)]
        done = subprocess.run(
            [*command, "--device", device], capture_output=True, text=True, check=True, cwd=ROOT
        )
        found[name] = float(done.stdout.splitlines()[-1])
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars of others."""
    nowhere = io.StringIO()
    with contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
        yield


def ratio(a: list[float], b: list[float]) -> dict[str, float]:
    """Median over rounds of a / b, and its quartiles."""
    values = [x / y for x, y in zip(a, b, strict=True)]
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": round(median, 3), "low": round(low, 3), "high": round(high, 3)}


def claim(
    name: str, text: str, target: str, found: dict[str, float] | float | None
) -> dict[str, Any]:
    """One claim; a ratio stands with its quartiles."""
    if found is None:
        why = "no GPU" if ".gpu." in name else "not part of this run"
        return {"id": name, "text": text, "target": target, "measured": None, "why": why}
    if isinstance(found, float):
        return {"id": name, "text": text, "target": target, "measured": round(found, 3)}
    interval = [found["low"], found["high"]]
    return {"id": name, "text": text, "target": target, "measured": found["median"]} | {
        "interval": interval
    }


def claims(device: str, found: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What is promised of a device, from the rows that were found, or unmeasured."""

    def over(a: str, b: str, kind: str, size: int) -> dict[str, float] | None:
        times = ({} if found is None else found["steps"]).get(f"{kind} {size}")
        if times is None:
            return None
        names = SVIS if a == "SVI" else (a,)
        fastest = min(names, key=lambda name: statistics.median(times[name]))
        return ratio(times[fastest], times[b])

    def epoch(kind: str, size: int) -> float | None:
        seconds = ({} if found is None else found["epochs"]).get(f"{kind} {size}", {})
        return seconds["pythae"] / seconds[OURS] if "pythae" in seconds else None

    rows = []
    if device == "cpu":
        for kind in NETWORKS:
            for size, target in zip(BATCHES, ("<= 1.15", "<= 1.05", "<= 1.05"), strict=True):
                text = f"CPU, step, {kind}, batch {size}: ours compiled over torch.compile by hand"
                rows.append((f"{kind}.{size}", text, target, over(OURS, COMPILED, kind, size)))
        for size, target in ((32, ">= 1.5"), (128, ">= 1.35")):
            text = f"CPU, step, mlp, batch {size}: Pyro's fastest SVI over ours compiled"
            rows.append((f"svi.{size}", text, target, over("SVI", OURS, "mlp", size)))
        for kind in NETWORKS:
            text = f"CPU, whole epoch of MNIST, {kind}, batch 128: pythae over ours"
            rows.append((f"epoch.{kind}", text, ">= 1.6", epoch(kind, 128)))
    else:
        text = "GPU, step, mlp, batch 128: Pyro's fastest SVI over ours"
        rows.append(("svi.128", text, ">= 15", over("SVI", OURS, "mlp", 128)))
        for kind in NETWORKS:
            text = f"GPU, step, {kind}, batch 128: ours over a CUDA graph captured by hand"
            by_hand_name = "CUDA graph by hand"
            rows.append((f"graph.{kind}", text, "<= 1.1", over(OURS, by_hand_name, kind, 128)))
            text = f"GPU, whole epoch of MNIST, {kind}, batch 128: pythae over ours"
            rows.append((f"epoch.{kind}", text, ">= 10", epoch(kind, 128)))
        text = "GPU, seconds of a whole epoch of MNIST, conv, batch 512"
        seconds = None if found is None else float(found["epochs"]["conv 512"][OURS])
        rows.append(("epoch.seconds", text, "<= 0.5", seconds))
    text = f"{device.upper()}, peak memory of a step over plain torch, conv, batch 1024"
    held = ({} if found is None else found["memory"]).get("conv 1024")
    peak = None if held is None else held[OURS] / held[PLAIN]
    rows.append(("memory", text.replace("CUDA", "GPU"), "<= 1.1", peak))
    place = {"cpu": "cpu", "cuda": "gpu"}[device]
    return [claim(f"speed.{place}.{name}", *rest) for name, *rest in rows]


def measure(device: str, rounds: int, n_epochs: int, quick: bool) -> dict[str, Any]:
    """All rows of one device; few and small ones if ``quick``."""
    data = _enlarged(svae.data.Digits()) if quick else svae.data.choose("mnist")
    sizes = (32,) if quick else BATCHES
    epoch_sizes = sizes if quick else (128, 512) if device == "cuda" else (128,)
    found: dict[str, Any] = {"steps": {}, "epochs": {}, "overhead": {}, "memory": {}}
    kinds = NETWORKS[:1] if quick else NETWORKS
    for kind in kinds:
        difference = check_equality(kind)
        assert difference < 1e-5, f"the ways do not compute the same loss: {difference}"
        for size in sizes:
            name = f"{kind} {size}"
            found["steps"][name] = steps(kind, size, device, rounds)
            shown = {k: round(statistics.median(v), 2) for k, v in found["steps"][name].items()}
            print(f"ms a step, {name}: {shown}", flush=True)
            torch._dynamo.reset()
        for size in epoch_sizes:
            found["epochs"][f"{kind} {size}"] = epochs(kind, size, device, n_epochs, data)
            print(f"s an epoch, {kind} {size}: {found['epochs'][f'{kind} {size}']}", flush=True)
            if f"{kind} {size}" in found["steps"]:
                n_steps = len(data.train) // size
                of_epoch = 1e3 * found["epochs"][f"{kind} {size}"][OURS] / n_steps
                of_step = statistics.median(found["steps"][f"{kind} {size}"][OURS])
                found["overhead"][f"{kind} {size}"] = of_epoch - of_step
    size = max(sizes)
    name = f"{kinds[-1]} {size}"
    found["memory"][name] = memories(kinds[-1], size, device)
    print(f"MB, {name}: {found['memory'][name]}", flush=True)
    return found


def _enlarged(data: Any) -> Any:
    def part(examples: Any) -> Any:
        x = functional.interpolate(examples.floats(), SHAPE[1:])
        return svae.data.ArraySet(x, examples.y)

    parts = [part(examples) for examples in (data.train, data.validation, data.test)]
    return svae.data.ArrayData(*parts, class_names=data.class_names, name=data.name)


def table(results: dict[str, dict[str, Any]]) -> str:
    """Medians of all ways as Markdown, one table for each device that was measured."""
    parts = []
    for device, found in results.items():
        if "rows" not in found:
            continue
        rows = found["rows"]
        columns = [*rows["steps"], *(f"epoch {name}" for name in rows["epochs"])]
        names = list(next(iter(rows["steps"].values())))
        lines = [
            f"**{device.upper()}** ({found['machine']}; {found['date']}; "
            f"torch {found['versions']['torch']}): milliseconds of a step by network and batch "
            "size, median of rounds, and seconds of a whole epoch of MNIST.",
            "",
            f"| way | {' | '.join(columns)} |",
            "|" + "---|" * (len(columns) + 1),
        ]
        for name in names:
            cells = [f"{statistics.median(of[name]):.2f}" for of in rows["steps"].values()]
            cells += [f"{of[name]:.2f}" if name in of else "" for of in rows["epochs"].values()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        for name, milliseconds in rows["overhead"].items():
            text = "Of a step of `svae.fit` outside of the compiled one (batches, Lightning, logs)"
            lines += ["", f"{text}, {name}: {milliseconds:.2f} ms."]
        for name, held in rows["memory"].items():
            peak = ", ".join(f"{way} {size:.0f} MB" for way, size in held.items())
            lines += ["", f"Peak memory, {name}: {peak}."]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def write_table(results: Path, page: Path) -> None:
    """Puts the table between its marks on the page."""
    found = {}
    for device in ("cpu", "cuda"):
        path = results / f"speed_{device}.json"
        if path.exists():
            found[device] = json.loads(path.read_text(encoding="utf-8"))
    put_between(page, "speed", table(found))


def main(arguments: list[str] | None = None) -> None:
    """Measures and writes, see above."""
    parser = argparse.ArgumentParser(description="Speed beside other ways to train the same.")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=README)
    parser.add_argument("--quick", action="store_true", help="few rounds, a small set; for tests")
    parser.add_argument("--tables", action="store_true", help="only write the table again")
    parser.add_argument("--memory-of", nargs=3, metavar=("WAY", "NETWORK", "BATCH"))
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    if options.memory_of:
        name, kind, size = options.memory_of
        print(memory(name, kind, int(size), options.device))
        return
    if not options.tables:
        rounds, n_epochs = (2, 1) if options.quick else (options.rounds, options.epochs)
        found = measure(options.device, rounds, n_epochs, options.quick)
        given = " ".join(sys.argv[1:] if arguments is None else arguments)
        result = evidence(f"python benchmarks/speed.py {given}".strip(), [])
        result["claims"] = claims(options.device, found)
        result["rows"] = found
        options.results.mkdir(parents=True, exist_ok=True)
        write(options.results / f"speed_{options.device}.json", result)
        other = options.results / "speed_cuda.json"
        if not other.exists():  # promised, and visibly not measured
            missing = evidence("python benchmarks/speed.py --device cuda", claims("cuda", None))
            write(other, missing)
    write_table(options.results, options.page)


def write(path: Path, result: dict[str, Any]) -> None:
    """Writes one result, times to three digits behind the point."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: rounded(v) for k, v in value.items()}
        if isinstance(value, list):
            return [rounded(v) for v in value]
        return round(value, 3) if isinstance(value, float) else value

    path.write_text(json.dumps(rounded(result), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
