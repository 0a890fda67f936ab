import csv

from lorafusion.logger.csv import CSV


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_new_columns_are_added_and_values_are_exact(tmp_path):
    logger = CSV(str(tmp_path))
    logger.log_metrics({"loss": 0.1 + 0.2, "nimg": 16.0, "epoch": 0}, step=0)
    logger.log_metrics({"val_loss": 1 / 3}, step=1)
    logger.log_metrics({"loss": 2.0}, step=2)
    assert rows(tmp_path / "metrics.csv") == [
        {"step": "0", "loss": repr(0.1 + 0.2), "nimg": "16.0", "val_loss": ""},
        {"step": "1", "loss": "", "nimg": "", "val_loss": repr(1 / 3)},
        {"step": "2", "loss": "2.0", "nimg": "", "val_loss": ""},
    ]


def test_a_resumed_run_drops_what_it_computes_again(tmp_path):
    first = CSV(str(tmp_path))
    for step in range(10):
        first.log_metrics({"loss": float(step)}, step=step)
    resumed = CSV(str(tmp_path))
    resumed.log_metrics({"loss": 70.0}, step=7)
    resumed.log_metrics({"loss": 80.0, "other": 1.0}, step=8)
    found = rows(tmp_path / "metrics.csv")
    assert [r["step"] for r in found] == [str(s) for s in range(9)]
    assert [float(r["loss"]) for r in found] == [0, 1, 2, 3, 4, 5, 6, 70, 80]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]
