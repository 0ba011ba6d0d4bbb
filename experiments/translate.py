"""Can one frozen model's representation be turned into another's, and what does it leave open?

Question: from a caption, an attribute, a layer of a classifier, a grey or a coarse picture, or the
name of a domain: which pictures are translations of it, and are they all there is?
Expectation: what the source says is read back from every translation, what it does not say varies
as in real pictures, and v knows nothing of the source. Where the source says nearly everything,
the mean of the code is the better translation.
Cost: twenty minutes of a core for each flow (four of layers, two of attributes), two for all with
--quick. Captioned digits take as long to draw; they are kept in $SVAE_CACHE.

    python experiments/translate.py --task captions     # the default
    python experiments/translate.py --task layers       # of $SVAE_DATA's LeNet, or a classifier
    python experiments/translate.py --task attributes   # dSprites
    python experiments/translate.py --task colour       # grey to coloured digits
    python experiments/translate.py --task resolution   # 7 by 7 pixels to 28 by 28
    python experiments/translate.py --task domains      # digits to Fashion-MNIST and back
    python experiments/translate.py --text "a thin blue four, upright" "a thick red seven"
    python experiments/translate.py --resume --text "a bold cyan two"  # by what was fitted before
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
SENTENCES = "all-MiniLM-L6-v2"  # of sentence-transformers
CENTRED = 0.8  # share of the code's variance from which on a flow starts from the mean
# What may differ when a run is resumed; the rest decides what is fitted and measured.
OF_ONE_RUN = ("out", "resume", "text", "device", "data_root")
CHOSEN = ("noise", "weight_decay", "steps", "n_code")  # of a setting, by options of these names


@dataclass
class Setting:
    """What one task is made of.

    Args:
        data: Target's inputs; pairs where the source's are given.
        source: What is translated from.
        view: From the target's inputs to the source's.
        features: What Frechet distances are measured in.
        read: From the target's inputs to what a judge reads, by name.
        wanted: What should be read of each test input.
        groups: Numbers that test inputs share where their sources say the same.
        labels: Texts of rows.
        rows: Which test inputs are drawn.
        noise: On codes, in their standard deviations. The less a source says, the more of its
            codes are learnt by heart, which noise holds back.
        weight_decay: Of AdamW, which holds that back too.
        steps: Of the flow and of the mean. The less a source says, the more of the pictures'
            variety is the flow's to learn.
        n_code: Dims of the target's code. Those that its decoder hardly uses are as much for the
            flow to learn as the others.
    """

    data: Any
    source: Any
    view: Callable[[Tensor], Any] | None
    features: Callable[[Tensor], Tensor]
    read: Callable[[Tensor], dict[str, Tensor]] = lambda x: {}
    wanted: dict[str, Tensor] = field(default_factory=dict)
    groups: Tensor | None = None
    labels: list[str] | None = None
    rows: list[int] = field(default_factory=lambda: list(range(6)))
    noise: float = 0.1
    weight_decay: float = 1e-4
    steps: int = 3000
    n_code: int = 64


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(description="Translation between two frozen models.")
    options.add_argument("--task", default="captions", choices=list(TASKS))
    options.add_argument(
        "--dataset", default="auto", choices=["auto", "mnist", "digits"], help="which digits"
    )
    options.add_argument("--data-root", help="folder of the data; else $SVAE_DATA, else data/")
    options.add_argument("--text", nargs="*", default=[], help="captions of your own to translate")
    options.add_argument(
        "--encoder",
        default="auto",
        help="of captions: words, which are counted, or a sentence encoder's name; auto takes "
        f"{SENTENCES} where it is installed",
    )
    options.add_argument("--out", default="runs/translate")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--steps",
        type=int,
        help="of each flow and mean (sprites and names of domains: 6000, all else: 3000)",
    )
    options.add_argument(
        "--n-code", type=int, help="dims of the autoencoder's code (sprites: 24, all else: 64)"
    )
    options.add_argument("--max-epochs", type=int, help="of each training, instead of its steps")
    options.add_argument(
        "--noise",
        type=float,
        help="on codes, in their deviations (names of domains and a classifier's answer: .2, all "
        "else: .1)",
    )
    options.add_argument(
        "--centre",
        default="auto",
        choices=["auto", "always", "never"],
        help="whether the flow starts from the mean code: auto where the mean explains "
        f"{CENTRED:.0%} of it",
    )
    options.add_argument(
        "--weight-decay",
        type=float,
        help="of AdamW: more where a flow would learn its pairs by heart, and v then tell the "
        "source (layers: .5, others: .0001)",
    )
    options.add_argument(
        "--n-train", type=int, default=50_000, help="digits to caption, or sprites"
    )
    options.add_argument(
        "--copies",
        type=int,
        help="of each digit: with other attributes (captions, 2), a little moved (layers, 1)",
    )
    options.add_argument(
        "--resume",
        action="store_true",
        help="go on with what --out holds, by the options of that run",
    )
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    options.add_argument("--quick", action="store_true", help="few steps and images, for tests")
    return options


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Fits, measures, draws; gives what ``metrics.json`` holds."""
    options = chosen(arguments)
    if options.text and options.task != "captions":
        raise SystemExit(f"--text is of --task captions, not of --task {options.task}")
    started = time.perf_counter()

    import svae
    from svae.saving import writable

    logging.basicConfig(format="%(message)s")
    logging.getLogger("svae").setLevel(logging.INFO)
    out = writable(options.out)
    metrics: dict[str, Any] = {"task": options.task, "seed": options.seed}
    metrics["options"] = {
        name: value for name, value in vars(options).items() if name not in OF_ONE_RUN
    }
    if options.resume:
        metrics |= finished(out)
    target = None
    write(metrics, out)  # now: what was saved before, and is, is never taken for that of others
    given = {name: getattr(options, name) for name in CHOSEN}
    given = {name: value for name, value in given.items() if value is not None}
    small = {"steps": 40, "n_code": 12} if options.quick else {}
    for name, by_default in TASKS[options.task](options).items():
        setting = replace(by_default, **(small | given))
        if options.text:
            setting.source.representation(options.text)  # a word that is not known is found now
        metrics["dataset"] = setting.data.name
        stem, prefix = (f"{name}.", f"{name}_") if name else ("", "")
        both = (out / name, out / name / "mean")
        there = f"{stem}saved" in metrics
        if there:
            parts = {"source": setting.source} | ({"view": setting.view} if setting.view else {})
            bridge, mean = (svae.load(folder, **parts) for folder in both)
            target = bridge.target
            print(f"{name or options.task} is fitted already")
        else:
            metrics |= {f"{stem}{key}": getattr(setting, key) for key in CHOSEN}
            target = target or fitted_target(setting, options)
            bridge, mean = translators(setting, target, options)
            mean.save(both[1])
            bridge.save(both[0])
            metrics[f"{stem}saved"] = True
            write(metrics, out)
        if f"{stem}explained" not in metrics:
            found = measured(bridge, mean, setting, options)
            drawn = picture(bridge, mean, setting, options)
            svae.plots.save(drawn, out / f"{prefix}translations.png")
            svae.plots.save(likenesses(bridge, setting), out / f"{prefix}likeness.png")
            # After the pictures: what is in the file is there whole.
            metrics |= {f"{stem}{key}": value for key, value in found.items()}
            write(metrics, out)
        if f"{stem}gap" not in metrics:  # as long again as all other numbers
            gap = gap_of(bridge, setting, options)
            metrics |= {f"{stem}{key}": value for key, value in gap.items()}
            write(metrics, out)
        if options.text:
            drawn = bridge.translate(options.text, 8, generator_of(options))
            figure = svae.plots.translations(drawn, options.text)
            svae.plots.save(figure, out / "text.png")
    spent = metrics.get("seconds_total", 0.0) + time.perf_counter() - started
    metrics["seconds_total"] = round(spent, 1)
    write(metrics, out)
    print(f"{metrics['seconds_total']:.0f} s; everything is in {out}/")
    return metrics


