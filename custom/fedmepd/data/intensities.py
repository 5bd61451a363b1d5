"""The intensities of an image as the network sees them: what is body, and how the body is normalised, by task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fedmepd.tasks.task import Task

# The range of the rule ``percentiles``.
_PERCENTILES = (0.5, 99.5)


def foreground(task: Task) -> list[Callable]:
    """Returns the transforms of ``image`` (M, X, Y, Z) after which it is 0 outside the task's foreground."""
    from monai import transforms as t

    body = [t.ThresholdIntensityd("image", threshold=0, above=True, cval=0)]
    if task.foreground == "above":
        body.append(t.Lambdad("image", lambda image: _above(image, task.foreground_share)))
    return body


def normalisation(task: Task, clip_percent: float) -> list[Callable]:
    """Returns the transforms that normalise ``image`` (M, X, Y, Z), each modality by itself, and leave 0 outside.

    Args:
        task: whose rules are followed.
        clip_percent: of the foreground's voxels, at either end.
    """
    from monai import transforms as t

    whole = task.foreground == "whole"
    steps: list[Callable] = []
    if clip_percent:
        steps.append(t.Lambdad("image", lambda image: clip_intensities(image, clip_percent)))
    if task.intensity == "percentiles":
        return [*steps, t.Lambdad("image", lambda image: _between_percentiles(image, whole))]
    return [*steps, t.NormalizeIntensityd("image", nonzero=not whole, channel_wise=True)]


def kept(task: Task) -> Callable[[Any], Any]:
    """Returns what selects the voxels that must be kept when a case is cropped, from images and label (C, X, Y, Z)."""
    import torch

    if task.foreground == "whole":
        return torch.ones_like
    # Images that are resampled are normalised by then, so that a part of the body is below 0.
    return (lambda image: image != 0) if task.resampled else (lambda image: image > 0)


def clip_intensities(image: Any, percent: float) -> Any:
    """Clips the values of every modality's brain to percentiles; 0 stays 0.

    Args:
        image: (M, X, Y, Z), changed in place.
        percent: of the brain's voxels, at either end.
    """
    for channel in image:
        inside = channel[channel > 0]
        if len(inside):
            low, high = np.percentile(inside.numpy(), (percent, 100 - percent))
            channel[channel > 0] = inside.clamp(float(low), float(high))
    return image


def _above(image: Any, share: float) -> Any:
    for channel in image:
        inside = channel[channel > 0]
        if len(inside):
            channel[channel <= share * inside.mean()] = 0
    return image


def _between_percentiles(image: Any, whole: bool) -> Any:
    for channel in image:
        body = channel >= 0 if whole else channel > 0
        inside = channel[body]
        if len(inside):
            low, high = (float(end) for end in np.percentile(inside.numpy(), _PERCENTILES))
            channel[body] = ((inside - low) / max(high - low, np.finfo(np.float32).tiny)).clamp(0, 1)
    return image
