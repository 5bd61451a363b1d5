"""What participants tell of their training beside counts and scores: the names of figures, and the bounds of each.

The server shows every figure beside those that it writes itself, takes means over the sites, and keeps all of every
round. So a method says which there are: a name of somebody's own could pass for a score of the federation, and new ones
in every round would fill the disk.
"""

from __future__ import annotations

from fedmepd.networks.encoder import LEVELS
from fedmepd.tasks.task import Task

# By name, the least and the largest value.
Bounds = dict[str, tuple[float, float]]

# Of one output: cross entropy is at most -log(0.005), which is 5.3, since it takes probabilities from 0.005 on, and the
# Dice loss at most 1.
_OF_OUTPUT = 7.0
# Of terms that the job's settings weigh, by up to a million.
LARGEST = 1e9
# What is never negative can be rounded to something below 0.
NOTHING = -0.01


def plain_losses(task: Task) -> Bounds:
    """The training loss of :func:`fedmepd.training.losses.training_loss`, and its parts."""
    outputs = {"segmentation": 1, "regions": len(LEVELS), "auxiliary": len(task.modalities)}
    outputs["total"] = sum(outputs.values())
    return {name: (NOTHING, _OF_OUTPUT * count) for name, count in outputs.items()}


def no_figures(task: Task) -> Bounds:
    """Of a method that has none beside the losses."""
    return {}


def proximal_figures(task: Task) -> Bounds:
    """Of training with a :class:`~fedmepd.methods.parts.proximal.ProximalTerm`."""
    return {"proximal": (NOTHING, LARGEST)}
