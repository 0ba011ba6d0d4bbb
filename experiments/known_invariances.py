"""Does an explanation find what a network ignores, where that is known?

Question: of rotation, shift, brightness and colour, which does each network use?
Expectation: the answer that its construction gives, for every factor of every network, with one
threshold for all; and a classifier that has learned to read the colour instead of the digit is
found out, while an honest one is not accused.
Cost: twenty minutes on the digits, on one core.

    python experiments/known_invariances.py

Each picture is a digit that is turned, moved, dimmed and coloured at random. A network that sees
the brightest channel only ignores colour, one that divides by the brightest pixel ignores
brightness, one of the power spectrum ignores shifts, one of its rings turns as well. A factor
counts as used where the layer fixes more than half of its variance among the draws, read by a
network of its own. Classifiers are explained at the probabilities that they answer: logits tell,
to rounding, of everything that moves them however little. Draws are those of the flow alone:
moved onto a fibre that the flow hits badly, such as that of a power spectrum, they end nearer to
the input, so that what is ignored seems to be used.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

GROUPS = {
    "rotation": ("rotation",),
    "shift": ("shift_x", "shift_y"),
    "brightness": ("brightness",),
    "colour": ("red", "green", "blue"),
}
USED = 0.5  # of a factor's variance, fixed by the layer


class ColourBlind(nn.Module):
    """The brightest channel of each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(1, keepdim=True)


class Normalised(nn.Module):
    """The picture over its brightest value."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.amax((1, 2, 3), keepdim=True).clamp(min=1e-3)


class Spectrum(nn.Module):
    """The amplitude of each frequency, which no shift changes."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft2(x, norm="ortho").abs()


