"""Models and guides as a user writes them: plain Pyro, nothing of this package inside."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

N_X, N_CLASS, N_STYLE, N_CLASSES = 5, 2, 3, 4


def nodes(stochastic: Callable[..., None], *arguments: Any) -> dict[str, Any]:
    """What a trace of a model or guide holds of every site, with its log-probability."""
    trace = poutine.trace(stochastic).get_trace(*arguments)
    trace.compute_log_prob()
    return dict(trace.nodes)


class LabelFirst(nn.Module):
    """y → z_class; its class means lie far apart, so that a class has its own place."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.tensor([[6.0, 0.0], [-6.0, 1.0], [0.0, 7.0], [1.0, -6.0]]))
        self.scale = torch.tensor([[1.0, 0.5], [2.0, 1.0], [0.7, 1.3], [1.1, 0.9]])
        self.probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
        self.decoder = nn.Linear(N_CLASS + N_STYLE, N_X)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            y = pyro.sample("y", dist.Categorical(self.probabilities.expand(len(x), -1)), obs=y)
            normal = dist.Normal(self.loc[y], self.scale[y]).to_event(1)
            z_class = pyro.sample("z_class", normal)
            style = pyro.sample("style", dist.Normal(x.new_zeros(len(x), N_STYLE), 1).to_event(1))
            mean = self.decoder(torch.cat([z_class, style], -1)).sigmoid()
            pyro.sample("x", dist.Normal(mean, 0.1).to_event(1), obs=x)


class LabelLast(nn.Module):
    """z_class → y; the style may be drawn before the label or after it, in a prior of its own."""

    def __init__(self, style_first: bool = False) -> None:
        super().__init__()
        self.style_first = style_first
        self.head = nn.Linear(N_CLASS, N_CLASSES)
        self.decoder = nn.Linear(N_CLASS + N_STYLE, N_X)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            prior = dist.Normal(x.new_zeros(len(x), N_CLASS), 1).to_event(1)
            z_class = pyro.sample("z_class", prior)
            style = self._style(x) if self.style_first else None
            pyro.sample("y", dist.Categorical(logits=self.head(z_class)), obs=y)
            style = self._style(x) if style is None else style
            mean = self.decoder(torch.cat([z_class, style], -1)).sigmoid()
            pyro.sample("x", dist.Normal(mean, 0.1).to_event(1), obs=x)

    def _style(self, x: Tensor) -> Tensor:
        return pyro.sample("style", dist.Normal(x.new_zeros(len(x), N_STYLE), 2.0).to_event(1))


class StructuredGuide(nn.Module):
    """q(z_class given x) q(style given x and z_class)."""

    def __init__(self) -> None:
        super().__init__()
        self.z_class = nn.Linear(N_X, N_CLASS)
        self.style = nn.Linear(N_X + N_CLASS, N_STYLE)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("batch", len(x)):
            z_class = pyro.sample("z_class", dist.Normal(self.z_class(x), 0.3).to_event(1))
            loc = self.style(torch.cat([x, z_class], -1))
            pyro.sample("style", dist.Normal(loc, 0.2).to_event(1))


MODELS = {
    "label first": LabelFirst,
    "label last": LabelLast,
    "style before label": lambda: LabelLast(style_first=True),
}
