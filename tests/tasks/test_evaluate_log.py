"""Which run an evaluation belongs to, and which group; that it is logged is in test_evaluate_model.py."""

from lorafusion.tasks.evaluate_log import _group, _run_of


def test_a_checkpoint_and_samples_belong_to_their_run(tmp_path):
    run = tmp_path / "sweeps" / "rank" / "3"
    (run / "samples" / "a").mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 0")
    assert _run_of(run / "checkpoints" / "000000000064.ckpt") == run
    assert _run_of(run / "samples" / "a" / "samples.npz") == run
    assert _run_of(run) == run
    assert _run_of(tmp_path / "elsewhere.npz") is None


def test_the_group_is_that_of_the_training(tmp_path):
    run = tmp_path / "sweeps" / "rank" / "3"
    run.mkdir(parents=True)
    assert _group(run, {}) is None
    (run.parent / "multirun.yaml").write_text("")
    assert _group(run, {}) == "sweeps/rank"
    assert _group(run, {"logger": {"wandb": {"group": "mine"}}}) == "mine"
