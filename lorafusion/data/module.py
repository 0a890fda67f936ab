"""The data module: a decoded dataset, served in whole batches from the position at which training stands.

Every batch is a dict:

    image  (B, C, R, R)  uint8 from the loader; float32 in [-1, 1] once it is on its device
    label  (B,) int64    class, -1 = unlabelled
    index  (B,) int64    training: positions in the endless stream (stream.py); otherwise: numbers of the images
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, UInt8
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from lorafusion.data.cache import Cached, cached
from lorafusion.data.decode import Decoder
from lorafusion.data.source import Source
from lorafusion.data.stream import Batches, EndlessSpans, OnceSpans, Permutations, Span, end_with_parent, in_order
from lorafusion.draws import Draws
from lorafusion.errors import UserError

_FLIPS = 3 << 40  # keeps their draws apart from the denoiser's


class ImageData(LightningDataModule):
    """name:         of the dataset, for folders and messages.
    source:       where the images come from.
    resolution:   side R in pixels.
    channels:     C, 1 or 3.
    num_classes:  labels must be below it; None = not checked.
    batch_size:   GLOBAL: images in one optimizer step, over all devices and accumulated micro-batches.
    num_workers:  loader processes of each device; the order of images does not depend on it.
    seed:         of the order and the flips, not negative.
    cache_dir:    where decoded arrays are kept.
    filter:       of resizing: lanczos, bilinear, bicubic, box or nearest.
    crop:         center = the middle square of every image; None = images that are not square are refused.
    subset:       train on the first so many images alone; None = on all.
    hflip:        mirror each training image with probability 1/2.
    path:         what ``source`` reads, kept here so that the command line says ``data.path=``.

    Raises UserError for sizes that are out of range, and, when the data is first used, as its source does.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        resolution: int,
        channels: int,
        num_classes: int | None,
        batch_size: int,
        num_workers: int,
        seed: int,
        cache_dir: str | Path,
        *,
        filter: str = "lanczos",
        crop: str | None = None,
        subset: int | None = None,
        hflip: bool = False,
        path: str | None = None,
    ):
        super().__init__()
        for key, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0), ("seed", seed, 0)):
            if value < least:
                raise UserError(f"data.{key}={value}: at least {least}")
        if subset is not None and subset < 1:
            raise UserError(f"data.subset={subset}: at least 1, or null for all images")
        self.name: str = name
        self.source, self.cache_dir, self.path = source, Path(cache_dir), path
        self.decoder = Decoder(resolution, channels, filter, crop)
        self.resolution, self.channels, self.num_classes = resolution, channels, num_classes
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.subset, self.hflip = subset, hflip
        self._cached: dict[str, Cached] = {}

    def split(self, split: str) -> Cached:
        """The decoded split; decoded now if it never was. Raises UserError where the dataset has no such split."""
        if split not in self._cached:
            if split not in self.source.splits():
                raise UserError(f"data {self.name} has no {split} images")
            found = cached(self.source, split, self.decoder, self.cache_dir, self.name)
            _check_labels(found, self.num_classes)
            self._cached[split] = found
        return self._cached[split]

    def arrays(self, split: str) -> tuple[UInt8[np.ndarray, "N C R R"], Int64[np.ndarray, "N"]]:
        """All images of train or test, mapped from the disk, and their labels. Raises as ``split``."""
        found = self.split(split)
        return found.images, found.labels

    def prepare_data(self) -> None:
        """On one process of each machine: what must be decoded, is."""
        for split in self.source.splits():
            self.split(split)

    def train_dataloader(self) -> DataLoader:
        """Endless, from position ``images_seen`` of the stream on."""
        train = self.split("train")
        n = len(train.images) if self.subset is None else self.subset
        if n > len(train.images):
            raise UserError(f"data.subset={n}: {self.name} has only {len(train.images)} training images")
        rank, world_size, accumulate = self._ranks()
        parts = world_size * accumulate
        if self.batch_size % parts:
            down = self.batch_size // parts * parts
            raise UserError(
                f"data.batch_size={self.batch_size} does not divide over {world_size} devices x {accumulate} "
                f"accumulated micro-batches: {f'{down} or ' if down else ''}{down + parts} would"
            )
        start: int = self.trainer.lightning_module.images_seen if self.trainer else 0  # pyright: ignore
        spans = EndlessSpans(start, self.batch_size // accumulate, rank, world_size)
        return self._loader(Batches(train, Permutations(n, self.seed)), spans, self.num_workers)

    def val_dataloader(self) -> DataLoader | list:
        """The test split once, in order; nothing where there is none."""
        if "test" not in self.source.splits():
            return []
        test = self.split("test")
        rank, world_size, accumulate = self._ranks()
        batch = max(1, self.batch_size // (world_size * accumulate))
        spans = OnceSpans(len(test.images), batch, rank, world_size)
        return self._loader(Batches(test, in_order), spans, num_workers=0)  # starting workers costs more than they save

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        image = scaled(batch["image"])
        if self.hflip and self.trainer and self.trainer.training:
            image = flipped(image, self.seed, batch["index"])
        return {**batch, "image": image}

    def _loader(self, batches: Batches, spans: Sampler[Span], num_workers: int) -> DataLoader:
        return DataLoader(
            batches,
            batch_size=None,  # an item is a batch already
            worker_init_fn=end_with_parent,
            sampler=spans,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
        )

    def _ranks(self) -> tuple[int, int, int]:
        """rank, world_size, accumulated micro-batches."""
        if self.trainer is None:
            return 0, 1, 1
        return self.trainer.global_rank, self.trainer.world_size, self.trainer.accumulate_grad_batches


def scaled(image: UInt8[Tensor, "*B C R R"]) -> Float[Tensor, "*B C R R"]:
    """0 .. 255 -> [-1, 1] in float32."""
    return image.float() / 127.5 - 1


def flipped(image: Float[Tensor, "B C R R"], seed: int, index: Int[Tensor, "B"]) -> Float[Tensor, "B C R R"]:
    """Each image mirrored left to right or not, as (seed, index) alone decide."""
    mirror = Draws(seed + _FLIPS, index).uniform() < 0.5  # (B,)
    return torch.where(mirror[:, None, None, None], image.flip(-1), image)


def _check_labels(found: Cached, num_classes: int | None) -> None:
    least, most = int(found.labels.min()), int(found.labels.max())
    if least < -1:
        raise UserError(f"{found.folder.name}: label {least}; classes count from 0, -1 = unlabelled")
    if num_classes is not None and most >= num_classes:
        raise UserError(f"{found.folder.name}: label {most}, so data.num_classes={num_classes} is too few")
