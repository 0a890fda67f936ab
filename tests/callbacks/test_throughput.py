"""Throughput by a clock of the test's own: what counts, when it is logged, and at which step."""

from types import SimpleNamespace

import pytest
import torch

from lorafusion.callbacks import throughput
from lorafusion.callbacks.throughput import Throughput, memory_mib
from tests.tasks.runs import composed


class Rows:
    def __init__(self):
        self.rows = []

    def log_metrics(self, values, step):
        self.rows.append((step, values))


@pytest.fixture
def training(monkeypatch):
    """(trainer, denoiser, rows, step): ``step(seconds, validation)`` trains on 16 images."""
    clock, rows = [0.0], Rows()
    monkeypatch.setattr(throughput, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.5}])
    trainer = SimpleNamespace(global_step=0, loggers=[rows], optimizers=[optimizer])
    denoiser = SimpleNamespace(device=torch.device("cpu"), images_seen=0)

    def step(callback, seconds, validation=0.0, accumulates=False):
        clock[0] += seconds
        denoiser.images_seen += 16
        trainer.global_step += not accumulates
        callback.on_train_batch_end(trainer, denoiser)
        if validation:
            callback.on_validation_start(trainer, denoiser)
            clock[0] += validation
            callback.on_validation_end(trainer, denoiser)

    return trainer, denoiser, rows.rows, step


def test_images_per_second_without_validation(training):
    trainer, denoiser, rows, step = training
    (callback := Throughput(2)).on_train_start(trainer, denoiser)
    for seconds, validation in ((1.0, 7.0), (3.0, 100.0), (0.5, 0.0), (0.5, 0.0), (9.0, 0.0)):
        step(callback, seconds, validation)
    assert [number for number, _ in rows] == [1, 3]  # as Lightning counts the steps that it logs
    assert [row["images_per_s"] for _, row in rows] == [32 / 4, 32 / 1]
    assert [row["nimg"] for _, row in rows] == [32.0, 64.0]
    assert {row["lr"] for _, row in rows} == {0.5}


def test_micro_batches_of_a_step_are_one_step(training):
    trainer, denoiser, rows, step = training
    (callback := Throughput(1)).on_train_start(trainer, denoiser)
    for accumulates in (True, False, True, False):
        step(callback, 1.0, accumulates=accumulates)
    assert [(number, row["images_per_s"]) for number, row in rows] == [(0, 16.0), (1, 16.0)]


def test_a_resumed_run_counts_from_where_it_starts(training):
    trainer, denoiser, rows, step = training
    trainer.global_step, denoiser.images_seen = 10, 1000
    (callback := Throughput(2)).on_train_start(trainer, denoiser)
    step(callback, 1.0)
    step(callback, 1.0)
    assert [(number, row["images_per_s"], row["nimg"]) for number, row in rows] == [(11, 16.0, 1032.0)]


def test_memory_is_that_of_the_process():
    before = memory_mib(torch.device("cpu"))
    held = torch.ones(64 * 2**18)  # 64 MiB, touched
    assert 50 < memory_mib(torch.device("cpu")) - before < 100
    del held


def test_refuses_no_steps():
    with pytest.raises(ValueError, match="every_steps must be at least 1"):
        Throughput(0)


def test_it_is_on_unless_told():
    assert composed().callbacks.throughput.every_steps == composed().trainer.log_every_n_steps
