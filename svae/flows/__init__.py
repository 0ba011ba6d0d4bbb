r"""Invertible networks: maps between a value and noise, given a context.

Everywhere in this package ``forward`` goes from value to noise and ``inverse`` from noise to
value. Both return ``(result, log_det)``, where ``log_det`` belongs to the map just applied, so
that :math:`\log p(v) = \log \mathcal{N}(\mathrm{noise}; 0, I) + \mathrm{log\_det}`.
"""

from svae.flows.actnorm import ActNorm
from svae.flows.bijection import Bijection
from svae.flows.coupling import Coupling
from svae.flows.flow import ConditionalFlow
from svae.flows.mixing import Permutation, Rotation
from svae.flows.starting import held_start

__all__ = [
    "ActNorm",
    "Bijection",
    "ConditionalFlow",
    "Coupling",
    "Permutation",
    "Rotation",
    "held_start",
]
