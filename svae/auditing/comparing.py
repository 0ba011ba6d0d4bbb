"""What changed between two audits, and whether it can be chance."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Comparison", "compare"]

Numbers = Mapping[str, float | int | str]
_NORMAL = 1.959963984540054


@dataclass(frozen=True)
class Comparison:
    r"""One number of two audits.

    Args:
        name: Of the number.
        before: In the other audit.
        after: In this one.
        p_value: Of the two-sided test of no change,
            :math:`z = \Delta / \sqrt{s_1^2 + s_2^2}` with standard errors from the intervals, as
            if the audits were independent.
        significant: Whether it is below .05 after Holm's correction for all numbers compared.
    """

    name: str
    before: float
    after: float
    p_value: float
    significant: bool

    def __str__(self) -> str:
        mark = " *" if self.significant else ""
        return (
            f"{self.name}: {self.before:.4g} -> {self.after:.4g} ({self.after - self.before:+.4g},"
            f" p = {self.p_value:.2g}){mark}"
        )


def compare(before: Numbers, after: Numbers, level: float = 0.05) -> list[Comparison]:
    """Every number that both audits have with an interval, the surest change first.

    Two models on the same test set resemble each other in what is hard, so that the test, which
    takes them as independent, is on the safe side.

    References:
        A simple sequentially rejective multiple test procedure (Holm, 1979)

    Args:
        before: :meth:`svae.auditing.Audit.flat`, or its JSON.
        after: The same of the other model.
        level: Of all tests together.

    Raises:
        ValueError: If they have no number in common.
    """
    names = [name for name in after if name in before and f"{name}_low" in after]
    names = [name for name in names if f"{name}_low" in before]
    if not names:
        raise ValueError(
            "the two audits have no number with an interval in common; were both written by "
            "`svae audit`?"
        )
    found = []
    for name in names:
        one, two = float(before[name]), float(after[name])
        error = math.hypot(_error(before, name), _error(after, name))
        z = abs(two - one) / error if error > 0 else (math.inf if two != one else 0.0)
        found.append((math.erfc(z / math.sqrt(2)), name, one, two))
    found.sort()
    rows, still = [], True
    for i, (p, name, one, two) in enumerate(found):
        still = still and p <= level / (len(found) - i)
        rows.append(Comparison(name, one, two, p, still))
    return rows


def _error(numbers: Numbers, name: str) -> float:
    return (float(numbers[f"{name}_high"]) - float(numbers[f"{name}_low"])) / (2 * _NORMAL)