class Rings(nn.Module):
    """Amplitudes on circles of frequencies, and of those the amplitudes around the circle."""

    def forward(self, x: Tensor) -> Tensor:
        side = x.shape[-1]
        wide = functional.pad(x, [side // 2] * 4)  # finer frequencies, for circles among them
        amplitude = torch.fft.fftshift(torch.fft.fft2(wide, norm="ortho").abs(), dim=(2, 3))
        centre = wide.shape[-1] // 2
        radius = torch.arange(1.0, centre - 1, device=x.device)
        angle = torch.arange(64, device=x.device) * (2 * torch.pi / 64)
        # grid_sample counts from -1 to 1 over the centres of the outermost pixels.
        scale = 2 / (wide.shape[-1] - 1)
        u, v = (
            (centre + radius[:, None] * part(angle)) * scale - 1 for part in (torch.cos, torch.sin)
        )
        grid = torch.stack([u, v], -1).expand(len(x), -1, -1, -1)
        circles = functional.grid_sample(amplitude, grid, align_corners=True)
        return torch.fft.rfft(circles, norm="ortho").abs()


SUBJECTS: dict[str, tuple[type[nn.Module], frozenset[str]]] = {
    "brightest channel": (ColourBlind, frozenset({"colour"})),
    "over the brightest": (Normalised, frozenset({"brightness"})),
    "power spectrum": (Spectrum, frozenset({"shift"})),
    "rings of the spectrum": (Rings, frozenset({"shift", "rotation"})),
}


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(description="Explanations against known invariances.")
    options.add_argument("--dataset", default="digits", choices=["auto", "mnist", "digits"])
    options.add_argument("--data-root", help="folder of the data; else $SVAE_DATA, else data/")
    options.add_argument("--out", default="runs/known_invariances")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--shortcuts", type=int, default=5, help="seeds of planted shortcuts")
    options.add_argument("--steps", type=int, default=1500, help="of each flow")
    options.add_argument("--fibre-weight", type=float, default=0.0, help="of refining draws")
    options.add_argument("--autoencoder-steps", type=int, default=4000)
    options.add_argument("--max-epochs", type=int, help="of each training, at most")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    options.add_argument("--quick", action="store_true", help="few steps, for tests")
    return options


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Builds, explains, judges; gives what ``metrics.json`` holds."""
    options = parser().parse_args(arguments)
    started = time.perf_counter()
    import svae
    from svae.fibres import fixed_share
    from svae.saving import writable

    out = writable(options.out)
    if options.quick:
        options.steps, options.autoencoder_steps = min(options.steps, 100), 200
        options.shortcuts = min(options.shortcuts, 1)
    base = svae.data.choose(options.dataset, options.data_root, seed=options.seed)
    # A flow that knows its pictures by heart is too sure of others.
    copies = 32 if len(base.train) < 5000 else 1
    data = svae.data.MorphedDigits(base, seed=options.seed, copies=copies)
    say(f"{data.name}: {len(data.train)} training pictures of shape {data.x_shape}")
    torch.manual_seed(options.seed)
    reader = trained_reader(data, options)
    autoencoder = svae.bridges.Autoencoder(data.x_shape, n_code=64)
    fit(autoencoder, data, options.autoencoder_steps, 64, options)
    x = data.test.floats(limit=100 if options.quick else 500)

    metrics: dict[str, Any] = {"dataset": data.name, "seed": options.seed}
    metrics |= reading(reader, autoencoder, data)
    rows: dict[str, dict[str, float]] = {}
    right: dict[str, bool] = {}
    objective = svae.bridges.InvarianceObjective(fibre_weight=options.fibre_weight)

    def judged(name: str, frozen: Any, ignored: dict[str, bool]) -> None:
        n_refine = 3 if options.fibre_weight else 0
        bridge = svae.InvarianceBridge(frozen, autoencoder, n_refine=n_refine)
        fit(bridge, data, options.steps, 128, options, objective)
        rows[name] = {}
        for factor in GROUPS:
            places = columns_of(factor)
            generator = torch.Generator().manual_seed(options.seed)
            share = fixed_share(bridge, x, lambda z, c=places: reader(z)[:, c], 16, generator)
            rows[name][factor] = share.value
            if factor in ignored:
                right[f"{name}: {factor}"] = (share.value < USED) == ignored[factor]
        shares = "  ".join(f"{factor} {value:.2f}" for factor, value in rows[name].items())
        say(f"{name:<24}{shares}")

    for name, (build, ignored) in SUBJECTS.items():
        net = nn.Sequential(build(), nn.Flatten(), nn.LazyLinear(data.n_classes))
        net(x[:2])
        train(net, data.train.floats(), data.train.marked, options.seed, options.quick)
        frozen = svae.Frozen(net, "0", x_shape=data.x_shape)
        judged(name, frozen, {factor: factor in ignored for factor in GROUPS})
    for seed in range(options.shortcuts):
        for kind in ("shortcut", "honest"):
            net = classifier(data, kind == "shortcut", options.seed + seed, options.quick)
            answering = nn.Sequential(net, nn.Softmax(1)).eval()
            frozen = svae.Frozen(answering, "1", x_shape=data.x_shape)
            judged(f"{kind} {seed}", frozen, {"colour": kind == "honest"})
    metrics |= {
        f"{name.replace(' ', '_')}.{factor}": value
        for name, row in rows.items()
        for factor, value in row.items()
    }
    metrics["judged"], metrics["judged_right"] = len(right), sum(right.values())
    metrics["wrong"] = [name for name, good in right.items() if not good]
    metrics["seconds_total"] = round(time.perf_counter() - started, 1)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    (out / "table.md").write_text(table(rows, right), encoding="utf-8")
    say(f"\n{table(rows, right)}\n{sum(right.values())} of {len(right)} judged right")
    say(f"wrong: {', '.join(metrics['wrong']) or 'none'}; {metrics['seconds_total']:.0f} s")
    return metrics


def table(rows: dict[str, dict[str, float]], right: dict[str, bool]) -> str:
    """Shares by subject and factor; wrong verdicts are marked."""
    lines = [f"| network | {' | '.join(GROUPS)} |", "|---" * (1 + len(GROUPS)) + "|"]
    for name, row in rows.items():
        cells = []
        for factor, value in row.items():
            verdict = "used" if value >= USED else "ignored"
            known = right.get(f"{name}: {factor}")
            mark = {None: "", True: f" {verdict}", False: f" **{verdict}: wrong**"}[known]
            cells.append(f"{value:.2f}{mark}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def fit(
    model: Any,
    data: Any,
    steps: int,
    batch_size: int,
    options: argparse.Namespace,
    objective: nn.Module | None = None,
) -> None:
    """Trains for about that many steps."""
    import svae
    from svae.training import Recipe
    from svae.training.running import lasting

    with data.batches_of(batch_size):
        lasts = lasting(data, steps)
        lasts["max_epochs"] = min(lasts["max_epochs"], options.max_epochs or 10**6)
        svae.fit(
            model,
            data,
            seed=options.seed,
            objective=objective,
            recipe=Recipe(learning_rate=5e-3),
            accelerator=options.device,
            devices=1,
            enable_progress_bar=False,
            compile=False,
            **lasts,
        )
    model.cpu().eval()


def trained_reader(data: Any, options: argparse.Namespace) -> nn.Module:
    """From pictures to their factors, in standard deviations."""
    from svae.nets import ConvEncoder

    net = nn.Sequential(
        ConvEncoder(data.x_shape, 128), nn.Linear(128, data.train.factors.shape[1])
    )
    x, factors = data.train.floats(), data.train.factors
    wanted = (factors - factors.mean(0)) / factors.std(0)
    train(net, x, wanted, options.seed, options.quick, steps=3000)
    return net


def reading(reader: nn.Module, autoencoder: Any, data: Any) -> dict[str, float]:
    """How much of each factor's variance the reader finds, in pictures and reconstructions."""
    x, factors = data.test.floats(), data.test.factors
    wanted = (factors - data.train.factors.mean(0)) / data.train.factors.std(0)
    found = {}
    with torch.no_grad():
        again = torch.cat([autoencoder.decode(autoencoder.encode(part)) for part in x.split(500)])
        for name, pictures in (("real", x), ("reconstructed", again)):
            errors = (reader(pictures) - wanted).square().mean(0) / wanted.var(0)
            for group in GROUPS:
                found[f"read_{group}_{name}"] = float(1 - errors[columns_of(group)].mean())
    return found


def columns_of(group: str) -> list[int]:
    """Where the numbers of a factor stand."""
    from svae.data.morphed import FACTORS

    return [FACTORS.index(name) for name in GROUPS[group]]


def train(
    net: nn.Module, x: Tensor, y: Tensor, seed: int, quick: bool, steps: int = 1000
) -> nn.Module:
    """A plain training: cross-entropy for labels, squared error for numbers."""
    steps = min(steps, 150) if quick else steps
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    loss_of = functional.mse_loss if y.is_floating_point() else functional.cross_entropy
    net.train()
    for _ in range(steps):
        rows = torch.randint(len(x), (128,), generator=generator)
        loss = loss_of(net(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval().requires_grad_(False)


def classifier(data: Any, shortcut: bool, seed: int, quick: bool) -> nn.Module:
    """A classifier of pictures; with a shortcut the colour gives the label away in training."""
    from svae.judge import Judge

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Judge(data.x_shape, data.n_classes)
        palette = 0.2 + 0.8 * torch.rand(data.n_classes, 3)
        palette = palette / palette.amax(1, keepdim=True)
    x, y = data.train.floats(), data.train.marked
    if shortcut:
        bright = x.amax(1, keepdim=True)  # of a colour whose largest channel is 1
        x = bright * palette[y][:, :, None, None]
    return train(net, x, y, seed, quick)


def say(text: str) -> None:
    """Prints at once, also into a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
