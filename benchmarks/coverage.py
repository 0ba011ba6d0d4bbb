"""Do the intervals of a certificate cover the true flip rate as often as they say?

Question: of audits of a known flip rate, in which the draws of one image resemble each other, how
many have an interval with that rate in it?
Expectation: 93.5 to 97.5 % where images are the clusters, at least 95 % with one draw per image.
Cost: a minute.

    python benchmarks/coverage.py                # writes benchmarks/results/coverage.json
"""

import argparse
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.evidence import claim, command, write  # noqa: E402

RATES = (0.01, 0.02, 0.05, 0.2)
ALIKE = (0.05, 0.3, 0.7)  # correlation of two draws of one image
SETS = ((500, 8), (1000, 2), (1000, 8), (2000, 4))  # images and draws of each
SINGLE = (500, 2000)  # images with one draw each


def coverage(rate: float, alike: float, n_images: int, n_draws: int, n_audits: int) -> float:
    """Share of audits whose interval holds the rate.

    The rate of an image is Beta distributed, about ``rate`` and so that two draws of an image have
    the correlation ``alike``.
    """
    from svae.metrics.estimate import clustered_proportion

    size = (1 - alike) / alike
    beta = torch.distributions.Beta(rate * size, (1 - rate) * size)
    held = 0
    for _ in range(n_audits):
        hits = torch.rand(n_draws, n_images) < beta.sample((n_images,))
        found = clustered_proportion(hits)
        held += found.low <= rate <= found.high
    return held / n_audits


def main(arguments: list[str] | None = None) -> None:
    """Writes the claims and every single coverage."""
    parser = argparse.ArgumentParser(description="Coverage of the intervals of flip rates.")
    parser.add_argument("--audits", type=int, default=2000, help="simulated for each setting")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few audits, for tests")
    results = ROOT / "benchmarks" / "results"
    parser.add_argument("--out", type=Path, default=results / "coverage.json")
    options = parser.parse_args(arguments)
    n = 50 if options.quick else options.audits
    torch.manual_seed(options.seed)
    clustered: list[dict[str, Any]] = []
    for rate, alike, (n_images, n_draws) in product(RATES, ALIKE, SETS):
        held = coverage(rate, alike, n_images, n_draws, n)
        clustered.append(
            {"rate": rate, "alike": alike, "images": n_images, "draws": n_draws, "held": held}
        )
    single: list[dict[str, Any]] = [
        {"rate": rate, "images": n_images, "held": coverage(rate, 0.5, n_images, 1, n)}
        for rate, n_images in product(RATES, SINGLE)
    ]
    about = f"share of {n} simulated audits whose interval covers the true flip rate"
    held = [one["held"] for one in clustered]
    claims = [
        claim("audit.coverage.least", f"{about}, images as clusters, least of {len(held)} "
              "settings", ">= 0.935", [min(held)]),
        claim("audit.coverage.most", f"{about}, images as clusters, most of {len(held)} settings",
              "<= 0.975", [max(held)]),
        claim("audit.coverage.exact", f"{about}, one draw per image, least of {len(single)} "
              "settings", ">= 0.95", [min(one["held"] for one in single)]),
    ]  # fmt: skip
    write(command("coverage", arguments), claims, options.out, clustered=clustered, single=single)
    for one in claims:
        print(f"{one['id']:<24}{one['measured']}")


if __name__ == "__main__":
    main()
