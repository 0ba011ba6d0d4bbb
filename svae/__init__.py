"""Find out, and show, what a model ignores."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from svae import (
        attacks,
        attribution,
        bridges,
        consistency,
        counterfactuals,
        data,
        distilling,
        editing,
        fibres,
        flows,
        guides,
        heads,
        independence,
        likelihoods,
        metrics,
        nuisances,
        plots,
        priors,
        profiling,
        schedules,
        shifts,
        shortcuts,
        sketches,
        stability,
        translating,
    )
    from svae.auditing import audit
    from svae.augmenting import Augment
    from svae.bridges import ConceptBridge, Frozen, InvarianceBridge, TranslationBridge
    from svae.elbo import SupervisedELBO, evidence
    from svae.explaining import explain
    from svae.factorization import (
        Factorization,
        read,
        reconstruct,
        resample_nuisance,
        swap_nuisance,
    )
    from svae.guides import MeanFieldGuide
    from svae.heads import GaussianHead, NetworkHead
    from svae.latent import Latent, LatentSplit
    from svae.loading import load
    from svae.models import SVAE, SupervisedModel
    from svae.reporting import report
    from svae.training import fit

_NAMES = {
    "Augment": "augmenting",
    "ConceptBridge": "bridges",
    "Factorization": "factorization",
    "Frozen": "bridges",
    "GaussianHead": "heads",
    "InvarianceBridge": "bridges",
    "Latent": "latent",
    "LatentSplit": "latent",
    "MeanFieldGuide": "guides",
    "NetworkHead": "heads",
    "SVAE": "models",
    "SupervisedELBO": "elbo",
    "SupervisedModel": "models",
    "TranslationBridge": "bridges",
    "audit": "auditing",
    "evidence": "elbo",
    "explain": "explaining",
    "fit": "training",
    "load": "loading",
    "read": "factorization",
    "reconstruct": "factorization",
    "report": "reporting",
    "resample_nuisance": "factorization",
    "swap_nuisance": "factorization",
}
_MODULES = (
    "attacks",
    "attribution",
    "bridges",
    "consistency",
    "counterfactuals",
    "data",
    "distilling",
    "editing",
    "fibres",
    "flows",
    "guides",
    "heads",
    "independence",
    "likelihoods",
    "metrics",
    "nuisances",
    "plots",
    "priors",
    "profiling",
    "schedules",
    "shifts",
    "shortcuts",
    "sketches",
    "stability",
    "translating",
)

__all__ = [
    "SVAE",
    "Augment",
    "ConceptBridge",
    "Factorization",
    "Frozen",
    "GaussianHead",
    "InvarianceBridge",
    "Latent",
    "LatentSplit",
    "MeanFieldGuide",
    "NetworkHead",
    "SupervisedELBO",
    "SupervisedModel",
    "TranslationBridge",
    "attacks",
    "attribution",
    "audit",
    "bridges",
    "consistency",
    "counterfactuals",
    "data",
    "distilling",
    "editing",
    "evidence",
    "explain",
    "fibres",
    "fit",
    "flows",
    "guides",
    "heads",
    "independence",
    "likelihoods",
    "load",
    "metrics",
    "nuisances",
    "plots",
    "priors",
    "profiling",
    "read",
    "reconstruct",
    "report",
    "resample_nuisance",
    "schedules",
    "shifts",
    "shortcuts",
    "sketches",
    "stability",
    "swap_nuisance",
    "translating",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(f"svae.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"svae.{name}")
    raise AttributeError(f"module 'svae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
