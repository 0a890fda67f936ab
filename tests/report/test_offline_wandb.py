"""An offline run of W&B, written by W&B, read without its metrics.csv."""

import json
import struct
import time
import zlib

import pytest

from lorafusion.report.offline_wandb import BLOCK, HEADER, records
from lorafusion.report.read import Damaged
from lorafusion.report.run import load
from tests.report import made_up

LOSSES = {128: 0.5, 256: 0.25, 384: float("nan")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import wandb

    folder = tmp_path_factory.mktemp("run")
    config = made_up.config(folder, attn="time_lora", seed=4) | {"long": "x" * 70_000}  # crosses blocks
    settings = wandb.Settings(console="off", silent=True, x_disable_stats=True)
    with wandb.init(mode="offline", dir=folder, config=config, settings=settings) as run:
        for nimg, loss in LOSSES.items():
            run.log({"loss": loss, "nimg": nimg, "words": "no number"})
    until = time.monotonic() + 60
    while len(load(folder, "it").history.get("loss", [])) < len(LOSSES) and time.monotonic() < until:
        time.sleep(0.05)  # W&B's own process writes the file, and its end after finish
    return folder


def test_history_and_config(folder):
    run = load(folder, "it")
    assert [x for x, _ in run.history["loss"]] == [*map(float, LOSSES)]
    assert [y for _, y in run.history["loss"]][:2] == [0.5, 0.25]
    assert {*run.history} == {"loss"}
    assert (run.conditioning("attn"), run.seed, run.data) == ("time_lora", 4, "mnist_5k, 32 px")
    assert run.images_seen == 384
    assert run.problems == []


def test_a_csv_comes_first(folder, tmp_path):
    (tmp_path / "wandb").symlink_to(folder / "wandb")
    made_up.write_csv(tmp_path / "metrics.csv", [{"step": 1, "nimg": 9.0, "loss": 7.0}])
    assert load(tmp_path, "it").history == {"loss": [(9.0, 7.0)]}


@pytest.mark.parametrize(("content", "says"), [(b"", "no log"), (b"\x1f\x8b" * 9, "no log")])
def test_another_file(tmp_path, content, says):
    (tmp_path / "wandb/offline-run-1").mkdir(parents=True)
    (tmp_path / "wandb/offline-run-1/run-1.wandb").write_bytes(content)
    assert any(says in said for said in load(tmp_path, "it").problems)


def log(*parts):
    return HEADER + b"".join(
        struct.pack("<IHB", zlib.crc32(data, zlib.crc32(bytes([kind]))), len(data), kind) + data for kind, data in parts
    )


def test_records_end_where_the_file_is_torn():
    whole = log((1, b"one"), (2, b"tw"), (3, b""), (4, b"o"), (1, b"three"))
    assert [*records(whole)] == [b"one", b"two", b"three"]
    for cut in range(len(HEADER), len(whole)):
        assert [*records(whole[:cut])] == [b"one", b"two", b"three"][: len([*records(whole[:cut])])]
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    assert [*records(bytes(flipped))] == [b"one", b"two"]


def test_the_rest_of_a_block_is_padding():
    first = b"x" * (BLOCK - len(HEADER) - 7 - 4)  # leaves four bytes
    assert [*records(log((1, first)) + b"\0" * 4 + log((1, b"next"))[len(HEADER) :])] == [first, b"next"]


def test_what_is_no_message(tmp_path):
    (tmp_path / "wandb/offline-run-1").mkdir(parents=True)
    (tmp_path / "wandb/offline-run-1/run-1.wandb").write_bytes(log((1, b"\xff\xff\xff")))
    assert load(tmp_path, "it").problems[0] == "wandb holds what is no message of W&B's"
    assert json.dumps(load(tmp_path, "it").config) == "{}"
    with pytest.raises(Damaged):
        [*records(b"csv")]
