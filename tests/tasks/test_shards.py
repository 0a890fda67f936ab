"""Promise 12: 256 seeds give the same bits for any batch size, number of processes and interruption.

And the files that this rests on: shards are whole or not there, and those of other settings are never mixed.
"""

import json
import multiprocessing
import os
import random
import shutil
import time
import tracemalloc

import numpy as np
import pytest

from lorafusion.errors import UserError
from lorafusion.tasks.shards import Shards, differences
from tests.tasks import runs
from tests.tasks.runs import finish, run, tiny

STEPS = ("task=sample", "device=cpu", "n=256", "label=balanced", "sampler=heun", "sampler.steps=6", "formats=[npz]")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "run"
    settings = ("images=64", "process=edm", "sampler=heun", "backbone.num_classes=10", "conditioning/conv=[shift]")
    assert finish(tiny(folder, *settings)) == 0
    return folder


@pytest.fixture(scope="module")
def undisturbed(trained):
    """By one process, in shards of 64."""
    return drawn(trained, trained.parent / "undisturbed")


def drawn(trained, out, *settings):
    run((*STEPS, f"ckpt={trained}", f"out={out}", *settings))
    return read(out)


def read(out):
    with np.load(out / "samples.npz") as file:
        content = dict(file)
    return content["images"], content["seeds"], content["labels"], json.loads((out / "samples.json").read_text())


def same(ours, theirs):
    assert all(np.array_equal(a, b) for a, b in zip(ours[:3], theirs[:3], strict=True))
    assert ours[3]["sha256"] == theirs[3]["sha256"]


