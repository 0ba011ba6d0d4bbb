"""What a translation can start from beside a network: vectors, labels and captions."""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from svae.saving import Described

__all__ = ["BagOfWords", "Labels", "SentenceEncoder", "Vectors"]

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_SURE = 10.0  # logit of the answer that was given
_SHOWN = 30  # known words listed in a message


class Vectors(Described, nn.Module):
    """Representations as they are: attributes, embeddings, small pictures, a row for each example.

    Args:
        shape: Length of a vector, or the shape of one representation.
        head: From representations to logits, where they answer something.

    Raises:
        ValueError: If a size is less than 1.

    Example:
        >>> Vectors(3).representation(torch.eye(3)).shape
        torch.Size([3, 3])
    """

    def __init__(
        self, shape: int | Sequence[int], head: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.shape = self.x_shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"every size must be at least 1, got {self.shape}")
        self.head = head

    def representation(
        self, x: Float[Tensor, "batch *shape"] | Sequence[Any]
    ) -> Float[Tensor, "batch *shape"]:
        """The representations.

        Raises:
            TypeError: If they are no numbers.
            ValueError: If they have another shape.
        """
        x = _numbers(x, f"representations of shape {self.shape}")
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"expected representations of shape {self.shape}, got {tuple(x.shape[1:])}"
            )
        return x.float()

    def predict(
        self, x: Float[Tensor, "batch *shape"] | Sequence[Any]
    ) -> Float[Tensor, "batch classes"]:
        """Logits, by the head.

        Raises:
            ValueError: If there is none.
        """
        if self.head is None:
            raise ValueError(
                "these vectors answer nothing: give svae.bridges.Vectors(shape, head=...), a "
                "function from representations to logits"
            )
        return self.head(self.representation(x))


