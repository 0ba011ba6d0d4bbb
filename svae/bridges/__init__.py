"""Bridges: invertible networks between a frozen model's representation and readable parts."""

from svae.bridges.adversarial import Adversarial
from svae.bridges.allotting import Score, allot, score
from svae.bridges.autoencoder import (
    Autoencoder,
    ImageDecoder,
    Perceptual,
    Reconstruction,
)
from svae.bridges.blocks import Block
from svae.bridges.concepts import ConceptBridge
from svae.bridges.coordinates import Coordinates, UnitsDropped
from svae.bridges.fibre import InvarianceObjective
from svae.bridges.frozen import BlackBox, Frozen
from svae.bridges.invariance import CodeDensity, InvarianceBridge
from svae.bridges.linear import PrincipalAutoencoder, TableAutoencoder
from svae.bridges.naming import Attribute, Classes, Concept, Evidence, Pairs, Sketched, Together
from svae.bridges.objective import ConceptObjective
from svae.bridges.sources import BagOfWords, Labels, SentenceEncoder, Vectors
from svae.bridges.translation import (
    MeanTranslator,
    TranslationBridge,
    TranslationObjective,
)
from svae.bridges.translator import Source, Translator, UnseenUnits

__all__ = [
    "Adversarial",
    "Attribute",
    "Autoencoder",
    "BagOfWords",
    "BlackBox",
    "Block",
    "Classes",
    "CodeDensity",
    "Concept",
    "ConceptBridge",
    "ConceptObjective",
    "Coordinates",
    "Evidence",
    "Frozen",
    "ImageDecoder",
    "InvarianceBridge",
    "InvarianceObjective",
    "Labels",
    "MeanTranslator",
    "Pairs",
    "Perceptual",
    "PrincipalAutoencoder",
    "Reconstruction",
    "Score",
    "SentenceEncoder",
    "Sketched",
    "Source",
    "TableAutoencoder",
    "Together",
    "TranslationBridge",
    "TranslationObjective",
    "Translator",
    "UnitsDropped",
    "UnseenUnits",
    "Vectors",
    "allot",
    "score",
]