def chosen(arguments: list[str] | None) -> argparse.Namespace:
    """The options: those of the run that is resumed, where others are not given now."""
    options = parser().parse_args(arguments)
    had = finished(Path(options.out)).get("options") if options.resume else None
    if had is None:
        return options
    again = parser()
    again.set_defaults(**had)
    options = again.parse_args(arguments)
    for name, value in had.items():
        if getattr(options, name) != value:
            raise SystemExit(
                f"--resume: what {options.out} holds is of --{name.replace('_', '-')} {value}, "
                f"not {getattr(options, name)}: leave that out, give another --out, or leave "
                "--resume out to begin anew"
            )
    return options


def finished(out: Path) -> dict[str, Any]:
    """What a run measured before it was stopped."""
    path = out / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write(metrics: dict[str, Any], out: Path) -> None:
    """Writes ``metrics.json``."""
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


def generator_of(options: argparse.Namespace) -> torch.Generator:
    """Noise that is the same whenever it is asked for."""
    return torch.Generator().manual_seed(options.seed)


def trainer_of(options: argparse.Namespace) -> dict[str, Any]:
    """Keywords of every training."""
    limit = {} if options.max_epochs is None else {"max_epochs": options.max_epochs}
    return {
        "accelerator": options.device, "devices": 1, "enable_progress_bar": False, **limit
    }  # fmt: skip