class Labels(Described, nn.Module):
    """Labels, one of ``n_classes`` each, as one-hot vectors; their answer is themselves.

    Args:
        n_classes: Number of classes, or of domains.

    Raises:
        ValueError: If there are fewer than two.

    Example:
        >>> Labels(3).representation(torch.tensor([2]))
        tensor([[0., 0., 1.]])
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        if n_classes < 2:
            raise ValueError(f"n_classes must be at least 2, got {n_classes}")
        self.shape = (n_classes,)
        self.unit_names = [f"label {label}" for label in range(n_classes)]

    def representation(
        self, y: Int[Tensor, " batch"] | Sequence[int]
    ) -> Float[Tensor, "batch classes"]:
        """One-hot vectors.

        Raises:
            TypeError: If labels are no numbers.
            ValueError: If a label is out of range.
        """
        y = _numbers(y, "labels, their numbers")
        if y.ndim != 1 or y.is_floating_point():
            raise ValueError(
                f"expected labels (batch,), got {y.dtype} of shape {tuple(y.shape)}: give the "
                "bridge a view=, from the target's inputs to their labels"
            )
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < self.shape[0]:
            raise ValueError(
                f"labels lie in {int(y.min())}..{int(y.max())}, expected 0..{self.shape[0] - 1}"
            )
        return functional.one_hot(y.long(), self.shape[0]).float()

    def predict(self, y: Int[Tensor, " batch"] | Sequence[int]) -> Float[Tensor, "batch classes"]:
        """Logits: sure of the label."""
        return _SURE * self.representation(y)


class BagOfWords(Described, nn.Module):
    """Captions as counts of the words that are known; order counts for nothing.

    A word is a run of letters and digits, apostrophes within it included; capitals are as small
    letters.

    Args:
        words: The words that are known, each once.
        answers: The words among them that name the classes, in their order; a caption's answer is
            which of them it has.

    Raises:
        TypeError: If one string came in the place of many.
        ValueError: If there are no words, one is no word, or an answer is none of them.

    Example:
        >>> words = BagOfWords.of(["a red seven", "a blue one"], answers=["one", "seven"])
        >>> words.words
        ['a', 'blue', 'one', 'red', 'seven']
        >>> words.representation(["a red one"])
        tensor([[1., 0., 1., 1., 0.]])
    """

    def __init__(self, words: Sequence[str], answers: Sequence[str] = ()) -> None:
        super().__init__()
        for given in (words, answers):
            _check_many(given, "words")
        self.words = [word.lower() for word in words]
        self.answers = [word.lower() for word in answers]
        if strange := [word for word in self.words if _split(word) != [word]]:
            raise ValueError(
                f"{strange[0]!r} is not one word: in captions it would be read as "
                f"{_split(strange[0])}. Give these, or write it together."
            )
        if not self.words or len(set(self.words)) < len(self.words):
            raise ValueError(f"expected one word or more, each once, got {self.words}")
        self._place = {word: i for i, word in enumerate(self.words)}
        if strange := [word for word in self.answers if word not in self._place]:
            raise ValueError(f"answers must be words that are known; {', '.join(strange)} are not")
        self.shape = (len(self.words),)

    @property
    def unit_names(self) -> list[str]:
        """What each unit of a representation counts."""
        return [repr(word) for word in self.words]

    @classmethod
    def of(cls, captions: Iterable[str], answers: Sequence[str] = ()) -> "BagOfWords":
        """The words of these captions, in alphabetical order.

        Raises:
            TypeError: If one string came in the place of many, or a caption is no text.
            ValueError: If a caption has no word.
        """
        captions = captions if isinstance(captions, str) else list(captions)
        _check_captions(captions)
        return cls(sorted({word for caption in captions for word in _split(caption)}), answers)

    def representation(self, captions: Sequence[str]) -> Float[Tensor, "batch words"]:
        """How often each word stands in each caption.

        Raises:
            TypeError: If one string came in the place of many, or a caption is no text.
            ValueError: If a caption has no word, or one that is not known.
        """
        _check_captions(captions)
        counts = torch.zeros(len(captions), len(self.words))
        for row, caption in enumerate(captions):
            for word in _split(caption):
                if word not in self._place:
                    raise ValueError(self._unknown(word, caption))
                counts[row, self._place[word]] += 1
        return counts

    def predict(self, captions: Sequence[str]) -> Float[Tensor, "batch classes"]:
        """Logits of the answers, by their counts.

        Raises:
            ValueError: If no answers were named.
        """
        if not self.answers:
            raise ValueError("these captions answer nothing: give BagOfWords(words, answers=...)")
        places = torch.tensor([self._place[word] for word in self.answers])
        return _SURE * self.representation(captions)[:, places]

    def _unknown(self, word: str, caption: str) -> str:
        near = difflib.get_close_matches(word, self.words, 3)
        known = ", ".join(self.words[:_SHOWN]) + (", ..." if len(self.words) > _SHOWN else "")
        meant = f"Was {' or '.join(near)} meant? " if near else ""
        return f"the word {word!r} of {caption!r} is not known. {meant}Known are {known}."


class SentenceEncoder(nn.Module):
    """Captions as a frozen sentence encoder embeds them (extra ``text``).

    Args:
        model: A ``SentenceTransformer``, or the name or folder of one.
        head: From embeddings to logits, where captions answer something.

    Raises:
        ImportError: If the extra is not installed.

    References:
        Sentence-BERT (Reimers & Gurevych, 2019), https://arxiv.org/abs/1908.10084
    """

    def __init__(
        self,
        model: object = "all-MiniLM-L6-v2",
        head: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        try:
            from sentence_transformers import SentenceTransformer  # pyright: ignore
        except ImportError as error:
            raise ImportError(
                'a sentence encoder needs sentence-transformers: pip install "svae[text]". '
                "svae.bridges.BagOfWords needs nothing."
            ) from error
        self.model = SentenceTransformer(model) if isinstance(model, str) else model
        self.head = head
        self.shape = tuple(self.representation(["a"]).shape[1:])

    @torch.no_grad()
    def representation(self, captions: Sequence[str]) -> Float[Tensor, "batch n"]:
        """Embeddings.

        Raises:
            TypeError: If one string came in the place of many, or a caption is no text.
            ValueError: If a caption has no word.
        """
        _check_captions(captions)
        found = self.model.encode(  # pyright: ignore
            list(captions), convert_to_tensor=True, show_progress_bar=False
        )
        return found.float().clone()

    def predict(self, captions: Sequence[str]) -> Float[Tensor, "batch classes"]:
        """Logits, by the head.

        Raises:
            ValueError: If there is none.
        """
        if self.head is None:
            raise ValueError(
                "these captions answer nothing: give svae.bridges.SentenceEncoder(model, "
                "head=...), a function from embeddings to logits"
            )
        return self.head(self.representation(captions))


def _numbers(given: object, what: str) -> Tensor:
    try:
        return torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        first = next(iter(given), None) if isinstance(given, Iterable) else given
        raise TypeError(
            f"expected {what}, got a {type(given).__name__} that begins with {first!r}: give a "
            "tensor, or names by their numbers, [names.index(name) for name in ...]"
        ) from error


def _split(caption: str) -> list[str]:
    return _WORD.findall(caption.lower())


def _check_many(texts: object, what: str) -> None:
    if isinstance(texts, str):
        raise TypeError(f"expected a list of {what}, got the one {texts!r}: put it in [...]")


def _check_captions(captions: Sequence[str]) -> None:
    _check_many(captions, "captions")
    if isinstance(captions, Tensor):
        raise TypeError(
            f"expected a list of captions, got a tensor of shape {tuple(captions.shape)}: give "
            "the bridge a view=, from pictures to the captions that fit them"
        )
    for row, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise TypeError(
                f"caption number {row} is {caption!r}, a {type(caption).__name__}, expected text. "
                "Leave out the examples that have none."
            )
        if not _split(caption):
            raise ValueError(
                f"caption number {row}, {caption!r}, has no word: a caption says something, "
                "such as 'a thick red seven'"
            )
