"""A loss written in Pyro, run without Pyro: traced once into a plain graph, then compiled.

Pyro's effect handlers cost milliseconds of Python per step, more than the arithmetic of a small
network. They decide which tensor operations run, never with which numbers, so the operations of
one step can be recorded, those of its gradient with them, and every later step repeats the record.
Parameters, buffers, batch and schedule values are inputs of the graph. Noise is drawn by the same
generator in the same order as without a graph: the same seed gives the same losses either way.
"""

from svae.compilation.loss import MAX_RENEWALS, CompiledLoss, NotCompiled
from svae.compilation.recording import Loss, Values

__all__ = ["MAX_RENEWALS", "CompiledLoss", "Loss", "NotCompiled", "Values"]