def fitted_target(setting: Setting, options: argparse.Namespace) -> Any:
    """An autoencoder of the target's inputs."""
    import svae
    from svae.training import Recipe, fit_steps

    torch.manual_seed(options.seed)
    data = setting.data
    width = 16 if data.x_shape[-1] > 32 else 32
    width = 8 if options.quick else width
    coder = svae.bridges.Autoencoder(data.x_shape, n_code=setting.n_code, width=width)
    steps = 60 if options.quick else 4000
    recipe = Recipe(learning_rate=coder.learning_rate)
    fit_steps(coder, data, steps, 64, recipe=recipe, seed=options.seed, **trainer_of(options))
    return coder


def translators(setting: Setting, target: Any, options: argparse.Namespace) -> tuple[Any, Any]:
    """The bridge and the mean translator, fitted to the same pairs for as long."""
    import svae
    from svae.bridges import MeanTranslator
    from svae.training import Recipe, fit_steps

    def fitted(kind: Any, objective: Any = None, **how: Any) -> Any:
        torch.manual_seed(options.seed)
        one = kind(setting.source, target, setting.view, **how)
        fit_steps(
            one,
            setting.data,
            setting.steps,
            batch_size=256,
            objective=objective,
            recipe=Recipe(learning_rate=2e-3, weight_decay=setting.weight_decay),
            seed=options.seed,
            **trainer_of(options),
        )
        return one

    mean = fitted(MeanTranslator, **({} if options.quick else {"hidden": (1024, 1024, 1024)}))
    size = {} if options.quick else {"n_blocks": 16, "hidden": (256, 256)}
    objective = svae.bridges.TranslationObjective(setting.noise)
    centre = mean if starts_from(mean, setting, options) else None
    return fitted(svae.TranslationBridge, objective, centre=centre, **size), mean


def starts_from(mean: Any, setting: Setting, options: argparse.Namespace) -> bool:
    """Whether the flow starts from the mean code: where little of validation codes is left."""
    from svae.translating import explained, pairs_of

    if options.centre != "auto":
        return options.centre == "always"
    share = explained(mean, *pairs_of(mean, setting.data, "validation")).value
    print(f"the mean explains {share:.0%} of the code; the flow starts from "
          f"{'it' if share >= CENTRED else 'zero'}")  # fmt: skip
    return share >= CENTRED


