"""The directions of imports, read from the sources, and the cost of ``import svae``."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "svae"

# An arrow of the style guide: what stands on the right may import what stands left of it, on any
# of these paths, and never the other way round.
CHAINS = [
    [
        {"latent", "labels", "schedules", "nets", "flows", "saving"},
        {"heads", "priors", "likelihoods", "sites"},
        {"models", "guides"},
        {"elbo", "independence", "consistency"},
        {"compilation"},
        {"training"},
        {"commands"},
        {"cli"},
    ],
    [{"models", "bridges"}, {"loading"}, {"commands"}],
    [{"flows"}, {"bridges"}, {"training"}],
    [{"bridges"}, {"training"}, {"explaining"}, {"profiling"}, {"commands"}],
    [{"caching"}, {"explaining"}],
    [{"factorization", "metrics", "sketches"}, {"nuisances"}, {"auditing"}, {"reporting"}],
    [{"factorization"}, {"counterfactuals", "augmenting"}, {"reporting"}],
    [{"nuisances"}, {"stability"}],
    [{"factorization", "metrics", "sketches"}, {"shortcuts"}, {"reporting"}],
    [{"bridges", "metrics"}, {"fibres"}, {"profiling"}],
    [{"bridges", "metrics"}, {"distilling"}],
    [{"training", "metrics", "data"}, {"translating"}],
    [
        {"latent"},
        {"factorization"},
        {"editing"},
        {"metrics", "plots", "attribution"},
        {"auditing"},
        {"reporting"},
        {"commands"},
        {"cli"},
    ],
]

# These serve frozen external models and ours alike, so they know of nothing that trains or that
# belongs to one family; `judge` trains networks, hence the metrics are handed one and import none.
TRAINS_OR_IS_A_FAMILY = {
    "models",
    "guides",
    "elbo",
    "independence",
    "consistency",
    "compilation",
    "training",
    "bridges",
    "judge",
    "loading",
    "commands",
    "cli",
}
RESTRICTED = {
    "attacks",
    "shifts",
    "flows",
    "metrics",
    "plots",
    "data",
    "sketches",
    "attribution",
    "nuisances",
    "augmenting",
    "counterfactuals",
    "shortcuts",
    "stability",
    "editing",
    "factorization",
    "latent",
}

# Outside the chains: `attacks`, `data`, `shifts` and `sketches` are restricted above, `judge`
# trains, `__main__` only calls the CLI.
FREE = {"attacks", "data", "shifts", "sketches", "judge", "__main__"}

HEAVY = {
    "captum",
    "matplotlib",
    "pytorch_lightning",
    "seaborn",
    "sklearn",
    "torchmetrics",
    "torchvision",
    "umap",
}
# Modules whose classes subclass Lightning's, and that only; nothing else is heavy up there.
LIGHTNING_SUBCLASSES = {"svae.commands.fitting", "svae.data.module", "svae.training"}


def modules() -> dict[str, Path]:
    """Dotted name → file of every module of the package."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(tree: ast.AST, *, top_level: bool = False) -> set[str]:
    """Dotted names that a syntax tree imports; with ``top_level`` only what runs on import.

    ``from svae.data import batch`` counts as ``svae.data`` and as ``svae.data.batch``. What stands
    below ``if TYPE_CHECKING:`` never runs and counts for neither.
    """
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"line {node.lineno}: a relative import hides its layer")
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            found |= set().union(*(imports(child, top_level=top_level) for child in node.orelse))
        elif not (
            top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        ):
            found |= imports(node, top_level=top_level)
    return found


def layer(name: str) -> str | None:
    """First word below the package: ``svae.metrics.leakage`` → ``metrics``."""
    parts = name.split(".")
    return parts[1] if parts[0] == "svae" and len(parts) > 1 else None


def forbidden(module: str) -> set[str]:
    """Layers that a module of this layer must not import."""
    banned: set[str] = set()
    for chain in CHAINS:
        for position, step in enumerate(chain):
            if module in step:
                banned |= set().union(*chain[position + 1 :])
    if module in RESTRICTED:
        banned |= TRAINS_OR_IS_A_FAMILY
    return banned - {module}


def violations(name: str, tree: ast.AST) -> list[str]:
    """Imports against the arrows, one line each."""
    own = layer(name)
    if own is None:
        return []
    return [
        f"{name} imports {target}: `{own}` stands below `{layer(target)}`"
        for target in sorted(imports(tree))
        if layer(target) in forbidden(own)
    ]


