"""How different two pictures look, rather than how far their pixels are apart."""

from jaxtyping import Float
from torch import Tensor

__all__ = ["structural_distance"]

_SIGMA = 1.5  # pixels, of the window in the paper
_REACH = 3.5  # standard deviations that the window is cut at


def structural_distance(
    a: Float[Tensor, "batch C H W"], b: Float[Tensor, "batch C H W"]
) -> Float[Tensor, " batch"]:
    r"""One less the structural similarity of two pictures: 0 for equal ones.

    .. math:: 1 - \frac{(2 \mu_a \mu_b + c_1)(2 \sigma_{ab} + c_2)}
        {(\mu_a^2 + \mu_b^2 + c_1)(\sigma_a^2 + \sigma_b^2 + c_2)}

    averaged over windows and channels, for values in [0, 1]: brightness, contrast and pattern are
    compared in a Gaussian window of 11 pixels, or of the whole picture where that is smaller.

    References:
        Image quality assessment: from error visibility to structural similarity
        (Wang et al., 2004), https://doi.org/10.1109/TIP.2003.819861

    Args:
        a: Pictures.
        b: Others, of the same shape.

    Raises:
        ValueError: If the shapes differ, or they are no pictures of 3 pixels or more.
    """
    if a.shape != b.shape or a.dim() != 4 or min(a.shape[2:]) < 3:
        raise ValueError(
            "expected two batches of pictures, (batch, channels, height, width) with 3 pixels or "
            f"more each way, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    from torchmetrics.functional.image import structural_similarity_index_measure

    half = (min(a.shape[2:]) - 1) // 2
    found = structural_similarity_index_measure(
        a, b, sigma=min(_SIGMA, half / _REACH), data_range=1.0, reduction="none"
    )
    assert isinstance(found, Tensor)
    return 1 - found.reshape(len(a))
