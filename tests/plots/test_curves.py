from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from svae import plots

CSV = """epoch,step,train_loss_step,train_loss_epoch,val/loss,val/rate_z_class,val/rate_style,lr
0,0,9,,,,,0.1
0,1,5,,,,,
0,1,,7,,,,
0,1,,,6,1.5,20,
1,2,4,,,,,
1,3,,3.5,,,,
1,3,,,nan,2.5,21,
"""


def test_curves_of_a_csv_log(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(CSV)
    figure = plots.training_curves(path)
    assert [axes.get_title() for axes in figure.axes] == ["loss (nats)", "rate (nats)"]
    loss, rate = figure.axes
    training, validation = cast(list[Any], loss.lines)
    assert training.get_linestyle() == "-"
    assert (list(training.get_xdata()), list(training.get_ydata())) == ([1, 2], [7, 3.5])
    assert validation.get_linestyle() == "--"
    assert (list(validation.get_xdata()), list(validation.get_ydata())) == ([1], [6])
    assert {line.get_label(): list(line.get_ydata()) for line in cast(list[Any], rate.lines)} == {
        "z_class": [1.5, 2.5],
        "style": [20, 21],
    }
    legend: Any = rate.get_legend()
    assert {text.get_text() for text in legend.get_texts()} == {"z_class", "style"}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "training",
        "validation",
    ]


def test_steps_are_averaged_by_epoch() -> None:
    figure = plots.training_curves({"epoch": [0, 0, 1, 1], "train/loss_step": [4, 2, 1, None]})
    (line,) = cast(list[Any], figure.axes[0].lines)
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 2], [3, 1])


def test_an_epochs_own_value_counts_more_than_its_steps() -> None:
    steps, epochs = [9.0, 8.0, None], [None, None, 3.0]
    for names in (("step/loss", "train/loss"), ("train/loss", "step/loss")):
        values = {"step/loss": steps, "train/loss": epochs}
        history = {"epoch": [0, 0, 0], **{name: values[name] for name in names}}
        (line,) = cast(list[Any], plots.training_curves(history).axes[0].lines)
        assert list(line.get_ydata()) == [3]


def test_every_quantity_has_its_panel() -> None:
    names = ["active_style", "flow_loss", "accuracy"]
    names += ["label_loss", "rate_style", "distortion", "loss"]
    history = {f"{stage}_{name}": [1.0, 0.5] for name in names for stage in ("train", "val")}
    figure = plots.training_curves(history)
    assert [axes.get_title() for axes in figure.axes] == [
        "loss (nats)",
        "distortion (nats)",
        "rate (nats)",
        "label loss (nats)",
        "accuracy",
        "flow loss (nats)",
        "active units",
    ]
    assert all(len(axes.lines) == 2 for axes in figure.axes)


def test_histories_that_show_nothing_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got the columns \['epoch', 'lr'\]"):
        plots.training_curves({"epoch": [0], "lr": [0.1]})
    with pytest.raises(FileNotFoundError, match=r"cannot read the training history .*CSVLogger"):
        plots.training_curves(tmp_path / "missing.csv")


def confused() -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.arange(3).repeat(400)
    predicted = y.clone()
    predicted[(y == 2).nonzero()[:9, 0]] = 0
    predicted[(y == 0).nonzero()[0]] = 1
    return predicted, y


def test_confusion_counts_true_by_row() -> None:
    figure = plots.confusion(*confused(), ["zero", "one", "two"])
    axes = figure.axes[0]
    counts = {text.get_position(): text.get_text() for text in axes.texts}
    assert counts == {(0, 0): "399", (1, 0): "1", (1, 1): "400", (0, 2): "9", (2, 2): "391"}
    errors: Any = axes.images[1].get_array()
    np.testing.assert_array_equal(errors.filled(-1), [[-1, 1, -1], [-1, -1, -1], [9, -1, -1]])
    assert axes.get_title() == "99.17% right: 1,190 of 1,200"
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "zero  99.8%",
        "one  100.0%",
        "two  97.8%",
    ]


def test_a_single_error_is_seen_beside_many() -> None:
    image = plots.confusion(*confused(), ["0", "1", "2"]).axes[0].images[1]
    few, many = (np.array(image.to_rgba(np.array(n))[:3]) for n in (1, 9))
    white = np.ones(3)
    assert np.abs(few - white).max() > 0.3
    assert np.abs(few - many).max() > 0.3


def test_confusion_of_many_classes_or_without_errors_is_drawn() -> None:
    y = torch.arange(60)
    figure = plots.confusion(y, y, [f"class {k}" for k in range(60)])
    assert len(figure.axes) == 1  # no scale for errors that there are not
    assert not figure.axes[0].texts
    assert len(figure.axes[0].get_yticklabels()) == 30
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_wrong_predictions_are_explained() -> None:
    predicted, y = confused()
    with pytest.raises(ValueError, match="one prediction for each label"):
        plots.confusion(predicted[1:], y, ["0", "1", "2"])
    with pytest.raises(ValueError, match=r"0\.\.1, .* got 0\.\.2"):
        plots.confusion(predicted, y, ["0", "1"])
