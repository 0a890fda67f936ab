"""compile=true: the same run and images, from few graphs, through checkpoints that eager runs read and write."""

from functools import partialmethod

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from lorafusion import checkpoint
from lorafusion.denoisers.base import Denoiser
from tests.shapes import unchecked
from tests.tasks.runs import run, tiny


@pytest.fixture
def graphs(monkeypatch):
    """Counts the graphs; they are captured as any backend gets them, and run as they are, for compiling takes long."""
    counter = CompileCounter()
    monkeypatch.setattr(Denoiser, "compile_net", partialmethod(Denoiser.compile_net, backend=counter))
    torch.compiler.reset()
    with unchecked():
        yield counter
    torch.compiler.reset()


def newest(folder):
    return checkpoint.load(checkpoint.newest(folder / "checkpoints"))


def settings(folder, images, *more):
    length = (f"images={images}", "validate_every_images=16", "data.source.n_test=24", "data.source.n=64")
    return tiny(folder, *length, "backbone.num_classes=10", "conditioning/attn=[uc_lora,class_lora]", *more)


def assert_equal(a, b):
    for part in ("state_dict", "ema"):
        assert a[part].keys() == b[part].keys()
        for name, value in a[part].items():
            assert torch.equal(value, b[part][name]), name


def test_training_has_a_graph_for_each_shape_and_goes_on_in_either_mode(tmp_path, graphs):
    whole, mixed = tmp_path / "whole", tmp_path / "mixed"
    run(settings(whole, 96))
    assert graphs.frame_count == 0
    run(settings(mixed, 48, "compile=true"))
    assert graphs.frame_count == 3  # training, validation, and validation's last 8 images
    run(settings(mixed, 80, "resume=auto"))
    assert graphs.frame_count == 3
    run(settings(mixed, 96, "resume=auto", "compile=true"))
    assert_equal(newest(mixed), newest(whole))


@pytest.mark.parametrize("sampler", ["heun", "ancestral"])
def test_sampling_has_one_graph(tmp_path, graphs, sampler):
    """For all noise levels and batches, the padded last one too; guidance adds none."""
    trained = tmp_path / "run"
    run(settings(trained, 16))
    asked = ("task=sample", f"ckpt={trained}", "device=cpu", "n=5", "batch_size=2", f"sampler={sampler}")
    asked = (*asked, "sampler.steps=6", "guidance=2", "guidance_between=[0.1,10]")
    drawn = []
    for name in ("true", "false"):
        run((*asked, f"out={tmp_path / name}", f"compile={name}"))
        with np.load(tmp_path / name / "samples.npz") as file:
            drawn.append(file["images"])
        assert graphs.frame_count == 1
    assert np.array_equal(*drawn)
