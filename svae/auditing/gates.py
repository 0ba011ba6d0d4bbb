"""Conditions on the numbers of an audit that a release has to keep."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

__all__ = ["Gate", "failed"]

_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM = re.compile(r"\s*(\S+)\s*(>=|<=|>|<)\s*(\S+)\s*")


@dataclass(frozen=True)
class Gate:
    """A number that must not be so: ``flip_rate > 0.02``.

    Args:
        name: Of the number; ``flip_rate_high`` is the upper end of its interval.
        relation: ``>``, ``>=``, ``<`` or ``<=``.
        limit: What it is compared with.
    """

    name: str
    relation: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> "Gate":
        """Reads ``"flip_rate > 0.02"``.

        Raises:
            ValueError: If the text has another form.
        """
        found = _FORM.fullmatch(text)
        try:
            if found is None:
                raise ValueError
            return cls(found[1], found[2], float(found[3]))
        except ValueError:
            raise ValueError(
                f"{text!r} is no condition, expected a name, one of > >= < <= and a number, such "
                "as 'flip_rate > 0.02'"
            ) from None

    def fails(self, numbers: Mapping[str, float | int | str]) -> bool:
        """Whether the number is so.

        Raises:
            ValueError: If there is no such number.
        """
        value = numbers.get(self.name)
        if not isinstance(value, int | float):
            near = get_close_matches(self.name, [str(name) for name in numbers], 3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(f"the audit has no number {self.name!r}{hint}")
        # A number that is none, such as a rate of nothing, is not known to hold.
        return value != value or _RELATIONS[self.relation](value, self.limit)

    def __str__(self) -> str:
        return f"{self.name} {self.relation} {self.limit:g}"


def failed(numbers: Mapping[str, float | int | str], conditions: Sequence[str]) -> list[str]:
    """Those of the conditions that hold and should not, each with the number.

    Args:
        numbers: :meth:`svae.auditing.Audit.flat`.
        conditions: Such as ``"flip_rate > 0.02"``.

    Raises:
        ValueError: If one cannot be read, or names no number.

    Example:
        >>> failed({"flip_rate": 0.03}, ["flip_rate > 0.02", "flip_rate > 0.05"])
        ['flip_rate > 0.02 (it is 0.03)']
    """
    gates = [Gate.parse(text) for text in conditions]
    return [f"{gate} (it is {numbers[gate.name]:.4g})" for gate in gates if gate.fails(numbers)]