def process(rank, world_size, trained, out, *settings):
    """One that torchrun might have started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lorafusion.tasks.train", "lorafusion.callbacks.ema", "hydra.utils"])
    started = context.Process(
        target=ranked, args=(rank, world_size, (*STEPS, f"ckpt={trained}", f"out={out}", *settings))
    )
    started.start()
    return started


def ranked(rank, world_size, overrides):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    runs.run(overrides)


def shards_in(out):
    return len([*(out / "shards").glob("[0-9]*.npy")])


def killed_at(started, out, count):
    """Kill it as soon as that many shards lie there; how many do then."""
    until = time.monotonic() + 100
    while shards_in(out) < count and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(random.random() * 0.02)
    started.kill()
    started.join()
    return shards_in(out)


@pytest.mark.parametrize("batch_size", [1, 100, 1000])
def test_any_batch_size(trained, undisturbed, tmp_path, batch_size):
    same(drawn(trained, tmp_path, f"batch_size={batch_size}"), undisturbed)


@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_processes(trained, undisturbed, tmp_path, world_size):
    """In whatever order they come; none but the first stays longer than it draws."""
    started = [process(rank, world_size, trained, tmp_path) for rank in reversed(range(world_size))]
    for one in started:
        one.join(100)
    assert [one.exitcode for one in started] == [0] * world_size
    same(read(tmp_path), undisturbed)
    assert read(tmp_path)[3]["made_by"][0]["processes"] == world_size
    assert not (tmp_path / "shards").exists()


def test_any_interruption(trained, tmp_path, capsys):
    """Killed at random moments, then finished by one process, and by two: micro-batches of 16, 16 shards."""
    small = ("micro_batch=16", "batch_size=16", "sampler.steps=3")
    whole = drawn(trained, tmp_path / "whole", *small)
    for count in (1, 6):
        found = killed_at(process(0, 1, trained, tmp_path / "a", *small), tmp_path / "a", count)
        assert count <= found < 16
    assert not (tmp_path / "a" / "samples.npz").exists()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "shards" / ".00009.17.tmp.npy").write_bytes(b"torn")
    two = [process(rank, 2, trained, tmp_path / "b", *small) for rank in range(2)]
    capsys.readouterr()
    run((*STEPS, f"ckpt={trained}", f"out={tmp_path / 'a'}", *small))
    assert f"going on: {found} of 16 shards ({16 * found} of 256 images)" in capsys.readouterr().out
    for one in two:
        one.join(100)
        assert one.exitcode == 0
    for out in (tmp_path / "a", tmp_path / "b"):
        same(read(out), whole)
        assert not [*out.glob("**/.*.tmp*")]


def test_other_settings_are_refused_by_name_until_all_is_drawn(trained, tmp_path):
    small = ("micro_batch=16", "batch_size=16")
    found = killed_at(process(0, 1, trained, tmp_path, *small), tmp_path, 3)
    assert 3 <= found < 16
    for setting, words in {
        "sampler.steps=7": r"sampler.steps=6 \(now 7\)",
        "guidance=2": r"guidance.scale=null \(now 2\), guidance.above",
        "label=3": r"labels.asked=balanced \(now 3\), labels.sha256",
        "batch_size=32": r"batch_size=16 \(now 32\)",
        "micro_batch=8": r"micro_batch=16 \(now 8\)",
        "ema=false": r"checkpoint.ema=True \(now False\)",
        "n=255": r"seeds=\['0-255'\] \(now \['0-254'\]\)",
    }.items():
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UserError, match=f"holds {found} shards that were drawn with {words}") as error:
            drawn(trained, tmp_path, *small, setting)
        assert "\n" not in str(error.value)
        assert sorted(tmp_path.rglob("*")) == before


def test_a_second_run_in_a_live_folder_is_refused(trained, tmp_path):
    slow = ("micro_batch=1", "batch_size=1")
    live = process(0, 1, trained, tmp_path, *slow)
    while not shards_in(tmp_path):
        time.sleep(0.001)
    with pytest.raises(UserError, match=f"another process is running in {tmp_path}; choose another out, or wait"):
        drawn(trained, tmp_path, *slow)
    live.kill()
    live.join()


def noise(out, n=10, size=4):
    """Shards that are all there, and what they hold."""
    images = np.random.default_rng(0).integers(0, 256, (n, 3, 3, 1), np.uint8)
    shards = Shards(out, n, size, (3, 3, 1))
    shards.claim({"a": 1}, {"by": "me"}, first=True)
    for k in range(len(shards)):
        shards.write(k, images[shards.rows(k)])
    return shards, images


@pytest.mark.parametrize("n", [8, 10])
def test_shards_make_up_the_whole(tmp_path, n):
    shards, images = noise(tmp_path, n)
    assert Shards(tmp_path, n, 4, (3, 3, 1)).done() == n
    with shards.gathered() as (file, found, sha256):
        assert np.array_equal(found, images)
        assert np.array_equal(np.load(file), images)
    assert sha256 != ""
    shards.path(0).unlink()
    assert Shards(tmp_path, n, 4, (3, 3, 1)).done() == n - 4
    shards.path(len(shards) - 1).unlink()
    assert Shards(tmp_path, n, 4, (3, 3, 1)).done() == {8: 0, 10: 4}[n]


@pytest.mark.parametrize("left", [0, 5, 127, 130, 128 + 35])
def test_a_torn_shard_counts_for_nothing(tmp_path, left):
    noise(tmp_path)
    file = tmp_path / "shards" / "00001.npy"
    assert file.stat().st_size == 128 + 36
    os.truncate(file, left)
    again = Shards(tmp_path, 10, 4, (3, 3, 1))
    assert [again.is_whole(k) for k in range(3)] == [True, False, True]
    assert again.done() == 6


def test_shards_of_another_shape_count_for_nothing(tmp_path):
    shards, images = noise(tmp_path)
    np.save(shards.path(0), images[:4].astype(np.float32))
    np.save(shards.path(1), images[:3])
    (shards.folder / ".00002.17.tmp.npy").write_bytes(b"left by a killed process")
    assert Shards(tmp_path, 10, 4, (3, 3, 1)).done() == 2


def test_who_drew_is_added_up(tmp_path):
    shards, _ = noise(tmp_path)
    shards.claim({"a": 1}, {"by": "me"}, first=True)
    shards.claim({"a": 1}, {"by": "you"}, first=False)
    assert shards.made_by() == [{"by": "me"}]
    shards.claim({"a": 1}, {"by": "you"}, first=True)
    assert shards.made_by() == [{"by": "me"}, {"by": "you"}]


def test_settings_without_a_shard_are_no_hindrance(tmp_path):
    shards = Shards(tmp_path, 10, 4, (3, 3, 1))
    shards.claim({"a": 1}, {}, first=True)
    shards.claim({"a": 2}, {}, first=False)
    shards.write(0, np.zeros((4, 3, 3, 1), np.uint8))
    with pytest.raises(UserError, match=r"1 shards that were drawn with a=2 \(now 1\)"):
        shards.claim({"a": 1}, {}, first=True)
    (tmp_path / "shards" / "settings.json").write_text("{")
    with pytest.raises(UserError, match="is not readable"):
        shards.claim({"a": 2}, {}, first=True)


def test_differences_in_words():
    assert differences({"a": 1, "b": {"c": [1]}}, {"b": {"c": [1]}, "a": 1}) == ""
    assert differences({"b": {"c": "x" * 50}}, {"b": {"d": 0}}) == f"b.c={'x' * 37}... (now null), b.d=null (now 0)"
    assert differences({}, dict.fromkeys("abcde", 1)).endswith("c=null (now 1), 2 more")


def test_memory_holds_a_few_at_a_time(tmp_path):
    """24 MB of images are gathered in less than 2."""
    zeros = np.zeros((64, 64, 64, 3), np.uint8)
    shards = Shards(tmp_path, 2000, 64, (64, 64, 3))
    for k in range(len(shards)):
        rows = shards.rows(k)
        shards.write(k, zeros[: rows.stop - rows.start])
    tracemalloc.start()
    with shards.gathered() as (_, images, _):
        assert images.nbytes == 2000 * 64 * 64 * 3
        assert tracemalloc.get_traced_memory()[1] < 4 * zeros.nbytes
    tracemalloc.stop()
