import subprocess
import sys
from pathlib import Path

import svae

ROOT = Path(svae.__file__).parents[1]
HEAVY = ["pytorch_lightning", "torchmetrics", "torchvision", "matplotlib", "sklearn", "umap"]


def loaded_by(code: str) -> set[str]:
    """Top-level names in ``sys.modules`` after ``code`` has run in a fresh interpreter."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_the_package_loads_no_heavy_module_and_not_even_torch() -> None:
    loaded = loaded_by("import svae")
    assert not loaded & {*HEAVY, "torch", "pyro", "zuko", "scipy", "numpy", "seaborn"}


def test_building_and_using_a_model_loads_nothing_for_training_or_pictures() -> None:
    code = (
        "import svae, torch\n"
        "vae = svae.SVAE.for_vectors(4, 2, svae.LatentSplit(1, 1), hidden=(3,))\n"
        "svae.resample_nuisance(vae, torch.rand(2, 4), 2)"
    )
    assert not loaded_by(code) & {*HEAVY, "seaborn", "tensorboard"}


def test_the_package_says_its_version() -> None:
    assert svae.__version__.count(".") == 2
