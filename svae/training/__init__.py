"""Training of everything that can be trained, on pytorch_lightning's Trainer.

A supervised VAE is trained in two phases of one run. First the model and guide learn with a
standard normal prior on the style code; then they are held and the style flow is fitted to the
codes by maximum likelihood. With ``Recipe(joint=True)`` the flow is learned from the start, and
the second phase only improves it.
"""

from svae.training.fitting import Task, fit, fit_steps, task_of, training_of
from svae.training.recipe import Recipe, one_cycle
from svae.training.running import PlainProgress, quiet, run, trainer_settings
from svae.training.supervised import CollapsedBlock, FlowNotFitted, SVAEModule, flow_loss
from svae.training.tally import NonFiniteLoss

__all__ = [
    "CollapsedBlock",
    "FlowNotFitted",
    "NonFiniteLoss",
    "PlainProgress",
    "Recipe",
    "SVAEModule",
    "Task",
    "fit",
    "fit_steps",
    "flow_loss",
    "one_cycle",
    "quiet",
    "run",
    "task_of",
    "trainer_settings",
    "training_of",
]
