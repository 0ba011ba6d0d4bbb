"""What does ``import svae`` cost over ``import torch``?

Question: is the package light to import?
Expectation: at most 1.15 times the time of ``import torch`` alone.
Cost: under a minute.

    python benchmarks/import_time.py --repeats 11
"""

import argparse
import json
import statistics
import subprocess
import sys
import time


def seconds(statement: str) -> float:
    """Wall-clock seconds of one fresh interpreter that runs ``statement``."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def measure(repeats: int) -> dict[str, float]:
    """Medians of both and the median of their ratios, taken in turn."""
    for statement in ("import torch", "import svae"):
        seconds(statement)  # warms the file cache
    pairs = [(seconds("import torch"), seconds("import torch, svae")) for _ in range(repeats)]
    ratios = [ours / torch for torch, ours in pairs]
    return {
        "torch_seconds": round(statistics.median(torch for torch, _ in pairs), 3),
        "svae_seconds": round(statistics.median(ours for _, ours in pairs), 3),
        "ratio": round(statistics.median(ratios), 4),
        "ratio_lowest": round(min(ratios), 4),
        "ratio_highest": round(max(ratios), 4),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Import time of svae over torch.")
    parser.add_argument("--repeats", type=int, default=11)
    print(json.dumps(measure(parser.parse_args().repeats), indent=1))
