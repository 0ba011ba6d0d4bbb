import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from svae.elbo import SupervisedELBO
from svae.labels import mean_of_known, read_labels
from svae.models import SVAE
from tests.problems import N_CLASSES, N_PIXELS, Posterior, WithLogJoint, examples

CONFUSION = torch.tensor([[0.8, 0.15, 0.05], [0.1, 0.9, 0.0], [0.3, 0.3, 0.4]]).double()


def bound(
    y: Tensor, seen: Tensor | None, label_first: bool = True, **settings: Any
) -> tuple[Tensor, WithLogJoint]:
    """Sum of the terms that bound the evidence, under the true posterior given what is seen."""
    model = WithLogJoint(label_first)
    guide = Posterior(model, seen=seen)
    objective = SupervisedELBO(analytic=False, **settings)
    terms = objective.terms(model, guide, examples()[0], y)
    return -(terms["x"] + terms["z_class"] + terms["style"] + terms["y"]), model


@pytest.mark.parametrize("particles", [1, 3])
def test_without_a_label_every_particle_is_the_evidence_of_x(particles: int) -> None:
    x, y = examples()
    found, model = bound(torch.full_like(y, -1), torch.zeros(1, N_CLASSES), particles=particles)
    torch.testing.assert_close(found, model.log_evidence(x))


def test_labelled_and_unlabelled_examples_in_one_batch() -> None:
    x, y = examples()
    known = torch.arange(len(y)) % 2 == 0
    one_hot = functional.one_hot(y, N_CLASSES).double().log()
    found, model = bound(torch.where(known, y, -1), torch.where(known[:, None], one_hot, 0.0))
    joint = model.log_x_and(x)
    wanted = torch.where(known, joint.gather(1, y[:, None])[:, 0], joint.logsumexp(1))
    torch.testing.assert_close(found, wanted)


def test_noisy_labels_sum_out_the_true_class() -> None:
    x, y = examples()
    seen = CONFUSION.T[y].log()
    found, model = bound(y, seen, confusion=CONFUSION)
    torch.testing.assert_close(found, (model.log_x_and(x) + seen).logsumexp(1))


def test_soft_labels_are_the_class_prior_of_their_example() -> None:
    x, y = examples()
    soft = torch.rand(len(y), N_CLASSES).double().softmax(1)
    soft[0] = torch.tensor([0.0, 1.0, 0.0])
    model = WithLogJoint(True)
    log_class = model.class_logits.log_softmax(-1)
    found, _ = bound(soft, soft.log() - log_class)
    # The term of y is the cross-entropy of the soft label, a constant.
    constant = (soft * log_class).sum(1)
    wanted = (soft.log() + model.log_x_and(x) - log_class).logsumexp(1)
    torch.testing.assert_close(found - constant, wanted)


def test_one_hot_probabilities_are_labels() -> None:
    x, y = examples()
    model = WithLogJoint(True)
    objective = SupervisedELBO(analytic=False)
    seen = functional.one_hot(y, N_CLASSES).double().log()
    rows = functional.one_hot(y, N_CLASSES).double()
    torch.manual_seed(0)
    hard = objective.terms(model, Posterior(model, shift=0.3, seen=seen), x, y)
    torch.manual_seed(0)
    soft = objective.terms(model, Posterior(model, shift=0.3, seen=seen), x, rows)
    for name, term in hard.items():
        torch.testing.assert_close(soft[name], term, msg=name)


def test_where_the_label_comes_last_it_is_simply_left_out() -> None:
    x, y = examples()
    found, model = bound(torch.full_like(y, -1), None, label_first=False)
    torch.testing.assert_close(found, model.log_evidence(x))
    objective = SupervisedELBO()
    terms = objective.terms(model, Posterior(model), x, torch.full_like(y, -1))
    assert not terms["label"].any()
    assert not terms["y"].any()


