"""Folders of images: by sub-folder, by table, and what is wrong with them."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from svae.data import ArraySet, ImageFolder
from svae.data.attributes import read_attributes

N = 40
PARTS = ("train", "validation", "test")


def shade(i: int) -> int:
    """The grey level of the i-th image: no two are alike."""
    return 6 * i + 3


def write(path: Path, level: int, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 0, 255 - level)).save(path)


def by_class(root: Path) -> Path:
    for i in range(N):
        write(root / ("cats" if i % 4 else "ants") / f"{i}.png", shade(i))
    return root


def flat(root: Path, table: str = "attributes.csv") -> Path:
    """Images and a table of what is in them; the class is `shape`."""
    lines = ["shape,image,weight,hue"]
    for i in range(N):
        write(root / f"{i:03}.png", shade(i))
        lines.append(f"{'round' if i % 2 else 'flat'},{i:03}.png,{i / 8},{['red', 'blue'][i % 2]}")
    (root / table).write_text("\n".join(lines))
    return root


def celeba(root: Path) -> Path:
    rows = [f"{i:06}.jpg {1 if i % 3 else -1:>2}  {-1 if i % 2 else 1}" for i in range(N)]
    for i in range(N):
        write(root / "images" / f"{i:06}.jpg", shade(i))
    (root / "list_attr_celeba.txt").write_text("\n".join([str(N), "Smiling Male ", *rows]) + "\n")
    return root


def index_of(x: torch.Tensor) -> int:
    """Which image this is, read from its red."""
    return round((float(x[0].float().mean()) - 3) / 6)


def examples(data: ImageFolder) -> dict[int, tuple[int, list[float]]]:
    """Image → label and factors, over all parts."""
    found = {}
    for name in PARTS:
        part = getattr(data, name)
        assert isinstance(part, ArraySet)
        assert part.y is not None
        for i, (x, y) in enumerate(zip(part.x, part.y, strict=True)):
            factors = [] if part.factors is None else part.factors[i].tolist()
            found[index_of(x)] = (int(y), factors)
    return found


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    data = ImageFolder(by_class(tmp_path / "animals"), size=8, batch_size=4)
    assert (data.x_shape, data.train.x.dtype, data.name) == ((3, 8, 8), torch.uint8, "animals")
    assert data.class_names == ("ants", "cats")
    assert examples(data) == {i: (int(i % 4 > 0), []) for i in range(N)}
    assert [len(getattr(data, name)) for name in PARTS] == [28, 4, 8]
    assert [int((getattr(data, name).y == 0).sum()) for name in PARTS] == [7, 1, 2]
    assert (data.factor_names, data.train.factors) == ((), None)


def test_a_table_gives_labels_and_factors(tmp_path: Path) -> None:
    data = ImageFolder(flat(tmp_path), "attributes.csv", "shape", size=8, batch_size=4)
    assert data.class_names == ("flat", "round")
    assert data.factor_names == ("weight", "hue")
    assert data.categories == {"weight": None, "hue": ("blue", "red")}
    assert examples(data) == {i: (i % 2, [i / 8, float(i % 2 == 0)]) for i in range(N)}
    hue = ImageFolder(tmp_path, tmp_path / "attributes.csv", "hue", size=8)
    assert hue.class_names == ("blue", "red")
    assert hue.factor_names == ("shape", "weight")


def test_celeba_s_own_table(tmp_path: Path) -> None:
    root = celeba(tmp_path)
    data = ImageFolder(root / "images", "../list_attr_celeba.txt", "Smiling", size=8)
    assert data.class_names == ("-1", "1")
    assert data.factor_names == ("Male",)
    assert data.categories == {"Male": None}
    # JPEG moves the levels by little.
    assert examples(data) == {i: (int(i % 3 > 0), [-1.0 if i % 2 else 1.0]) for i in range(N)}


def test_the_split_depends_on_the_seed_alone(tmp_path: Path) -> None:
    by_class(tmp_path)
    first, again, other = (ImageFolder(tmp_path, size=8, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(getattr(first, n).x, getattr(again, n).x) for n in PARTS)
    assert {index_of(x) for x in first.test.x} != {index_of(x) for x in other.test.x}


def test_empty_labels_are_unlabelled(tmp_path: Path) -> None:
    table = flat(tmp_path) / "attributes.csv"
    table.write_text(table.read_text().replace("flat,004.png", ",004.png"))
    assert examples(ImageFolder(tmp_path, "attributes.csv", "shape", size=8))[4][0] == -1


def picture(path: Path, image: Image.Image, channels: int = 3) -> torch.Tensor:
    """What becomes of one image among others."""
    by_class(path)
    image.save(path / "other.png")
    (path / "odd").mkdir()
    (path / "other.png").rename(path / "odd" / "0.png")
    data = ImageFolder(path, size=8, channels=channels)
    odd = torch.cat([getattr(data, n).x[getattr(data, n).y == 2] for n in PARTS])
    assert len(odd) == 1
    return odd[0]


def test_images_are_cropped_about_the_centre(tmp_path: Path) -> None:
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = (10, 200, 30)  # the middle third is what remains
    found = picture(tmp_path, Image.fromarray(wide))[..., 2:-2]  # columns without neighbours
    assert found.unique().tolist() == [10, 30, 200]


@pytest.mark.parametrize(
    ("image", "channels", "expected"),
    [
        (Image.new("RGB", (8, 8), (255, 0, 0)), 1, [76]),  # 0.299 of the brightness
        (Image.new("L", (8, 8), 90), 3, [90, 90, 90]),
        (Image.new("RGBA", (8, 8), (200, 100, 50, 0)), 3, [0, 0, 0]),
        (Image.fromarray(np.full((8, 8), 200 * 256 + 255, np.uint16)), 3, [200, 200, 200]),
    ],
)
def test_modes(image: Image.Image, channels: int, expected: list[int], tmp_path: Path) -> None:
    assert picture(tmp_path, image, channels)[:, 4, 4].tolist() == expected


def _drop(root: Path, name: str) -> None:
    (root / name).unlink()


def _damage(root: Path, name: str) -> None:
    (root / name).write_bytes((root / name).read_bytes()[:40])


def _append(root: Path, line: str) -> None:
    with (root / "attributes.csv").open("a") as file:
        file.write(f"\n{line}")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: _drop(root, "003.png"), r"1 of 40 rows of .*no image in .*\(003.png\)"),
        (lambda root: write(root / "x.png", 1), r"1 of 41 images .*no row.*\(x.png\)"),
        (lambda root: _damage(root, "007.png"), r"1 of 40 images cannot be read \(.*007.png:"),
    ],
)
def test_what_does_not_fit_is_named_or_left_out(
    break_it: Callable[[Path], None],
    message: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    break_it(flat(tmp_path))
    with pytest.raises(ValueError, match=message + r".*strict=False"):
        ImageFolder(tmp_path, "attributes.csv", "shape", size=8)
    with caplog.at_level(logging.WARNING, logger="svae"):
        data = ImageFolder(tmp_path, "attributes.csv", "shape", size=8, strict=False)
    (record,) = caplog.records
    assert "left out" in record.getMessage()
    kept = examples(data)
    assert len(kept) in (39, 40)
    assert all(kept[i] == (i % 2, [i / 8, float(i % 2 == 0)]) for i in kept)


def test_a_folder_of_mostly_damaged_images_is_refused(tmp_path: Path) -> None:
    flat(tmp_path)
    for i in range(21):
        _damage(tmp_path, f"{i:03}.png")
    with pytest.raises(ValueError, match=r"only 19 of 40 images .* at least 50%.*000.png.*right"):
        ImageFolder(tmp_path, "attributes.csv", "shape", size=8, strict=False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("flat,000.png,1,red", "2 rows for '000.png', expected one per image.*column 'image'"),
        ("flat,new.png,1", "row 41 of .* has 3 entries, expected 4: shape, image, weight, hue"),
        ("flat,new.png,,red", "'weight' of .* has no value for new.png, 1 in all; expected one"),
    ],
)
def test_damaged_tables(line: str, message: str, tmp_path: Path) -> None:
    _append(flat(tmp_path), line)
    write(tmp_path / "new.png", 250)
    with pytest.raises(ValueError, match=message):
        ImageFolder(tmp_path, "attributes.csv", "shape", size=8)


def test_tables_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with pytest.raises(FileNotFoundError, match=r"table.csv is missing, expected a table"):
        read_attributes(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"no text in UTF-8 .*Save a spreadsheet as CSV"):
        read_attributes(path)
    path.write_text("image,shape\n")
    with pytest.raises(ValueError, match=r"has 1 lines, expected a header"):
        read_attributes(path)
    path.write_text("image,a,a\n1.png,2,3\n")
    with pytest.raises(ValueError, match=r"two columns of one name"):
        read_attributes(path)
    path.write_text("3\nSmiling\n1.jpg 1\n2.jpg -1\n")
    with pytest.raises(ValueError, match=r"about 3 images and has 2 rows.*truncated"):
        read_attributes(path)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing is no folder, expected one of images"):
        ImageFolder(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"holds no images, expected files that end in .bmp"):
        ImageFolder(tmp_path)
    flat(tmp_path)
    with pytest.raises(ValueError, match=r"40 of 40 images lie in .*give a table"):
        ImageFolder(tmp_path)
    with pytest.raises(ValueError, match=r"label is 'shape' but no table came"):
        ImageFolder(tmp_path, label="shape")
    with pytest.raises(ValueError, match=r"label is None, expected the .*shape, weight, hue"):
        ImageFolder(tmp_path, "attributes.csv")
    with pytest.raises(ValueError, match=r"label is 'colour', expected the column"):
        ImageFolder(tmp_path, "attributes.csv", "colour")
    with pytest.raises(ValueError, match=r"'weight' of .* has 40 different values in 40 rows"):
        ImageFolder(tmp_path, "attributes.csv", "weight")
    with pytest.raises(ValueError, match=r"4 channels and size 8 .*expected 3 .colour. or 1"):
        ImageFolder(tmp_path, "attributes.csv", "shape", size=8, channels=4)


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    for i in range(6):
        write(tmp_path / "only" / f"{i}.png", shade(i))
    with pytest.raises(ValueError, match=r"1 class only \(only\), expected at least two.*sub-fo"):
        ImageFolder(tmp_path, size=8)
    write(tmp_path / "few" / "a.png", 5)
    (tmp_path / "only" / "1.png").unlink()
    assert len(ImageFolder(tmp_path, size=8).test) == 1
    for i in (2, 3, 4):
        (tmp_path / "only" / f"{i}.png").unlink()
    with pytest.raises(ValueError, match=r"3 images are too few to split"):
        ImageFolder(tmp_path, size=8)


def test_memory_is_estimated_before_anything_is_read(tmp_path: Path) -> None:
    by_class(tmp_path)
    # 2 * 40 * 3 * 1000 * 1000 bytes
    with pytest.raises(ValueError, match=r"take 0\.24 gigabytes.*max_gigabytes=0\.2\. Take a sma"):
        ImageFolder(tmp_path, size=1000, max_gigabytes=0.2)
    with pytest.raises(ValueError, match=r"40 images of 3 x 20000 x 20000 bytes"):
        ImageFolder(tmp_path, size=20000)
