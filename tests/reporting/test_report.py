import csv
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import svae
from svae.auditing import AuditSettings, audit
from svae.data import ArrayData, ArraySet
from svae.judge import Judge
from svae.latent import Latent
from svae.reporting import ReportSettings, report
from svae.reporting.building import MAX_BYTES
from svae.reporting.inlining import sprite
from tests.unchecked import as_a_user

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SETTINGS = ReportSettings(n_test=120, n_codes=200, n_points=40, n_pictures=4)
NAMES = ("<b>zero</b>", 'one "1"', "двa", "三", "أربعة", "five & six")


class Linear(nn.Module):
    """Digits whose class is a block of components, and whose nuisance is the rest."""

    def __init__(self, x: Tensor, n_classes: int) -> None:
        super().__init__()
        flat = x.flatten(1)
        self.shape, self.n_classes = x.shape[1:], n_classes
        self.mean = flat.mean(0)
        axes = torch.linalg.svd(flat - self.mean, full_matrices=False).Vh
        self.axes = axes[: 8 + 3]

    def encode(self, x: Tensor, sample: bool = False) -> Latent:
        z = (x.flatten(1) - self.mean) @ self.axes.T
        return Latent(z[:, :8], z[:, 8:])

    def decode(self, latent: Latent) -> Tensor:
        z = torch.cat([latent.z_class, latent.z_nuisance], 1)
        return (z @ self.axes + self.mean).clamp(0, 1).unflatten(1, self.shape)

    def predict(self, x: Tensor) -> Tensor:
        z = self.encode(x).z_class
        return 3 * torch.cat([z, -z], 1)[:, : self.n_classes]

    def sample_nuisance(
        self, latent: Latent, n: int, generator: torch.Generator | None = None
    ) -> Tensor:
        return 0.7 * torch.randn(n, *latent.z_nuisance.shape, generator=generator)


class Same(Judge):
    """Judges as the model does, by its own features."""

    def __init__(self, model: Linear) -> None:
        nn.Module.__init__(self)
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.predict(x)

    def features(self, x: Tensor) -> Tensor:
        return self.model.encode(x).z_class


def digits(n_classes: int = 6) -> ArrayData:
    data = svae.data.Digits()
    parts = []
    for part in (data.train, data.validation, data.test):
        x = part.floats()
        y = Linear(data.train.floats(), n_classes).predict(x).argmax(1)
        parts.append(ArraySet(x, y, x.flatten(1)[:, 20:22]))
    made = ArrayData(*parts, class_names=NAMES[:n_classes], name="digits <&>")
    made.factor_names = ("left </script>", "right")
    return made


@pytest.fixture(scope="module")
def data() -> ArrayData:
    return digits()


@pytest.fixture(scope="module")
def model(data: ArrayData) -> Linear:
    return Linear(data.train.floats(), data.n_classes)


