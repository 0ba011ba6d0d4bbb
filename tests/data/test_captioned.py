"""Digits with captions: every attribute is in the picture and in the words."""

import pytest
import torch

from svae.data import ArrayData, CaptionedDigits, Digits
from svae.data.captioned import ATTRIBUTES, DIGIT_WORDS, caption, read_attributes


def few(n: int = 30) -> ArrayData:
    data = Digits()
    for name in ("train", "validation", "test"):
        setattr(data, name, getattr(data, name).subset(torch.arange(n)))
    return data


@pytest.fixture(scope="module")
def captioned() -> CaptionedDigits:
    return CaptionedDigits(few())


def test_what_captions_say_is_measured_in_the_pictures(captioned: CaptionedDigits) -> None:
    found = read_attributes(captioned.train.floats())
    assert captioned.train.factors is not None
    for i, name in enumerate(ATTRIBUTES):
        right = found[name] == captioned.train.factors[:, i].long()
        assert float(right.float().mean()) >= 0.95, name
    assert captioned.x_shape == (3, 28, 28)  # enlarged: strokes of 8 by 8 are one pixel wide


def test_captions_name_the_attributes(captioned: CaptionedDigits) -> None:
    assert captioned.test.factors is not None
    assert captioned.test.y is not None
    rows = zip(
        captioned.source_inputs["test"], captioned.test.y, captioned.test.factors, strict=True
    )
    for text, y, (colour, thickness, slant) in rows:
        assert DIGIT_WORDS[int(y)] in text
        assert ATTRIBUTES["colour"][int(colour)] in text
        assert (int(slant) == 0) == ("left" in text)
        assert (int(slant) == 2) == ("right" in text.replace("upright", ""))
        assert (int(thickness) == 2) == ("thick" in text or "bold" in text)
    assert len({text.split()[0] for text in captioned.source_inputs["test"]}) > 2  # wordings


def test_all_wordings_say_the_same() -> None:
    texts = {caption(7, 0, 2, 0, wording) for wording in range(12)}
    assert len(texts) == 12
    assert "a thick red seven, slanted left" in texts
    assert all("seven" in text and "red" in text and "left" in text for text in texts)


def test_pictures_are_a_function_of_seed_and_place(captioned: CaptionedDigits) -> None:
    again = CaptionedDigits(few())
    assert torch.equal(again.train.x, captioned.train.x)
    assert again.source_inputs == captioned.source_inputs
    sets = captioned.train, captioned.validation, captioned.test
    kept = CaptionedDigits.of_drawn(few(), *sets)
    assert kept.source_inputs == captioned.source_inputs
    other = CaptionedDigits.of_drawn(few(), *sets, seed=1)
    assert other.source_inputs != captioned.source_inputs  # other wordings


def test_copies_have_attributes_of_their_own() -> None:
    data = CaptionedDigits(few(12), copies=2)
    assert len(data.train) == len(data.source_inputs["train"]) == 24
    assert len(data.test) == 12
    assert data.train.y is not None
    assert data.train.factors is not None
    assert torch.equal(data.train.y[:12], data.train.y[12:])
    assert not torch.equal(data.train.factors[:12], data.train.factors[12:])
    with pytest.raises(ValueError, match="copies must be at least 1"):
        CaptionedDigits(few(12), copies=0)


def test_other_pictures_are_refused(captioned: CaptionedDigits) -> None:
    with pytest.raises(ValueError, match="expected grey pictures"):
        CaptionedDigits(captioned)