def measured(
    bridge: Any, mean: Any, setting: Setting, options: argparse.Namespace
) -> dict[str, Any]:
    """Numbers of one bridge, in one table."""
    from svae import metrics
    from svae.auditing import Audit
    from svae.metrics.leakage import leakage
    from svae.translating import compare, noises, pairs_of, translated

    # At random: the first half of MNIST's test set is cleaner than the other.
    n = min(200 if options.quick else 5000, len(setting.data.test))
    rows = torch.randperm(len(setting.data.test), generator=generator_of(options))[:n]
    x, source = pairs_of(bridge, setting.data, rows=rows.tolist())
    groups = None if setting.groups is None else setting.groups[rows]
    found = compare(bridge, mean, x, source, groups, setting.features, generator_of(options))
    print(found.sentence)
    numbers = {name: value for name, value in vars(found).items() if value is not None}
    for kind, one in (("", bridge), ("mean_", mean)):
        read = setting.read(translated(one, x, source, generator_of(options)))
        for name, wanted in setting.wanted.items():
            numbers[f"{kind}read_{name}"] = metrics.proportion(read[name] == wanted[rows])
    v = noises(bridge, x, source)
    parts = torch.randperm(n, generator=generator_of(options)).tensor_split([n // 2, 3 * n // 4])
    for name, wanted in setting.wanted.items():
        pairs = [(v[part], wanted[rows][part]) for part in parts]
        probes = leakage(*pairs, seed=options.seed)
        numbers[f"probe_{name}"] = probes["strongest"]
        numbers[f"probe_chance_{name}"] = probes["chance"]
    said = {"case": found.case, "better": found.better, "centred": bridge.centre is not None}
    result = {**said, **Audit(numbers).flat()}
    for name, value in result.items():
        if not isinstance(value, list):
            print(f"  {name:<24} {value if isinstance(value, str) else round(value, 4)}")
    return result


def gap_of(bridge: Any, setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """What second flows can still tell from the source, in nats."""
    from svae.auditing import Audit
    from svae.translating import residual_gap

    trainer = trainer_of(options) | {"max_epochs": 2 if options.quick else 4}
    gap = residual_gap(bridge, setting.data, options.seed, **trainer)
    print(f"  {'gap':<24} {gap.value:.4f}")
    return Audit({"gap": gap}).flat()


def picture(bridge: Any, mean: Any, setting: Setting, options: argparse.Namespace) -> Any:
    """Draws and the mean for some test inputs."""
    import svae
    from svae.translating import pairs_of

    x, source = pairs_of(bridge, setting.data, rows=setting.rows)
    seen = isinstance(source, Tensor) and source.dim() == 4
    same = seen and source.shape == x.shape and bool((source == x).all())
    return svae.plots.translations(
        bridge.translate(source, 7, generator_of(options)),
        source if isinstance(source, list) else setting.labels,
        source=source if seen else None,
        mean=mean.translate(source)[0],
        target=None if same else x,
    )


def likenesses(bridge: Any, setting: Setting) -> Any:
    """Exemplars across, sources down: each column has the v of its exemplar."""
    import svae
    from svae.translating import pairs_of

    x, source = pairs_of(bridge, setting.data, rows=setting.rows)
    columns = [bridge.like(source, x[i : i + 1], of=source[i : i + 1]) for i in range(len(x))]
    labels = source if isinstance(source, list) else setting.labels
    title = "Down: what the source says. Across: the v of each real picture in turn"
    return svae.plots.translations(torch.stack(columns), labels, target=x, title=title)


# ---- the tasks


def captions(options: argparse.Namespace) -> dict[str, Setting]:
    """Captions to coloured digits."""
    import svae
    from svae.data.captioned import ATTRIBUTES, read_attributes

    data = captioned_digits(options)
    source = caption_encoder(data.source_inputs["train"], options)
    judge = judge_of(data, options)

    def read(x: Tensor) -> dict[str, Tensor]:
        return {"digit": judge(grey(x)).argmax(1), **read_attributes(x)}

    def view(x: Tensor) -> list[str]:
        found = read(x)
        rows = zip(*(found[name].tolist() for name in ("digit", *ATTRIBUTES)), strict=True)
        return [svae.data.captioned.caption(*row) for row in rows]

    factors = data.test.factors.long()
    wanted = {"digit": data.test.y}
    wanted |= {name: factors[:, i] for i, name in enumerate(data.factor_names)}
    groups = data.test.y
    for values in factors.T:
        groups = groups * (int(values.max()) + 1) + values
    return {
        "": Setting(data, source, view, lambda x: judge.features(grey(x)), read, wanted, groups)
    }


def caption_encoder(texts: list[str], options: argparse.Namespace) -> Any:
    """A frozen sentence encoder where one is installed or asked for, else counts of words."""
    from svae.bridges import BagOfWords, SentenceEncoder
    from svae.data.captioned import DIGIT_WORDS

    if options.encoder not in ("auto", "words"):
        return SentenceEncoder(options.encoder)
    if options.encoder == "auto":
        try:
            from sentence_transformers import SentenceTransformer  # pyright: ignore

            # What is not on this machine is not fetched without being asked for.
            return SentenceEncoder(SentenceTransformer(SENTENCES, local_files_only=True))
        except (ImportError, OSError) as error:
            print(f"no sentence encoder here ({type(error).__name__}): words are counted")
    return BagOfWords.of(texts, answers=DIGIT_WORDS)


def captioned_digits(options: argparse.Namespace) -> Any:
    """Captioned digits, which take minutes to draw, kept where networks are kept."""
    from safetensors.torch import load_file, save_file

    import svae
    from svae.caching import cache_folder, kept, key_of
    from svae.data import ArraySet
    from svae.data.pairing import SPLITS

    base = digits_of(options, options.n_train)
    n = len(base.train)
    sizes = (len(part) for part in (base.train, base.validation, base.test))
    asked = {"captioned": base.name, "seed": options.seed, "sizes": [*sizes], "rows": "spread"}
    copies = options.copies or 2
    key = key_of({**asked, "copies": copies})
    path = cache_folder(None) / f"captioned-{key}.safetensors"
    places = [(split, part) for split in SPLITS for part in ("x", "y", "factors")]

    def make() -> Any:
        print(f"drawing {copies * n} captioned digits")
        return svae.data.CaptionedDigits(base, options.seed, copies)

    def write_to(data: Any) -> None:
        found = {f"{a}.{b}": getattr(getattr(data, a), b) for a, b in places}
        save_file(found, path)

    def read() -> Any:
        found = load_file(path)
        sets = [ArraySet(*(found[f"{a}.{b}"] for a, b in places if a == name)) for name in SPLITS]
        return svae.data.CaptionedDigits.of_drawn(base, *sets, seed=options.seed)

    return kept(path, read, make, write_to)


def digits_of(options: argparse.Namespace, n_train: int | None = None) -> Any:
    """MNIST where it is, else the embedded digits; as many as are asked for."""
    import svae

    data = svae.data.choose("digits" if options.quick else options.dataset, options.data_root)
    sizes = (300, 60, 200) if options.quick else (n_train or len(data.train), 2000, 5000)
    for name, n in zip(("train", "validation", "test"), sizes, strict=True):
        # Not the first ones: those of MNIST's test set are cleaner than the others, and than the
        # training set (Frechet distance to it .71, of all of them .16).
        setattr(data, name, getattr(data, name).evenly(n))
    return data


def moved(data: Any, copies: int, seed: int) -> Any:
    """Every training digit, and copies of it that are a little turned, leant, scaled and shifted.

    A flow of few pairs learns them by heart, and its v then tells the source.
    """
    from svae.data import ArraySet, RandomAffine
    from svae.data.batch import as_floats

    generator = torch.Generator().manual_seed(seed)
    move = RandomAffine(5.0, 0.03, (0.95, 1.05), 3.0, generator)
    x, y = data.train.x, data.train.y
    chunks = [part for _ in range(copies - 1) for part in x.split(1000)]
    more = [(255 * move(as_floats(part))).round().to(torch.uint8) for part in chunks]
    data.train = ArraySet(torch.cat([x, *more]), y.repeat(copies))
    return data


def grey(x: Tensor) -> Tensor:
    """The brightest channel, as bright as a grey digit is."""
    most = x.amax(1, keepdim=True)
    return most / most.amax((1, 2, 3), keepdim=True).clamp(min=1e-3)


def judge_of(data: Any, options: argparse.Namespace) -> Any:
    """A judge of grey digits; for the enlarged embedded ones it is trained here."""
    import svae
    from svae.judge import load_judge, train_judge

    base = digits_of(options)
    if base.name == "mnist":
        return load_judge(base)
    x, y = grey(data.train.floats()), data.train.y
    return train_judge(svae.data.as_data((x, y)), 2 if options.quick else 10, options.seed)


def layers(options: argparse.Namespace) -> dict[str, Setting]:
    """What each layer of a classifier shows, to pictures: what it still knows of its input."""
    import svae
    from experiments.networks import LeNet
    from svae.factorization import in_batches
    from svae.judge import load_judge, train_judge

    data = moved(digits_of(options), options.copies or 1, options.seed)
    if data.name != "mnist":
        net: Any = train_judge(data, 2 if options.quick else 10, 100)
        names = tuple(name for name, _ in net.named_modules() if name)[-1:]
    else:
        net, names = LeNet.trained(), ("conv1", "pool2", "ip2")
    judge = load_judge(data)
    wanted = {"digit": in_batches(net, data.test.floats()).argmax(1)}
    # Logits say far more than the answer: which of the others come close, and how surely.
    answering = torch.nn.Sequential(net, torch.nn.Softmax(1))
    opened = {name: (net, name) for name in names} | {"answer": (answering, "1")}
    return {
        name: Setting(
            data,
            svae.Frozen(network, layer, x_shape=data.x_shape),
            None,
            judge.features,
            lambda x: {"digit": judge(x).argmax(1)},
            wanted,
            groups=wanted["digit"] if name == "answer" else None,
            noise=0.2 if name == "answer" else 0.1,
            weight_decay=0.5,
        )
        for name, (network, layer) in opened.items()
    }


def attributes(options: argparse.Namespace) -> dict[str, Setting]:
    """All factors of dSprites, and shape and size alone."""
    import svae
    from svae.bridges import Vectors
    from svae.judge import load_judge, train_judge

    limit = 600 if options.quick else options.n_train
    data = svae.data.DSprites(options.data_root, limit=limit)
    if options.quick:
        data.validation = data.validation.subset(torch.arange(60))
        data.test = data.test.subset(torch.arange(200))
    judge = train_judge(data, 1, options.seed) if options.quick else load_judge(data)

    def shape(part: Any) -> Tensor:
        return torch.cat([functional.one_hot(part.y, 3).float(), part.factors[:, :1]], 1)

    def everything(part: Any) -> Tensor:
        angles = part.factors[:, 1:2] * torch.tensor([1.0, 2.0, 4.0])  # shapes repeat
        return torch.cat([shape(part), angles.sin(), angles.cos(), part.factors[:, 2:]], 1)

    some = {"all": everything, "shape and size": shape}
    found = {}
    for name, of in some.items():
        pairs = svae.data.PairedData(data, of)
        width = pairs.source_inputs["test"].shape[1]
        found[name] = Setting(
            pairs,
            Vectors(width),
            None,
            judge.features,
            lambda x: {"shape": judge(x).argmax(1)},
            {"shape": data.test.y},
            labels=[data.class_names[int(label)] for label in data.test.y[:6]],
            steps=6000,
            n_code=24,
        )
    return found


def colour(options: argparse.Namespace) -> dict[str, Setting]:
    """Grey digits to coloured ones."""
    import svae
    from svae.bridges import Vectors
    from svae.judge import load_judge

    base = digits_of(options)
    judge = load_judge(base)
    data = svae.data.ColouredDigits(base, "uniform", seed=options.seed)
    return {
        "": Setting(
            data,
            Vectors((1, *data.x_shape[1:])),
            grey,
            lambda x: judge.features(grey(x)),
            lambda x: {"digit": judge(grey(x)).argmax(1)},
            {"digit": data.test.y},
        )
    }


def resolution(options: argparse.Namespace) -> dict[str, Setting]:
    """Digits of few pixels to the whole."""
    from svae.bridges import Vectors
    from svae.judge import load_judge

    data = digits_of(options)
    judge = load_judge(data)
    side = data.x_shape[-1] // 4
    return {
        "": Setting(
            data,
            Vectors((1, side, side)),
            lambda x: functional.avg_pool2d(x, 4),
            judge.features,
            lambda x: {"digit": judge(x).argmax(1)},
            {"digit": data.test.y},
        )
    }


def domains(options: argparse.Namespace) -> dict[str, Setting]:
    """Digits and clothes, of which nobody says which belong together, by the domain's name."""
    import svae
    from svae.bridges import Labels
    from svae.data import ArrayData, ArraySet
    from svae.judge import train_judge

    digits = digits_of(options)
    other = second_domain(digits, options)
    sets = []
    for name in ("train", "validation", "test"):
        a, b = getattr(digits, name), getattr(other, name)
        n = min(len(a), len(b))
        x = torch.stack([a.x[:n], b.x[:n]], 1).flatten(0, 1)
        sets.append(ArraySet(x, torch.arange(2).repeat(n)))
    data = ArrayData(*sets, class_names=(digits.name, other.name), name="domains")
    judge = train_judge(data, 1 if options.quick else 2, options.seed + 100)
    pairs = svae.data.PairedData(data, lambda part: part.y)
    return {
        "": Setting(
            pairs,
            Labels(2),
            lambda x: judge(x).argmax(1),
            judge.features,
            lambda x: {"domain": judge(x).argmax(1)},
            {"domain": data.test.y},
            groups=data.test.y,
            labels=[data.class_names[int(label)] for label in data.test.y[:6]],
            noise=0.2,
            steps=6000,
        )
    }


def second_domain(digits: Any, options: argparse.Namespace) -> Any:
    """Fashion-MNIST where it is, else outlines of the digits."""
    import svae

    try:
        if options.quick:
            raise FileNotFoundError("small pictures are wanted")
        other = svae.data.choose("fashion", options.data_root)
    except FileNotFoundError as error:
        print(f"no Fashion-MNIST ({error}): outlines of the digits in its place")
        other = svae.data.choose(str(digits.name), options.data_root)
        for name in ("train", "validation", "test"):
            part = getattr(digits, name)
            x = svae.shifts.edges(part.floats())
            x = (255 * x / x.amax((1, 2, 3), keepdim=True).clamp(min=1e-3)).to(torch.uint8)
            setattr(other, name, svae.data.ArraySet(x, part.y))
        other.name = "outlines"
    return other


TASKS: dict[str, Callable[[argparse.Namespace], dict[str, Setting]]] = {
    "captions": captions,
    "layers": layers,
    "attributes": attributes,
    "colour": colour,
    "resolution": resolution,
    "domains": domains,
}


if __name__ == "__main__":
    main()
