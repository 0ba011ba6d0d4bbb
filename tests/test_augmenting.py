import pytest
import torch
from torch import nn

import svae
from svae.augmenting import Augment
from tests.metrics.halves import Halves, judge, pictures


def test_pictures_keep_their_class_and_change_in_what_is_ignored() -> None:
    x, _ = pictures(400)
    augment = svae.Augment(Halves(), p=1.0, generator=torch.Generator().manual_seed(0))
    made = augment(x)
    assert torch.equal(judge(made).argmax(1), judge(x).argmax(1))
    assert bool(((made - x).flatten(1).abs().amax(1) > 0).all())
    # u is drawn anew: its deviation over pictures is that of the prior.
    assert float((made.amax((1, 2, 3)) - 0.5).std() / 0.1) == pytest.approx(1, abs=0.1)


def test_a_share_of_the_pictures_changes() -> None:
    x, _ = pictures(2000)
    augment = Augment(Halves(), p=0.3, generator=torch.Generator().manual_seed(0))
    changed = (augment(x) != x).flatten(1).any(1)
    assert float(changed.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(Augment(Halves(), p=0.0)(x), x)


def test_one_picture_is_transformed_as_a_batch_is() -> None:
    x, _ = pictures(4)
    first, again = (
        Augment(Halves(), p=1.0, generator=torch.Generator().manual_seed(0))(one)
        for one in (x[0], x[:1])
    )
    assert first.shape == x[0].shape
    assert torch.equal(first, again[0])


def test_nothing_changes_in_evaluation_and_no_weight_is_held() -> None:
    torch.manual_seed(0)
    vae = svae.SVAE.for_images((1, 8, 8), 10, svae.LatentSplit(2, 2), width=4).eval()
    augment = Augment(vae, p=1.0)
    x = torch.rand(3, 1, 8, 8)
    assert not torch.equal(augment(x), x)
    net = nn.Sequential(augment, nn.Flatten()).eval()
    assert torch.equal(net(x), x.flatten(1))
    assert not list(net.parameters())
    assert repr(augment) == "Augment(SVAE, p=1.0)"
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 2"):
        Augment(vae, p=2.0)
