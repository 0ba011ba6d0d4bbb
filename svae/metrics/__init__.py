"""Numbers on factorizations, codes, logits and features, each with its 95 % interval."""

from svae.metrics.calibration import (
    accuracy,
    brier,
    expected_calibration_error,
    negative_log_likelihood,
)
from svae.metrics.estimate import (
    Estimate,
    bootstrap,
    clustered_mean,
    clustered_proportion,
    exact_proportion,
    mean,
    proportion,
)
from svae.metrics.fidelity import (
    Neighbourhood,
    conditional_coverage,
    conditional_frechet_distance,
    frechet_distance,
    kernel_distance,
    neighbourhood,
)
from svae.metrics.invariance import (
    diversity_ratio,
    feature_diversity_ratio,
    preservation,
    preservation_swapped,
    reconstruction_preservation,
    spread_ratio,
    switch_rate,
)
from svae.metrics.leakage import permutation_null
from svae.metrics.perceptual import structural_distance

__all__ = [
    "Estimate",
    "Neighbourhood",
    "accuracy",
    "bootstrap",
    "brier",
    "clustered_mean",
    "clustered_proportion",
    "conditional_coverage",
    "conditional_frechet_distance",
    "diversity_ratio",
    "exact_proportion",
    "expected_calibration_error",
    "feature_diversity_ratio",
    "frechet_distance",
    "kernel_distance",
    "mean",
    "negative_log_likelihood",
    "neighbourhood",
    "permutation_null",
    "preservation",
    "preservation_swapped",
    "proportion",
    "reconstruction_preservation",
    "spread_ratio",
    "structural_distance",
    "switch_rate",
]