def heavy_at_top(name: str, tree: ast.AST) -> list[str]:
    """Heavy packages imported when the module is, apart from Lightning where it is subclassed."""
    allowed = {
        "pytorch_lightning"
        for module in LIGHTNING_SUBCLASSES
        if name == module or name.startswith(f"{module}.")
    }
    return [
        f"{name} imports {target} at its top; import it in the function that needs it"
        for target in sorted(imports(tree, top_level=True))
        if target.split(".")[0] in HEAVY - allowed
    ]


MODULES = modules()


@pytest.mark.parametrize("name", MODULES)
def test_arrows_point_one_way(name: str) -> None:
    assert violations(name, ast.parse(MODULES[name].read_text())) == []


def test_every_module_has_a_place() -> None:
    placed = set().union(*(step for chain in CHAINS for step in chain)) | FREE
    unplaced = {layer(name) for name in MODULES} - placed - {None}
    assert unplaced == set(), f"say in CHAINS or FREE what {sorted(map(str, unplaced))} may import"


@pytest.mark.parametrize("name", MODULES)
def test_heavy_packages_are_imported_late(name: str) -> None:
    assert heavy_at_top(name, ast.parse(MODULES[name].read_text())) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("svae.flows", "import svae.training"),
        ("svae.flows", "from svae import models"),
        ("svae.heads", "def f():\n    from svae.elbo import Objective"),
        ("svae.latent", "from svae.factorization import Factorization"),
        ("svae.metrics.leakage", "from svae.judge import load_judge"),
        ("svae.plots.grids", "from svae.training import fit"),
        (
            "svae.data.mnist",
            "try:\n    from svae.models import SVAE\nexcept ImportError:\n    pass",
        ),
        ("svae.sketches.pairs", "from svae import training"),
        ("svae.auditing", "from svae.reporting import report"),
        ("svae.factorization", "from svae.bridges.invariance import InvarianceBridge"),
    ],
)
def test_a_wrong_arrow_is_found(name: str, source: str) -> None:
    assert len(violations(name, ast.parse(source))) >= 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("svae.training", "from svae.compilation import compiled\nfrom svae.models import SVAE"),
        ("svae.training", "from svae.bridges.invariance import InvarianceBridge"),
        ("svae.metrics.leakage", "from svae.metrics.estimate import Estimate"),
        ("svae.plots.grids", "from svae.factorization import Factorization"),
        ("svae.heads", "import torch\nfrom svae.nets import MLP"),
        (
            "svae.latent",
            "if TYPE_CHECKING:\n    from svae.factorization import Factorization",
        ),
    ],
)
def test_a_right_arrow_is_not(name: str, source: str) -> None:
    assert violations(name, ast.parse(source)) == []


@pytest.mark.parametrize(
    ("name", "source", "count"),
    [
        ("svae.metrics.fidelity", "import torchmetrics.image", 1),
        ("svae.plots.grids", "class A:\n    import seaborn as sns", 1),
        ("svae.plots.grids", "if True:\n    import matplotlib.pyplot as plt", 1),
        ("svae.training", "from torchmetrics import Metric", 2),
        ("svae.metrics.fidelity", "import pytorch_lightning", 1),
        ("svae.training", "import pytorch_lightning as pl", 0),
        ("svae.training.loop", "import pytorch_lightning as pl", 0),
        ("svae.data.module", "from pytorch_lightning import LightningDataModule", 0),
        ("svae.plots.grids", "def f():\n    import seaborn", 0),
    ],
)
def test_a_heavy_import_is_found(name: str, source: str, count: int) -> None:
    assert len(heavy_at_top(name, ast.parse(source))) == count


def test_a_relative_import_is_refused() -> None:
    with pytest.raises(AssertionError, match="relative import"):
        imports(ast.parse("from . import latent"))


def test_import_svae_is_light() -> None:
    code = "import sys, svae; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert (HEAVY | {"pyro", "scipy", "zuko", "tensorboard", "pandas"}) & set(loaded) == set()


def test_every_public_name_resolves() -> None:
    import svae

    assert len(set(svae.__all__)) == len(svae.__all__)
    for name in svae.__all__:
        assert getattr(svae, name) is not None
        assert name in dir(svae)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    import svae

    with pytest.raises(AttributeError, match="no_such_name"):
        svae.no_such_name  # noqa: B018