@pytest.fixture(scope="module")
def page(data: ArrayData, model: Linear, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    return report(model, data, out, judge=Same(model), settings=SETTINGS)


def test_a_page_is_whole_small_and_offline(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < MAX_BYTES
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert not re.search(r"url\((?!data:)", text)
    for anchor in re.findall(r'href="#([^"]+)"', text):
        assert f'id="{anchor}"' in text
    assert "Left out" not in text
    for words in (
        "The model ignores",
        "Certificate",
        "Even if, and only if",
        "What the model reacts",
    ):
        assert words in text


def test_numbers_stand_beside_the_page(page: Path, data: ArrayData, model: Linear) -> None:
    numbers = json.loads((page.parent / "report.json").read_text())
    settings = AuditSettings(n_test=120, n_codes=200, n_flips=500)
    with torch.no_grad():
        wanted = audit(model, data, Same(model), settings).flat()
    assert {name: numbers[name] for name in wanted} == pytest.approx(wanted)
    rows = list(csv.DictReader((page.parent / "certificate.csv").read_text().splitlines()))
    by_name = {row["name"]: row for row in rows}
    assert float(by_name["flip_rate"]["value"]) == numbers["flip_rate"]
    assert float(by_name["flip_rate"]["high"]) == numbers["flip_rate_high"]
    assert f"{numbers['flip_rate']:.4g}" in page.read_text()
    pictures = {path.name for path in (page.parent / "pictures").iterdir()}
    assert pictures == {"nuisance_grid.png", "swap_grid.png", "responses.png", "maps.png"}
    assert numbers["completeness_error"] < 0.05


def test_names_in_any_script_are_escaped(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<b>zero" not in text
    assert html.escape(NAMES[0]) in text
    assert NAMES[3] in text
    assert "left </script>" not in text
    assert "digits &lt;&amp;&gt;" in text


def test_every_picture_has_words_and_every_control_a_name(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for tag in re.findall(r"<img [^>]*>", text):
        assert " alt=" in tag
    for tag in re.findall(r"<input [^>]*>", text):
        assert "aria-labelledby=" in tag
    for tag in re.findall(r"<table[^>]*>.*?</table>", text, re.DOTALL):
        assert "<caption" in tag
        assert 'scope="col"' in tag
    assert '<html lang="en">' in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_sliders_and_maps_move_in_a_browser(page: Path, tmp_path: Path) -> None:
    """The page with a script that uses it, and writes what it saw into the document."""
    script = """<script>
    const seen = {errors: window.failures, moved: []};
    for (const slider of document.querySelectorAll("input[type=range]")) {
      const picture = slider.closest(".card").querySelector("img");
      const where = () => picture.getBoundingClientRect().top;
      const before = where(); slider.value = slider.max; slider.dispatchEvent(new Event("input"));
      seen.moved.push([before - where(), picture.getBoundingClientRect().height, slider.max,
        slider.getAttribute("aria-valuetext"),
        slider.closest(".card").querySelector("output").textContent]);
    }
    const plot = document.querySelector("svg.plot"), box = document.querySelector(".thumbnail");
    const first = box.style.backgroundPosition;
    plot.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
    seen.place = [first, box.style.backgroundPosition];
    plot.querySelectorAll("circle")[30].dispatchEvent(new PointerEvent("pointerenter"));
    seen.place.push(box.style.backgroundPosition);
    document.body.insertAdjacentHTML("beforeend", "<pre id=seen></pre>");
    document.getElementById("seen").textContent = JSON.stringify(seen);
    </script></body>"""
    text = page.read_text(encoding="utf-8")
    watch = (
        "<head><script>window.failures = [];"
        'addEventListener("error", (e) => failures.push(e.message));</script>'
    )
    tried = tmp_path / "tried.html"
    tried.write_text(text.replace("<head>", watch, 1).replace("</body>", script), "utf-8")
    assert CHROMIUM is not None
    given = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    given += [f"--user-data-dir={tmp_path / 'profile'}", tried.as_uri()]
    done = subprocess.run(given, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stdout[-2000:]
    seen = json.loads(html.unescape(found[1]))
    assert seen["errors"] == []
    assert len(seen["moved"]) == 3
    for by, height, last, spoken, written in seen["moved"]:
        # From the middle to the last of 13 rows.
        assert by == pytest.approx(height * 6 / 13, rel=0.02)
        assert last == "12"
        assert spoken == written == "3.0"
    assert len(set(seen["place"])) == 3


def test_a_part_that_cannot_be_made_is_left_out(
    data: ArrayData, model: Linear, tmp_path: Path
) -> None:
    """Class 5 is never the answer, so no counterfactual leads there; rows have no pictures."""

    class Never(Linear):
        def predict(self, x: Tensor) -> Tensor:
            return super().predict(x) - 1e3 * torch.eye(6)[5]

    made = Never(data.train.floats(), 6)
    settings = ReportSettings(n_test=60, n_codes=100, n_points=20, n_pictures=2)
    numbers = {"flip_rate": 0.1, "flip_rate_low": 0.05, "flip_rate_high": 0.2}
    path = report(made, data, tmp_path, audited=numbers, settings=settings)
    text = path.read_text(encoding="utf-8")
    assert "Left out: pairs (the model never answers [5]" in text
    assert 'id="sliders"' in text
    assert "0.1 <span" in text


def test_rows_of_numbers_have_a_report_too(tmp_path: Path) -> None:
    x, y = torch.rand(60, 5), torch.arange(60) % 3

    class Rows(Linear):
        def encode(self, x: Tensor, sample: bool = False) -> Latent:
            return Latent(x[:, :3], x[:, 3:])

        def decode(self, latent: Latent) -> Tensor:
            return torch.cat([latent.z_class, latent.z_nuisance], 1)

    part = ArraySet(x, y)
    data = ArrayData(part, part, part, class_names=("a", "b", "c"), name="rows", bounded=False)
    path = report(Rows(x, 3), data, tmp_path, audited={"flip_rate": 0.0})
    text = path.read_text()
    assert "ignores feature" in text
    assert 'id="sliders"' not in text
    assert 'id="pictures"' not in text


def test_a_thousand_classes_fit(data: ArrayData, model: Linear, tmp_path: Path) -> None:
    names = tuple(f"class {i}" for i in range(1000))

    class Many(Linear):
        def predict(self, x: Tensor) -> Tensor:
            return torch.nn.functional.pad(super().predict(x), (0, 994), value=-50.0)

    data = digits()
    data.class_names = names
    numbers: dict[str, Any] = {}
    for i in range(1000):
        key = f"flip_rate_class_{i}"
        numbers |= {key: i / 1000, f"{key}_low": 0.0, f"{key}_high": 1.0}
    path = report(Many(data.train.floats(), 6), data, tmp_path, audited=numbers, settings=SETTINGS)
    text = path.read_text()
    assert "20 of 1000 classes, all are in report.json" in text
    assert ">class 999<" in text
    assert ">class 500</th>" not in text


def test_what_breaks_the_protocol_gets_no_page(data: ArrayData, tmp_path: Path) -> None:
    with as_a_user(), pytest.raises(TypeError, match="has no encode and no decode"):
        report(nn.Linear(2, 2), data, tmp_path)  # pyright: ignore


def test_sprites_hold_every_pixel() -> None:
    import base64
    import io

    from PIL import Image

    pictures = torch.rand(2, 3, 3, 4, 5)
    found = sprite(pictures)
    content = base64.b64decode(found.uri.partition(",")[2])
    image = torch.tensor(list(Image.open(io.BytesIO(content)).tobytes())).view(8, 15, 3)
    assert (found.rows, found.columns, found.width, found.height) == (2, 3, 5, 4)
    wanted = (pictures[1, 2] * 255).round().permute(1, 2, 0).long()
    assert torch.equal(image[4:, 10:], wanted)
    with pytest.raises(ValueError, match=r"1 or 3, height, width\), got the shape \(2, 3, 2"):
        sprite(torch.rand(2, 3, 2, 4, 5))
