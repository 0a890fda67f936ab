"""Mixed precision: products in 16 bits; weights, averages, noise, loss and its weighting in 32."""

import copy
import math

import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback
from omegaconf import open_dict

from lorafusion.callbacks import callbacks_of
from lorafusion.callbacks.ema import EMACallback
from lorafusion.draws import Draws
from lorafusion.tasks.train import build_trainer
from tests.tasks.ranks import BATCH, DENOISERS, cached, settings

BF16 = 2.0**-8  # half the distance of 1 to the next larger number


class Notes(Callback):
    """What a training computes with."""

    def __init__(self):
        self.losses, self.float32, self.sixteen = [], set(), set()

    def on_train_start(self, trainer, denoiser):
        loss = denoiser.training_loss

        def noted(batch, draws):
            found = loss(batch, draws)
            self.float32 |= {batch["image"].dtype, found.dtype, draws.normal(2).dtype}
            self.losses.append(found.detach())
            return found

        def product(module, given, out):
            self.sixteen.add(out.dtype)

        denoiser.training_loss = noted
        for module in denoiser.net.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(product)

    def on_before_optimizer_step(self, trainer, denoiser, optimizer):
        self.float32 |= {p.grad.dtype for p in denoiser.net.parameters()}

    def on_train_end(self, trainer, denoiser):
        self.float32 |= {p.dtype for p in denoiser.net.parameters()}
        self.float32 |= {average.dtype for average in callbacks_of(trainer, EMACallback)[0].ema.averages}
        state = trainer.optimizers[0].state.values()
        self.float32 |= {v.dtype for values in state for v in values.values() if torch.is_tensor(v) and v.ndim}


def trained(folder, name: str, precision: str, accelerator: str = "cpu"):
    """Two steps of Adam."""
    adam = "denoiser.optimizer={_target_: torch.optim.Adam, _partial_: true, lr: 1e-3, fused: true}"
    cfg = cached(*settings(folder, name, adam, f"images={2 * BATCH}")).copy()
    with open_dict(cfg):
        cfg.trainer.precision, cfg.trainer.accelerator = precision, accelerator
    torch.manual_seed(0)
    denoiser = instantiate(cfg.denoiser, _convert_="all")
    with torch.no_grad():
        for parameter in denoiser.net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    trainer, notes = build_trainer(cfg), Notes()
    trainer.callbacks.append(notes)
    trainer.fit(denoiser, datamodule=instantiate(cfg.data, _convert_="all"))
    return denoiser, notes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("precision")


@pytest.fixture(scope="module")
def whole(folder):
    return {name: trained(folder, name, "32-true") for name in DENOISERS}


@pytest.mark.parametrize("name", DENOISERS)
def test_two_steps_of_each_denoiser(folder, whole, name):
    denoiser, notes = trained(folder, name, "bf16-mixed")
    assert notes.float32 == {torch.float32}
    assert notes.sixteen == {torch.bfloat16}
    exact = whole[name][1]
    assert exact.sixteen == {torch.float32}
    assert len(notes.losses) == len(exact.losses) == 2
    for found, expected in zip(notes.losses, exact.losses, strict=True):
        torch.testing.assert_close(found, expected, rtol=8 * BF16, atol=4 * BF16)  # of each image
        assert not torch.equal(found, expected)
    assert all(p.isfinite().all() for p in denoiser.net.parameters())


def test_float16_on_a_cpu_is_bfloat16_and_says_so(folder):
    with pytest.warns(UserWarning, match="not supported on CPU. Using `precision='bf16-mixed'`"):
        _, notes = trained(folder, "nano", "16-mixed")
    assert notes.sixteen == {torch.bfloat16}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("name", DENOISERS)
def test_two_steps_of_each_denoiser_on_a_gpu(folder, whole, name, precision):
    _, notes = trained(folder, name, precision, accelerator="gpu")
    assert notes.float32 == {torch.float32}
    assert notes.sixteen == {torch.bfloat16 if precision == "bf16-mixed" else torch.float16}
    torch.testing.assert_close(notes.losses[0].cpu(), whole[name][1].losses[0], rtol=8 * BF16, atol=4 * BF16)


@pytest.mark.parametrize("name", DENOISERS)
def test_a_shared_noise_level_merges_into_the_weights_under_autocast_too(whole, name):
    """Merged, not merged and in float32 agree to 16-bit rounding: which is small beside what LoRA does."""
    denoiser = whole[name][0]
    net = denoiser.net.eval()
    images = Draws(1, torch.arange(4)).normal(1, 8, 8)
    noise = torch.tensor([7.0]) if net.num_steps else torch.tensor([-0.3])
    step = torch.tensor([7]) if net.num_steps else None
    bare = copy.deepcopy(net)
    for key, value in bare.state_dict().items():
        if ".updates." in key and key.endswith((".up", ".bias")):
            value.zero_()

    def answer(some, rows: int):
        with torch.no_grad():
            return some(images, noise.expand(rows), None if step is None else step.expand(rows)).float()

    exact = answer(net, 1)
    torch.testing.assert_close(answer(net, 4), exact, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        merged, apart = answer(net, 1), answer(net, 4)
    size = exact.std().item()
    effect = (answer(bare, 1) - exact).std().item()
    for found in (merged, apart):
        error = (found - exact).std().item()
        assert 0 < error < 8 * BF16 * size
        assert error < effect / 4
    assert math.isfinite(effect)


def test_norms_and_softmax_of_16_bit_maps():
    """As in float64, to one rounding of what goes out: sums in 16 bits would be off by much more."""
    torch.manual_seed(0)
    x = (torch.randn(2, 32, 16, 16) + 8).bfloat16()
    norm, logits = torch.nn.GroupNorm(8, 32), (4 * torch.randn(4, 1000)).bfloat16()
    exact = torch.nn.functional.group_norm(x.double(), 8, eps=norm.eps)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(norm(x).double(), exact, rtol=BF16, atol=1e-4)
        torch.testing.assert_close(logits.softmax(1).double(), logits.double().softmax(1), rtol=BF16, atol=1e-9)
