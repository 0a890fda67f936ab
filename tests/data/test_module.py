"""The data module under a trainer: global batches, ranks, resuming, and what the denoiser gets."""

import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from lightning import LightningModule, Trainer
from omegaconf import OmegaConf

from lorafusion.data.module import ImageData, flipped, scaled
from lorafusion.data.stream import Permutations
from lorafusion.errors import UserError
from tests.data.images import grey

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path):
    """Makes a module of 23 grey images of 8 px."""

    def make(n: int = 23, test: bool = True, **options) -> ImageData:
        settings = {"num_classes": 10, "batch_size": 12, "num_workers": 0, "seed": 5, "cache_dir": tmp_path} | options
        return ImageData("tiny", grey(n, test=test), 8, 1, **settings)

    return make


def under(module: ImageData, rank=0, world_size=1, accumulate=1, images_seen=0, training=True) -> ImageData:
    """As if a trainer with these settings had the module."""
    module.trainer = SimpleNamespace(  # pyright: ignore
        global_rank=rank,
        world_size=world_size,
        accumulate_grad_batches=accumulate,
        training=training,
        lightning_module=SimpleNamespace(images_seen=images_seen),
    )
    return module


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 1), (2, 1), (4, 1), (1, 3), (2, 3)])
def test_a_global_batch_is_the_same_however_it_is_divided(data, world_size, accumulate):
    """The micro-batches of all ranks, one optimizer step after the other, are the batches of one process."""
    steps = 5
    alone = list(islice(data().train_dataloader(), steps))
    parts = [
        list(islice(under(data(), rank, world_size, accumulate).train_dataloader(), steps * accumulate))
        for rank in range(world_size)
    ]
    for step, whole in enumerate(alone):
        pieces = [parts[r][step * accumulate + a] for a in range(accumulate) for r in range(world_size)]
        assert {len(piece["image"]) for piece in pieces} == {12 // (world_size * accumulate)}
        for key, value in whole.items():
            assert torch.equal(torch.cat([piece[key] for piece in pieces]), value)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_starts_where_the_denoiser_stands(data, num_workers):
    whole = list(islice(data().train_dataloader(), 8))
    tail = list(islice(under(data(num_workers=num_workers), images_seen=36).train_dataloader(), 5))
    for expected, got in zip(whole[3:], tail, strict=True):
        assert all(torch.equal(got[key], expected[key]) for key in expected)


def test_a_batch_that_does_not_divide_is_one_line_with_what_would(data):
    with pytest.raises(UserError, match=r"^data.batch_size=12 .* 4 devices x 2 accumulated .*: 8 or 16 would$"):
        under(data(), world_size=4, accumulate=2).train_dataloader()
    with pytest.raises(UserError, match=r": 4 would$"):
        under(data(batch_size=3), world_size=4).train_dataloader()


def test_evaluation_is_in_order_and_index_is_the_number_of_the_image(data):
    module = data()
    batches = list(module.val_dataloader())
    images, labels = module.arrays("test")
    assert [len(batch["image"]) for batch in batches] == [12, 11]
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(23))
    np.testing.assert_array_equal(torch.cat([batch["image"] for batch in batches]).numpy(), images)
    np.testing.assert_array_equal(torch.cat([batch["label"] for batch in batches]).numpy(), labels)
    ranks = [under(data(), rank, 3).val_dataloader() for rank in range(3)]
    indices = [batch["index"] for loader in ranks for batch in loader]
    assert torch.cat(indices).tolist() == list(range(23))


def test_without_test_images_there_is_no_validation(data):
    module = data(test=False)
    assert module.val_dataloader() == []
    with pytest.raises(UserError, match=r"^data tiny has no test images$"):
        module.arrays("test")


def test_subset_trains_on_the_first_images_alone(data):
    module = data(subset=4)
    batch = next(iter(module.train_dataloader()))
    assert sorted(batch["label"].tolist()) == sorted([0, 1, 2, 3] * 3)
    assert len(module.arrays("train")[0]) == 23
    with pytest.raises(UserError, match=r"^data.subset=24: tiny has only 23 training images$"):
        data(subset=24).train_dataloader()


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"num_workers": -1}, {"seed": -1}, {"subset": 0}, {"filter": "no"}, {"crop": "no"}]
)
def test_options_out_of_range_name_their_key(data, options):
    with pytest.raises(UserError, match=rf"^data.{next(iter(options))}=[^\n]*$"):
        data(**options)


def test_labels_must_be_classes(data):
    with pytest.raises(UserError, match=r"label 9, so data.num_classes=9 is too few$"):
        data(num_classes=9).prepare_data()
    data(num_classes=None).prepare_data()


def test_pixels_become_minus_one_to_one():
    got = scaled(torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 3, 1).expand(1, 1, 3, 3))
    torch.testing.assert_close(got[0, 0, :, 0], torch.tensor([-1.0, -0.6, 1.0]))
    assert got.dtype == torch.float32


