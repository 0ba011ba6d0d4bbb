"""What a user would pick instead: small, from its paper each, all trained by one loop."""

from benchmarks.peers.ccvae import CCVAE
from benchmarks.peers.common import Peer
from benchmarks.peers.cvae import CVAE
from benchmarks.peers.diva import DIVA
from benchmarks.peers.ibinn import IBINN
from benchmarks.peers.m2 import M1M2, M2
from benchmarks.peers.plain import Classifier, VAEClassifier
from benchmarks.peers.vib import VIB

__all__ = [
    "CCVAE",
    "CVAE",
    "DIVA",
    "IBINN",
    "M1M2",
    "M2",
    "VIB",
    "Classifier",
    "Peer",
    "VAEClassifier",
]
