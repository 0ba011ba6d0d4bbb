"""A folder of images: one sub-folder per class, or a table that says what is in each image."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from svae.data.arrays import ArraySet, Mixture, stratified_order
from svae.data.attributes import Attributes, read_attributes
from svae.data.module import ArrayData

__all__ = ["ImageFolder", "unlabelled_images"]

_logger = logging.getLogger("svae")

_LEAST_GOOD = 0.5  # of the images of a folder; with fewer it is not what it was taken for

_SUFFIXES = {
    *(".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
}


class ImageFolder(ArrayData):
    """Images from files, with their classes and, where a table holds more, their other attributes.

    Without a table every sub-folder is a class, named by the folder. With one, ``label`` names its
    column with the class and all other columns become ``factors``: numbers as they are, names as
    0, 1, 2, ... in alphabetical order. See :func:`svae.data.attributes.read_attributes` for the
    formats of the table, CelebA's among them.

    Images are scaled and cropped about their centre to a square, and held as bytes. Transparent
    ones are put on black. They are split 70 / 10 / 20 into training, validation and test,
    stratified by class and fixed by ``seed``.

    Args:
        root: The folder; files are looked for in its sub-folders as well.
        table: A file with one row per image, its path relative to ``root`` or absolute.
        label: Name of the column that holds the class.
        size: Height and width of the images, in pixels.
        channels: 3 for colour, 1 for grey.
        batch_size: Examples per batch and process.
        seed: Split and orders of the training batches.
        strict: Whether images that cannot be read, rows without an image and images without a row
            are errors; else they are left out, with a warning on the logger ``svae``, unless more
            than half of the images cannot be read.
        max_gigabytes: Memory that reading may take, twice what is held afterwards.
        augment: What to do to a float batch ``x`` while training, or None.
        mixture: What training batches are made of, such as equally many of each class.

    Attributes:
        factor_names: Names of the columns of ``factors``.
        categories: Name of a factor → what its 0, 1, 2, ... stand for, None where it is a number.

    Raises:
        FileNotFoundError: If the folder or the table is missing.
        ValueError: If there are no images, fewer than two classes, or what is said above.

    Example:
        >>> data = svae.data.ImageFolder(  # doctest: +SKIP
        ...     "celeba/img_align_celeba", "../list_attr_celeba.txt", label="Smiling"
        ... )
        >>> data.x_shape, data.class_names, len(data.factor_names)  # doctest: +SKIP
        ((3, 64, 64), ('-1', '1'), 39)
    """

    def __init__(
        self,
        root: str | Path,
        table: str | Path | None = None,
        label: str | None = None,
        size: int = 64,
        channels: int = 3,
        batch_size: int = 128,
        seed: int = 0,
        strict: bool = True,
        max_gigabytes: float = 8.0,
        augment: Callable[[Tensor], Tensor] | None = None,
        mixture: Mixture | None = None,
    ) -> None:
        if size < 1 or channels not in (1, 3):
            raise ValueError(
                f"images of {channels} channels and size {size} are asked for, expected 3 "
                "(colour) or 1 (grey), and a size of at least 1 pixel. The usual is size=64."
            )
        folder = Path(root)
        files = _files(folder)
        if table is None:
            attributes = _from_folders(folder, files, label)
            label = "class"
        else:
            attributes = read_attributes(folder / table)
            attributes, files = _matched(attributes, folder, files, strict)
        attributes.labels(label)  # before anything is decoded: is there such a column?
        _check_memory(len(files), size, channels, max_gigabytes)
        x, readable = _decoded(files, size, channels, strict)
        attributes = attributes.subset(readable)
        y, class_names = attributes.labels(label)
        if len(class_names) < 2:
            raise ValueError(
                f"{folder} has images of {len(class_names)} class only "
                f"({', '.join(class_names) or 'none'}), expected at least two. "
                + ("Make one sub-folder per class." if table is None else "Take another label.")
            )
        factors, self.categories = attributes.factors(without=str(label))
        self.factor_names = tuple(self.categories)
        super().__init__(
            *_split(ArraySet(x, y, factors), seed),
            class_names=class_names,
            name=folder.resolve().name,
            batch_size=batch_size,
            seed=seed,
            augment=augment,
            mixture=mixture,
        )


def unlabelled_images(
    root: str | Path,
    size: int = 64,
    channels: int = 3,
    seed: int = 0,
    strict: bool = True,
    max_gigabytes: float = 8.0,
) -> ArrayData:
    """Images of which nobody says what they show, read as :class:`ImageFolder` does.

    Args:
        root: The folder; files are looked for in its sub-folders as well.
        size: Height and width of the images, in pixels.
        channels: 3 for colour, 1 for grey.
        seed: Of the split into training, validation and test, 70 / 10 / 20.
        strict: Whether images that cannot be read are errors; else they are left out, with a
            warning on the logger ``svae``, unless they are more than half.
        max_gigabytes: Memory that reading may take, twice what is held afterwards.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If there are no images, or too many that cannot be read.
    """
    folder = Path(root)
    files = _files(folder)
    _check_memory(len(files), size, channels, max_gigabytes)
    x, _ = _decoded(files, size, channels, strict)
    sets = _split(ArraySet(x, torch.zeros(len(x), dtype=torch.int64)), seed)
    return ArrayData(*sets, class_names=("any",), name=folder.resolve().name, seed=seed)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is no folder, expected one of images. A relative path starts at "
            f"{Path.cwd()}."
        )
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not files:
        raise ValueError(
            f"{folder} holds no images, expected files that end in "
            f"{', '.join(sorted(_SUFFIXES))}. Are they still in an archive?"
        )
    return files


def _from_folders(folder: Path, files: Sequence[Path], label: str | None) -> Attributes:
    if label is not None:
        raise ValueError(
            f"label is {label!r} but no table came, expected table='...' with such a column, or "
            "neither: sub-folders are classes then."
        )
    paths = [file.relative_to(folder) for file in files]
    loose = [path.name for path in paths if len(path.parts) == 1]
    if loose:
        raise ValueError(
            f"{len(loose)} of {len(paths)} images lie in {folder} itself ({_some(loose)}), "
            "expected one sub-folder per class. For a flat folder, give a table with a row for "
            "each image: table='attributes.csv', label='...'."
        )
    return Attributes(
        folder,
        tuple(path.as_posix() for path in paths),
        {"class": tuple(path.parts[0] for path in paths)},
    )


def _matched(
    attributes: Attributes, folder: Path, files: Sequence[Path], strict: bool
) -> tuple[Attributes, list[Path]]:
    """Rows and files that belong together; a row names a path within the folder, or a file."""
    by_path = {file.relative_to(folder).as_posix(): file for file in files}
    by_name: dict[str, list[Path]] = {}
    for file in files:
        by_name.setdefault(file.name, []).append(file)
    found: dict[int, Path] = {}
    for row, name in enumerate(attributes.files):
        alike = by_name.get(name, [])
        if name in by_path:
            found[row] = by_path[name]
        elif len(alike) == 1:
            found[row] = alike[0]
    absent = [name for row, name in enumerate(attributes.files) if row not in found]
    _refuse(
        absent,
        f"{len(absent)} of {len(attributes.files)} rows of {attributes.path} have no image in "
        f"{folder} ({_some(absent)}), expected a file for each, by name or path from there",
        strict,
    )
    used = set(found.values())
    extra = [path for path, file in by_path.items() if file not in used]
    _refuse(
        extra,
        f"{len(extra)} of {len(files)} images in {folder} have no row in {attributes.path} "
        f"({_some(extra)}), expected one for each",
        strict,
    )
    if not found:
        raise ValueError(
            f"no row of {attributes.path} is about an image in {folder}: it names "
            f"{_some(attributes.files)}, the folder has {_some(list(by_path))}."
        )
    return attributes.subset(list(found)), list(found.values())


def _refuse(bad: Sequence[str], message: str, strict: bool) -> None:
    if not bad:
        return
    if strict:
        raise ValueError(f"{message}. Correct that, or leave them out with strict=False.")
    _logger.warning("%s: they are left out.", message)


def _check_memory(n: int, size: int, channels: int, max_gigabytes: float) -> None:
    needed = 2 * n * channels * size**2 / 1e9
    if needed > max_gigabytes:
        raise ValueError(
            f"{n} images of {channels} x {size} x {size} bytes take {needed:.3g} gigabytes to "
            f"read, expected at most max_gigabytes={max_gigabytes:g}. Take a smaller size, "
            "channels=1 or fewer images, or raise the limit where the machine has the memory."
        )


def _decoded(
    files: Sequence[Path], size: int, channels: int, strict: bool
) -> tuple[Tensor, list[int]]:
    """The images in the order of the files, and which of the files they are."""
    x = torch.empty(len(files), channels, size, size, dtype=torch.uint8)

    def read(i: int) -> str | None:
        try:
            pixels = _square(files[i], size, channels)
        except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three
            return f"{files[i]}: {error}"
        x[i] = torch.from_numpy(pixels)
        return None

    with ThreadPoolExecutor() as pool:  # Pillow decodes without holding the interpreter
        problems = list(pool.map(read, range(len(files))))
    bad = [problem for problem in problems if problem is not None]
    _refuse(
        bad,
        f"{len(bad)} of {len(files)} images cannot be read ({_some(bad)}), expected files that "
        "Pillow can decode",
        strict,
    )
    good = [i for i, problem in enumerate(problems) if problem is None]
    if len(good) < _LEAST_GOOD * len(files):
        raise ValueError(
            f"only {len(good)} of {len(files)} images can be read, expected at least "
            f"{_LEAST_GOOD:.0%}: {_some(bad)}. Is it the right folder, and copied whole?"
        )
    return (x if not bad else x[good]), good


def _square(path: Path, size: int, channels: int) -> np.ndarray:
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bits of grey, which a conversion would clip
            image = Image.fromarray((np.asarray(image, np.int64) // 256).astype(np.uint8))
        elif image.mode == "F":
            raise ValueError("it holds floating-point numbers, whose range is not known")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        image = image.convert("RGB" if channels == 3 else "L")
        pixels = np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))
    return pixels.reshape(size, size, channels).transpose(2, 0, 1).copy()


def _split(whole: ArraySet, seed: int) -> tuple[ArraySet, ArraySet, ArraySet]:
    n = len(whole)
    n_test, n_validation = round(0.2 * n), max(1, round(0.1 * n))
    if n < 5:
        raise ValueError(
            f"{n} images are too few to split into training, validation and test, expected at "
            "least 5."
        )
    order = stratified_order(whole.marked, seed)
    # One copy in the new order, of which the parts are views: no part is held twice.
    ordered = whole.subset(order)
    bounds = (slice(n_test + n_validation, n), slice(n_test, n_test + n_validation))
    train, validation, test = (
        ArraySet(
            ordered.x[part],
            None if ordered.y is None else ordered.y[part],
            None if ordered.factors is None else ordered.factors[part],
        )
        for part in (*bounds, slice(0, n_test))
    )
    return train, validation, test


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
