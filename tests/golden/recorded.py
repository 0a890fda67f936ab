"""Random numbers that a reference file recorded, in the place of our own."""

from collections.abc import Iterable

import torch
from torch import Tensor

from lorafusion.draws import Draws


class Recorded(Draws):
    """Each call of ``normal`` gives the next of ``normals``, each (B, *shape)."""

    def __init__(self, normals: Iterable[Tensor]):
        normals = [*normals]
        super().__init__(0, torch.arange(len(normals[0])))
        self.normals = iter(normals)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        given = next(self.normals)
        assert given.shape[1:] == shape
        return given.to(dtype)
