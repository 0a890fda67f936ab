"""The checkpoint that was best by a number: <folder>/<images seen>.ckpt, the only one that stays there."""

import math
from pathlib import Path
from typing import Any

from lightning import Trainer

from lorafusion.checkpoint import SUFFIX, list_checkpoints, remove_stale, verify
from lorafusion.direction import more_is_better
from lorafusion.errors import UserError


class Best:
    """by: a measured number; ``direction.more_is_better`` says which way it is better.

    value: of the best so far: images_seen, the file's name, and the number under its name; None before the first.
    """

    def __init__(self, folder: Path, by: str):
        self.folder, self.by = folder, by
        self.value: dict[str, Any] | None = None

    def offer(self, trainer: Trainer, images_seen: int, numbers: dict[str, float]) -> bool:
        """Save a checkpoint if it is better than the best so far; whether it is. All processes have to call it."""
        value = numbers[self.by]
        if not math.isfinite(value) or (self.value and not self._better(value, self.value[self.by])):
            return False
        path = self.folder / f"{images_seen:012d}{SUFFIX}"
        trainer.save_checkpoint(path)
        self.value = {"images_seen": images_seen, "file": f"{self.folder.name}/{path.name}", self.by: value}
        return True

    def _better(self, value: float, than: float) -> bool:
        return value > than if more_is_better(self.by) else value < than

    def known(self, value: Any) -> dict[str, Any] | None:
        """What a record says of the best so far, if its checkpoint is there and whole."""
        if not isinstance(value, dict) or self.by not in value or not isinstance(value.get("images_seen"), int):
            return None
        try:
            verify(self.folder / f"{value['images_seen']:012d}{SUFFIX}")
        except UserError:
            return None
        return value

    def remove_others(self) -> None:
        """Once it is recorded which is the best."""
        remove_stale(self.folder)
        for path in list_checkpoints(self.folder):
            if self.value and path.stem != f"{self.value['images_seen']:012d}":
                path.unlink(missing_ok=True)