def test_flips_follow_from_seed_and_index_alone():
    image, index = torch.rand(4000, 1, 2, 2), torch.arange(4000) + 10**6
    got = flipped(image, 3, index)
    mirrored = (got != image).flatten(1).any(1)
    assert torch.equal(got, torch.where(mirrored.view(-1, 1, 1, 1), image.flip(-1), image))
    assert abs(mirrored.float().mean() - 0.5) < 5 * 0.5 / 4000**0.5
    order = torch.randperm(4000)
    assert torch.equal(flipped(image[order], 3, index[order]), got[order])  # another batch
    assert torch.equal(flipped(image[7:9], 3, index[7:9]), got[7:9])
    assert not torch.equal(flipped(image, 4, index), got)


def test_flips_are_not_the_draws_of_the_noise():
    """The denoiser draws from the same seed and index: its first uniform must not tell whether an image is mirrored."""
    from lorafusion.draws import Draws

    index = torch.arange(4000)
    image = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).expand(4000, 1, 2, 2).contiguous()
    mirrored = flipped(image, 3, index)[:, 0, 0, 0]
    correlation = torch.corrcoef(torch.stack([mirrored, Draws(3, index).uniform()]))[0, 1]
    assert abs(correlation) < 5 / 4000**0.5


def test_only_training_images_are_flipped(data):
    module = under(data(hflip=True), training=True)
    batch = next(iter(module.train_dataloader()))
    plain = scaled(batch["image"])
    assert torch.equal(module.on_after_batch_transfer(batch, 0)["image"], flipped(plain, 5, batch["index"]))
    assert not torch.equal(flipped(plain, 5, batch["index"]), plain)
    assert torch.equal(under(module, training=False).on_after_batch_transfer(batch, 0)["image"], plain)
    assert torch.equal(under(data(), training=True).on_after_batch_transfer(batch, 0)["image"], plain)


class Watching(LightningModule):
    """Stands for a denoiser: counts images, keeps what it is given."""

    def __init__(self, images_seen: int = 0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.images_seen, self.trained, self.validated = images_seen, [], []

    def training_step(self, batch, batch_idx):
        self.trained.append(batch)
        self.images_seen += len(batch["index"])
        return self.weight * batch["image"].mean()

    def validation_step(self, batch, batch_idx):
        self.validated.append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: ImageData, watching: Watching, steps: int, tmp_path: Path, **options) -> Watching:
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False} | options
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, enable_model_summary=False, default_root_dir=tmp_path, **settings
    )
    trainer.fit(watching, module)
    return watching


@pytest.mark.filterwarnings("ignore:The 'val_dataloader' does not have many workers")
def test_a_real_trainer_sees_the_stream_and_resumes_it(data, tmp_path):
    module = data(hflip=True)
    whole = fit(module, Watching(), 7, tmp_path, val_check_interval=3, check_val_every_n_epoch=None)
    positions = torch.cat([batch["index"] for batch in whole.trained])
    assert positions.tolist() == list(range(7 * 12))
    images, labels = module.arrays("train")
    numbers = Permutations(23, 5)(positions.numpy())
    expected = flipped(torch.from_numpy(images[numbers]) / 127.5 - 1, 5, positions)
    torch.testing.assert_close(torch.cat([batch["image"] for batch in whole.trained]), expected)
    np.testing.assert_array_equal(torch.cat([batch["label"] for batch in whole.trained]).numpy(), labels[numbers])
    validated = torch.cat([batch["image"] for batch in whole.validated])
    torch.testing.assert_close(validated[-23:], torch.from_numpy(module.arrays("test")[0] / np.float32(127.5)) - 1)

    resumed = fit(data(hflip=True, num_workers=2), Watching(images_seen=36), 4, tmp_path, limit_val_batches=0)
    for expected, got in zip(whole.trained[3:], resumed.trained, strict=True):
        assert all(torch.equal(got[key], expected[key]) for key in expected)


def test_a_trainer_accepts_data_without_test_images(data, tmp_path):
    watching = fit(data(test=False), Watching(), 2, tmp_path)
    assert (len(watching.trained), len(watching.validated)) == (2, 0)


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    lines = [
        "import torch.multiprocessing as mp",
        "from pathlib import Path",
        "from lorafusion.data.module import ImageData",
        "from tests.data.images import grey",
        f"data = ImageData('tiny', grey(9), 8, 1, 10, 4, num_workers=2, seed=0, cache_dir={str(tmp_path)!r})",
        "iterator = iter(data.train_dataloader()); next(iterator)",
        "print(*[worker.pid for worker in mp.active_children()], flush=True)",
        "import time; time.sleep(60)",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 30
    while any(_alive(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except ProcessLookupError:
        return False


@pytest.mark.parametrize("path", sorted((ROOT / "conf/data").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_yaml_makes_a_module(path, tmp_path):
    config = OmegaConf.create({"seed": 3, "paths": {"data_dir": str(tmp_path)}, "data": OmegaConf.load(path)})
    module = instantiate(config.data)
    assert isinstance(module, ImageData)
    assert (module.name, module.seed, module.cache_dir) == (path.stem, 3, tmp_path)
    if "path" in config.data:
        config.data.path = "somewhere/else"
        assert config.data.source.path == "somewhere/else"
