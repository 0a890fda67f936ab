"""What the conditioning of a trained denoiser does. An analysis is a plain class: it computes and draws, and writes
nothing; it names no strategy, but looks at whatever LoRA layers a network has.

``looks_at`` says what it is given: 'layers' = a denoiser as it is and as its training began, 'images' = images that
denoisers draw.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Found:
    """pictures:  name -> matplotlib figure.
    arrays:    name -> array: one npz.
    tables:    name -> rows of a csv, each column -> value.
    numbers:   what the record says of them, as JSON keeps it.
    said:      lines and rich tables for the reader, in order.
    """

    pictures: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    said: list[Any] = field(default_factory=list)
