"""What a concept bridge is fitted to."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from svae.bridges.building import PairBank
from svae.bridges.concepts import ConceptBridge
from svae.saving import Described

__all__ = ["ConceptObjective"]

Values = dict[str, Tensor]
PairOf = tuple[PairBank, Tensor, Tensor]

_EXCHANGE_SCALE = 0.1  # in standard deviations of a coordinate


class ConceptObjective(Described, nn.Module):
    r"""Negative log-likelihood of representations, and whether the frozen answer survives.

    .. math:: L = -\log p(T(r + \sigma \epsilon) \mid \text{values})
        - \lambda_v \sum_F \log p(\text{value}_F \mid z_F)
        + \lambda_a D\, \mathrm{KL}\big(\Psi(r) \,\|\, \Psi(T^{-1}(z_1, \tilde z_{\neq 1}))\big)
        + \lambda_x \sum_d \log\big(1 + e_d^2 / s^2\big), \quad
        e = T^{-1}(z_F^b, z_{\neq F}^a) - r

    The first term is in nats per example, with every constant, so values of different bridges on
    one representation compare; pairs contribute :math:`-\log p(T(r^a), T(r^b))` in the same unit.
    The second asks that a value be read from its own dims. In the third all parts but the class
    are drawn anew, the rest of the frozen network answers, and its answer must stay: likelihood
    alone leaves it to the flow's capacity whether the residual is without the class. The last puts
    the same question to pairs, in their coordinates: exchange the concept between the two; where
    they share it nothing may change (:math:`r = r^a`), where they differ in nothing else one must
    become the other (:math:`r = r^b`). It is minus the log-density of a Cauchy distribution of
    scale s = 0.1, up to a constant, so that an inverse that goes astray in the first steps does
    not outweigh all else.

    Args:
        noise: :math:`\sigma`, in standard deviations of a unit; rectified units have mass at a
            point, which no density can fit.
        answer_weight: :math:`\lambda_a`, for each of the D coordinates, as the likelihood grows
            with their number; 0 leaves the answer out.
        value_weight: :math:`\lambda_v`.
        exchange_weight: :math:`\lambda_x`, for pairs; 0 leaves the exchange out.
        answer_share: Share of a batch that the third term is computed for; where the rest of the
            network is deep, as a decoder and a classifier, it costs more than all else.

    Raises:
        ValueError: If a number is negative, or the share is not above 0 and at most 1.
    """

    def __init__(
        self,
        noise: float = 0.02,
        answer_weight: float = 0.2,
        value_weight: float = 1.0,
        answer_share: float = 1.0,
        exchange_weight: float = 1.0,
    ) -> None:
        super().__init__()
        weights = (noise, answer_weight, value_weight, exchange_weight)
        if min(weights) < 0:
            raise ValueError(
                "noise, answer_weight, value_weight and exchange_weight must be at least 0, got "
                f"{', '.join(map(str, weights))}"
            )
        if not 0 < answer_share <= 1:
            raise ValueError(f"answer_share must be above 0 and at most 1, got {answer_share}")
        self.noise, self.answer_weight, self.value_weight = noise, answer_weight, value_weight
        self.answer_share, self.exchange_weight = answer_share, exchange_weight

    def forward(
        self,
        bridge: ConceptBridge,
        representation: Float[Tensor, "batch *shape"],
        values: Int[Tensor, "batch n_concepts"],
        pairs: list[PairOf] | None = None,
    ) -> tuple[Tensor, Values]:
        """The loss, and its terms by name.

        Args:
            bridge: What is fitted.
            representation: Of a batch of examples.
            values: The value of each concept that has values, -1 where unknown.
            pairs: Banks with a batch of their pairs each.
        """
        noise, log_det, left_over = self._through(bridge, representation)
        parts = bridge.split(noise)
        log_prob, read = log_det, noise.new_zeros(())
        column = 0
        for name, z in parts.items():
            block = bridge.block(name)
            if not block.n_values:
                log_prob = log_prob + block.log_prob(z)
                continue
            value = values[:, column]
            column += 1
            log_prob = log_prob + block.log_prob(z, value)
            read = read + _read_loss(block.log_joint(z), value)
        nll = -log_prob.mean()
        found = {"nll": nll.detach(), "value_loss": read.detach()}
        loss = nll + self.value_weight * read
        for bank, first, second in pairs or ():
            term, exchange = self._pair_loss(bridge, bank, first, second)
            kind = "differ" if bank.differ else "share"
            found[f"pairs_{bank.name}_{kind}"] = term.detach()
            loss = loss + term
            if exchange is not None:
                found[f"exchange_{bank.name}_{kind}"] = exchange.detach()
                loss = loss + self.exchange_weight * exchange
        if self.answer_weight and bridge.answer_concept is not None:
            n = max(1, round(self.answer_share * len(noise)))
            some = {name: z[:n] for name, z in parts.items()}
            answer = self._answer_loss(bridge, representation[:n], some, left_over[:n])
            found["answer_loss"] = answer.detach()
            loss = loss + self.answer_weight * noise.shape[-1] * answer
        return loss, {**found, "loss": loss.detach()}

    def _through(self, bridge: ConceptBridge, representation: Tensor) -> tuple[Tensor, ...]:
        _, coordinates = bridge.built()
        value, left_over = coordinates(representation)
        if self.training and self.noise:
            value = value + self.noise * torch.randn_like(value)
        return (*bridge.through(value), left_over)

    def _pair_loss(
        self, bridge: ConceptBridge, bank: PairBank, first: Tensor, second: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Negative log-likelihood of pairs, and what an exchange costs if that is asked for."""
        (a, a_det, _), (b, b_det, _) = (self._through(bridge, side) for side in (first, second))
        log_prob = a_det + b_det
        of_a, of_b = bridge.split(a), bridge.split(b)
        for name in bridge.parts:
            block = bridge.block(name)
            shared = (name == bank.name) != bank.differ
            log_prob = log_prob + block.log_prob(of_a[name])
            if shared:
                log_prob = log_prob + block.pair_log_prob(of_b[name], of_a[name])
            else:
                log_prob = log_prob + block.log_prob(of_b[name])
        # Two examples each, so that a pair weighs as much as an example.
        nll = -0.5 * log_prob.mean()
        if not self.exchange_weight or not bridge.dims[bank.name]:
            return nll, None
        exchanged = bridge.back(torch.cat([*{**of_a, bank.name: of_b[bank.name]}.values()], -1))
        _, coordinates = bridge.built()
        wanted = coordinates(second if bank.differ else first)[0]
        error = (exchanged - wanted) / _EXCHANGE_SCALE
        # log(1 + e^2) where the square alone would overflow.
        return nll, 2 * torch.hypot(error, torch.ones_like(error)).log().sum(-1).mean()

    def _answer_loss(
        self,
        bridge: ConceptBridge,
        representation: Tensor,
        parts: dict[str, Tensor],
        left_over: Tensor,
    ) -> Tensor:
        _, coordinates = bridge.built()
        fresh = [
            z if name == bridge.answer_concept else bridge.block(name).sample(len(z)).detach()
            for name, z in parts.items()
        ]
        again = coordinates.inverse(bridge.back(torch.cat(fresh, -1)), left_over)
        with torch.no_grad():
            wanted = bridge.frozen.head(representation).log_softmax(-1)
        answered = bridge.frozen.head(again).log_softmax(-1)
        return functional.kl_div(answered, wanted, reduction="batchmean", log_target=True)


def _read_loss(log_joint: Tensor, value: Tensor) -> Tensor:
    known = (value >= 0).to(log_joint.dtype)
    picked = log_joint.log_softmax(-1).gather(-1, value.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return -(picked * known).sum() / known.sum().clamp(min=1)
