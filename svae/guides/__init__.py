"""q(z given x): amortised guides.

A guide is any callable of signature ``(x, y=None)`` that makes the sites ``z_class`` and ``style``
inside a plate over the batch. The classes here are ready-made ones; each says when to use it.
"""

from svae.guides.covariance import FullCovarianceGuide
from svae.guides.flow import FlowGuide
from svae.guides.mean_field import MeanFieldGuide
from svae.guides.structured import HierarchicalGuide, StructuredGuide

__all__ = [
    "FlowGuide",
    "FullCovarianceGuide",
    "HierarchicalGuide",
    "MeanFieldGuide",
    "StructuredGuide",
]
