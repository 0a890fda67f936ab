"""Which images a task compares with."""

import numpy as np
from omegaconf import OmegaConf

from lorafusion.tasks.run_data import choose, data_of
from tests.tasks.runs import composed


def test_chosen_images_are_always_the_same_and_of_all_places():
    first = choose(1000, 200)
    assert np.array_equal(first, choose(1000, 200))
    assert len(set(first)) == 200
    assert (np.diff(first) > 0).all()
    assert set(first // 100) == set(range(10))
    assert np.array_equal(choose(1000, 5000), np.arange(1000))


def test_the_data_is_the_runs_own_where_there_is_a_run(tmp_path):
    cfg = composed("data=mnist_5k", f"paths.data_dir={tmp_path / 'here'}")
    file = tmp_path / "run/checkpoints/1.ckpt"
    file.parent.mkdir(parents=True)
    assert data_of(file, cfg).name == "mnist_5k"
    saved = composed("data=synthetic", "paths.data_dir=/nowhere")
    (tmp_path / "run/config.yaml").write_text(OmegaConf.to_yaml(saved, resolve=True))
    assert data_of(file, cfg).name == "synthetic"
    assert data_of(file, cfg).cache_dir == str(tmp_path / "here")
