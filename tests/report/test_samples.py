"""Grids at equal images where possible, whole pictures only."""

import base64

import numpy as np
from PIL import Image

from lorafusion.report import samples
from lorafusion.report.groups import grouped
from lorafusion.report.run import load
from tests.report import made_up


def test_the_most_images_that_half_of_the_runs_have():
    assert samples.common([[1, 2, 3], [1, 2, 3], [1]]) == 3
    assert samples.common([[1, 2, 3], [1, 2], [1], [1], []]) == 2
    assert samples.common([[], []]) == 0


def test_a_laggard_shows_its_newest_and_is_marked(tmp_path):
    for name, grids, attn in (("a", (10, 20), "none"), ("b", (10, 20), "ada_ln"), ("c", (10,), "uc_lora")):
        made_up.run(tmp_path / name, grids=grids, attn=attn)
    groups = grouped([load(tmp_path / name, name) for name in "abc"])
    shown = {group.label: [(g.nimg, g.off) for g in made] for group, made in samples.grids(groups)}
    assert shown == {"shift": [(20, False)], "shift + ada_ln": [(20, False)], "shift + uc_lora": [(10, True)]}


def test_the_picture_is_the_file(tmp_path):
    (group,) = grouped([load(made_up.run(tmp_path / "r", grids=(5,)), "r")])
    ((_, (grid,)),) = samples.grids([group])
    kind, _, content = grid.source.partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == (tmp_path / "r/samples/grid_000000000005.png").read_bytes()
    assert (grid.width, grid.height) == (65, 65)


def test_a_large_one_is_packed(tmp_path, monkeypatch):
    folder = made_up.run(tmp_path / "r", grids=(5,))
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    Image.fromarray(noise).save(folder / "samples/grid_000000000005.png")
    (group,) = grouped([load(folder, "r")])
    ((_, (grid,)),) = samples.grids([group])
    assert grid.source.startswith("data:image/webp;base64,")
    assert (grid.width, grid.height) == (600, 600)


def test_half_a_picture_is_named(tmp_path):
    folder = made_up.run(tmp_path / "r", grids=(5,))
    file = folder / "samples/grid_000000000005.png"
    file.write_bytes(file.read_bytes()[:-20])
    (group,) = grouped([load(folder, "r")])
    assert samples.grids([group]) == []
    assert group.first.problems == ["samples/grid_000000000005.png is no whole PNG"]
