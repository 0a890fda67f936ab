"""A metric's numbers of some images: what both an evaluation and a run that measures itself call."""

from typing import Any

import numpy as np
import torch

from lorafusion.metrics.features import Seen, look_with_bar
from lorafusion.metrics.statistics import Statistics

Numbers = dict[str, float]


def numbers_of(
    metric: Any,
    images: np.ndarray,
    labels: np.ndarray | None,
    reference: Statistics | Seen | None,
    device: torch.device,
    name: str,
) -> Numbers:
    """The metric's numbers; where the extractor knows the classes, how often it agrees with those asked for.

    images:  uint8 (N, C, R, R).
    labels:  (N,) classes asked for, -1 where none was; None = unconditional.
    name:    of the images, for the progress.

    Raises ValueError where the metric or its extractor does not suit them.
    """
    asked = labels if knows_classes(metric) else None
    seen = look_with_bar(metric.extractor, images, {*metric.takes} | _logits(asked), device, name)
    numbers = metric.compare(seen, reference)
    if asked is not None and seen.logits is not None and (known := asked >= 0).any():
        numbers["agreement"] = float((seen.logits.argmax(dim=1).numpy() == asked)[known].mean())
    return {"n": len(images), **numbers}


def knows_classes(metric: Any) -> bool:
    """Whether its extractor's logits are the data's classes."""
    return getattr(metric.extractor, "num_classes", None) is not None


def _logits(asked: np.ndarray | None) -> set[str]:
    return set() if asked is None else {"logits"}
