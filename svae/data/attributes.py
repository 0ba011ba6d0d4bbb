"""Tables that say what is in the images of a folder: comma-separated, or CelebA's own format."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from svae.labels import MISSING

__all__ = ["Attributes", "read_attributes"]

_FILE_COLUMNS = ("file", "filename", "file_name", "image", "image_id", "path")


@dataclass(frozen=True)
class Attributes:
    """Rows of a table, one per image.

    Attributes:
        path: Where the table is.
        files: The file that each row is about.
        columns: Name of an attribute → its value in each row, as it is written.
    """

    path: Path
    files: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]

    def subset(self, rows: Sequence[int]) -> "Attributes":
        """The rows given, in that order."""
        columns = {name: tuple(column[i] for i in rows) for name, column in self.columns.items()}
        return Attributes(self.path, tuple(self.files[i] for i in rows), columns)

    def labels(self, name: str | None) -> tuple[Int64[Tensor, " n"], tuple[str, ...]]:
        """A column as classes, -1 where nothing is written, and their names in order.

        Raises:
            ValueError: If there is no such column, or its values are no classes.
        """
        if name is None or name not in self.columns:
            raise ValueError(
                f"label is {name!r}, expected the column of {self.path} that holds the class, one "
                f"of {_some(list(self.columns))}."
            )
        column = self.columns[name]
        classes = _ordered({value for value in column if value})
        if len(classes) > max(2, len(column) // 2):
            raise ValueError(
                f"the column {name!r} of {self.path} has {len(classes)} different values in "
                f"{len(column)} rows, expected classes. Take another column as label, or group "
                "its values."
            )
        numbers = {value: i for i, value in enumerate(classes)}
        return torch.tensor([numbers.get(value, MISSING) for value in column]), classes

    def factors(
        self, without: str
    ) -> tuple[Float[Tensor, "n factors"] | None, dict[str, tuple[str, ...] | None]]:
        """All other columns as numbers, or None where there are none.

        With them, for every column by its name, the categories that 0, 1, 2, ... stand for, None
        where the numbers are the table's own.

        Raises:
            ValueError: If a value is missing.
        """
        names = {name: column for name, column in self.columns.items() if name != without}
        categories: dict[str, tuple[str, ...] | None] = {}
        numbers = []
        for name, column in names.items():
            if "" in column:
                raise ValueError(
                    f"the column {name!r} of {self.path} has no value for "
                    f"{self.files[column.index('')]}, {column.count('')} in all; expected one for "
                    "every image. Fill them in, with a category of their own, or drop the column."
                )
            found = _numbers(column)
            categories[name] = None if found else _ordered(set(column))
            if not found:
                codes = {value: i for i, value in enumerate(categories[name] or ())}
                found = [codes[value] for value in column]
            numbers.append(found)
        if not numbers:
            return None, categories
        return torch.tensor(numbers, dtype=torch.float32).T.contiguous(), categories


def read_attributes(path: Path) -> Attributes:
    """Reads a table of attributes.

    Either comma-separated with a header; the files are in the column ``file``, ``filename``,
    ``file_name``, ``image``, ``image_id`` or ``path``, else in the first. Or separated by blanks
    as CelebA's ``list_attr_celeba.txt``: the number of images, the names of the attributes, and
    rows that begin with the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such table, or names a file twice.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, expected a table with one row per image. A relative path starts "
            "at the folder of the images."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no text in UTF-8 ({error}), expected a table separated by commas or "
            "blanks. Save a spreadsheet as CSV."
        ) from error
    lines = [line for line in text.splitlines() if line.strip()]
    count = None
    if lines and lines[0].strip().isdigit():
        count, lines = int(lines[0]), lines[1:]
    if len(lines) < 2:
        raise ValueError(
            f"{path} has {len(lines)} lines, expected a header with the names of the columns and "
            "one row per image."
        )
    commas = "," in lines[0]
    rows = list(csv.reader(lines)) if commas else [line.split() for line in lines]
    header, rows = [cell.strip() for cell in rows[0]], rows[1:]
    if not commas and len(rows[0]) == len(header) + 1:
        header = ["file", *header]
    if count is not None and count != len(rows):
        raise ValueError(
            f"{path} says that it is about {count} images and has {len(rows)} rows, expected as "
            "many. Is it truncated? Copy it again."
        )
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(
                f"row {number + 1} of {path} has {len(row)} entries, expected {len(header)}: "
                f"{_some(header)}. Quote entries with commas in them."
            )
    if len(set(header)) != len(header):
        raise ValueError(f"{path} has two columns of one name, expected {_some(header)} once.")
    key = next((i for i, name in enumerate(header) if name.lower() in _FILE_COLUMNS), 0)
    columns = [tuple(cell.strip() for cell in column) for column in zip(*rows, strict=True)]
    files = columns[key]
    if len(set(files)) != len(files):
        twice = next(file for file in files if files.count(file) > 1)
        raise ValueError(
            f"{path} has {files.count(twice)} rows for {twice!r}, expected one per image. The "
            f"files are read from the column {header[key]!r}."
        )
    return Attributes(path, files, {name: columns[i] for i, name in enumerate(header) if i != key})


def _numbers(values: Sequence[str]) -> list[float]:
    """All values as finite numbers, or nothing where one is none."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _ordered(values: set[str]) -> tuple[str, ...]:
    names = sorted(values)
    numbers = _numbers(names)
    return tuple(sorted(names, key=float) if numbers else names)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