def losses(y: Tensor, **settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Label term of a batch, log-probabilities of the classes, and the accuracy."""
    x = examples()[0]
    model = WithLogJoint(True)
    seen = functional.one_hot(torch.arange(len(x)) % N_CLASSES, N_CLASSES).double().log()
    vae = SVAE(model, Posterior(model, seen=seen), (N_PIXELS,))
    torch.manual_seed(0)
    _, means = SupervisedELBO(**settings)(vae, x, y)
    torch.manual_seed(0)
    unit = torch.eye(N_CLASSES).double()
    # Every column of the log-probabilities from the label term of a one-hot label.
    columns = []
    for row in unit:
        torch.manual_seed(0)
        columns.append(
            SupervisedELBO().terms(model, vae.guide, x, row.expand(len(x), -1))["label"]
        )
    return means["label"], -torch.stack(columns, 1), means["accuracy"]


def test_the_label_term_is_a_mean_over_what_is_known() -> None:
    _, y = examples()
    partly = torch.where(torch.arange(len(y)) < 3, y, -1)
    label, log_p, accuracy = losses(partly)
    torch.testing.assert_close(label, functional.nll_loss(log_p[:3], y[:3]))
    right = (log_p.argmax(1) == y)[:3].double().mean()
    torch.testing.assert_close(accuracy.double(), right)
    nothing, _, none_right = losses(torch.full_like(y, -1))
    assert float(nothing) == float(none_right) == 0


def test_class_weights_are_those_of_a_weighted_cross_entropy() -> None:
    _, y = examples()
    weights = [1.0, 5.0, 0.5]
    label, log_p, _ = losses(y, class_weights=weights)
    wanted = functional.nll_loss(log_p, y, weight=torch.tensor(weights).double())
    torch.testing.assert_close(label, wanted)
    soft = functional.one_hot(y, N_CLASSES).double()
    torch.testing.assert_close(losses(soft, class_weights=weights)[0], wanted)


def test_noise_and_softness_in_the_label_term() -> None:
    _, y = examples()
    label, log_p, _ = losses(y, confusion=CONFUSION)
    noisy = (log_p.exp() @ CONFUSION).log()
    torch.testing.assert_close(label, functional.nll_loss(noisy, y))
    soft = torch.rand(len(y), N_CLASSES).double().softmax(1)
    label, log_p, _ = losses(soft)
    torch.testing.assert_close(label, -(soft * log_p).sum(1).mean())


def test_free_bits_hold_the_mixture_as_they_hold_one_class() -> None:
    x, y = examples()
    model = WithLogJoint(True)
    guide = Posterior(model, shift=0.3, seen=torch.zeros(len(x), N_CLASSES))
    found = []
    for floor in (0.0, 1e6):
        torch.manual_seed(0)
        objective = SupervisedELBO(free_bits={"z_class": floor})
        found.append(objective.terms(model, guide, x, torch.full_like(y, -1))["z_class"])
    torch.testing.assert_close(found[0], found[1])  # the value stays, the gradient does not


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.zeros(3), r"torch.float32 of shape \(3,\); expected integers"),
        (torch.zeros(3, 2).long(), r"torch.int64 of shape \(3, 2\)"),
    ],
)
def test_other_labels_are_refused(y: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_labels(y)


def test_forms_of_labels() -> None:
    hard = read_labels(torch.tensor([2, -1, 0]))
    assert hard.marked.tolist() == [2, -1, 0]
    assert hard.hard.tolist() == [2, 0, 0]
    soft = read_labels(torch.tensor([[0.4, 0.6], [-1.0, -1.0]]))
    assert soft.known.tolist() == [True, False]
    assert float(mean_of_known(torch.tensor([3.0, 5.0]), torch.tensor([1, 3]))) == 4.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"confusion": [[0.5, 0.4], [0.0, 1.0]]}, r"sums to 1, got \[0.9, 1.0\]. Transpose"),
        ({"confusion": [[1.0, 0.0]]}, r"\(classes, classes\) matrix.*got shape \(1, 2\)"),
        ({"class_weights": [1.0, 0.0]}, "one positive number for each class"),
        ({"capacity": {"y": 1.0}}, "capacity knows the blocks"),
        ({"capacity": {"style": 1.0}, "free_bits": {"style": 1.0}}, "can have one of them"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SupervisedELBO(**settings)


def test_capacity_pulls_the_rate_to_its_target() -> None:
    x, y = examples()
    model = WithLogJoint(True)
    vae = SVAE(model, Posterior(model), (N_PIXELS,))
    settings: dict[str, Any] = {"beta_style": 3.0, "beta_class": 2.0}
    found = []
    for target in (None, 0.25, 100.0):
        torch.manual_seed(0)
        capacity = {} if target is None else {"style": target}
        found.append(SupervisedELBO(**settings, capacity=capacity)(vae, x, y))
    plain, rate = found[0][0], found[0][1]["style"]
    for (loss, _), target in zip(found[1:], (0.25, 100.0), strict=True):
        torch.testing.assert_close(loss - plain, 3 * ((rate - target).abs() - rate))
    assert math.isfinite(float(plain))
