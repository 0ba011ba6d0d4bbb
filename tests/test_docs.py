"""The Python of the pages that teach by example runs, on sets and models of toy size."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import svae

DOCS = Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[str]:
    """The Python blocks of a page, on the lines that they have there: tracebacks point at them."""
    text = (DOCS / page).read_text()
    return [
        "\n" * text[: match.start(1)].count("\n") + match[1] for match in _BLOCK.finditer(text)
    ]


class _Encoder(nn.Module):
    n_features = 64

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(-3)[..., :64]


def _decoder(n_features: int) -> nn.Module:
    return nn.Sequential(nn.Linear(n_features, 64), nn.Unflatten(-1, (1, 8, 8)))


def _load(part: str, seed: int) -> tuple[Tensor, Tensor]:
    return torch.rand(21, 1, 8, 8), torch.arange(21) % 7


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the pages take for granted; training itself is tested elsewhere."""
    from svae.heads import Head
    from svae.independence import Penalty
    from svae.likelihoods import Bernoulli
    from svae.priors import FlowPrior

    monkeypatch.chdir(tmp_path)
    train = svae.fit

    def fit(model: Any, data: Any, **settings: Any) -> None:
        if not isinstance(model, svae.SVAE):  # a bridge is built by what its fit measures
            train(model, data, enable_progress_bar=False, **settings)

    monkeypatch.setitem(vars(svae), "fit", fit)
    images = torch.rand(200, 1, 28, 28), torch.arange(200) % 10
    monkeypatch.setitem(vars(svae.data), "MNIST", lambda: svae.data.as_data(images))
    return {
        "Bernoulli": Bernoulli,
        "FlowPrior": FlowPrior,
        "Head": Head,
        "MyDecoder": _decoder,
        "MyEncoder": _Encoder,
        "Penalty": Penalty,
        "data": svae.data.Digits(),
        "load": _load,
        "math": math,
        "nn": nn,
        "svae": svae,
        "torch": torch,
        "vae": svae.SVAE.for_images((1, 8, 8), 10, svae.LatentSplit(n_class=2, n_nuisance=2)),
        "x": torch.rand(40, 1, 8, 8),
        "y": torch.arange(40) % 10,
    }


@pytest.mark.parametrize(
    "page",
    [
        *("index.md", "getting-started.md", "data.md", "sketches.md"),
        *("extending.md", "compilation.md", "models/flows.md", "models/concepts.md"),
        *("models/invariances.md", "answers.md"),
    ],
)
@pytest.mark.filterwarnings("ignore::svae.explaining.InputScaling")  # untrained networks
@pytest.mark.filterwarnings("ignore::svae.training.CollapsedBlock")
@pytest.mark.filterwarnings("ignore::svae.bridges.UnitsDropped")  # of eight by eight digits
def test_the_python_of_a_page_runs(
    page: str, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SVAE_CACHE", str(tmp_path))
    sources = blocks(page)
    assert sources
    for source in sources:
        if page == "extending.md" and "Shift()" in source:
            names["x"] = torch.rand(40, 12)
        if page == "answers.md":  # attributions take a second for each picture
            names["x"] = names["x"][:12]
        exec(compile(source, DOCS / page, "exec"), names)
    if page == "extending.md":
        _the_parts_are_what_the_page_says(names)


def _the_parts_are_what_the_page_says(names: dict[str, Any]) -> None:
    guide = names["MyGuide"](10, 8)
    vae = svae.SVAE(model=names["model"], guide=guide)
    assert vae.predict(torch.rand(3, 1, 28, 28)).shape == (3, 10)
    assert len(names["Stars"](batch_size=4).train) == 21
    head = names["BalancedHead"](10)
    assert torch.allclose(head(torch.randn(5, 10)).exp().sum(-1), torch.ones(5))
    z, y = torch.randn(70, 3), torch.arange(70) % 7
    free, bound = (
        names["MeanMatch"]()(vae, z, y, svae.Latent(z, nuisance))
        for nuisance in (z, z + y[:, None])
    )
    assert bound > free >= 0
    x = torch.rand(5, 12)
    assert torch.equal(svae.reconstruct(names["Shift"](), x), x)
