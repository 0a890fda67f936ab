"""metrics.csv: one row for every logged step, appended at once, continued by a resumed run.

Lightning's CSVLogger deletes the rows of the run that it resumes.
"""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from lorafusion.files import replacing


class CSV(Logger):
    """folder: of the run. Rows at or after the step where a resumed run starts again are dropped first."""

    def __init__(self, folder: str):
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._columns: list[str] = []
        self._resumed = False

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The run's config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = {"step": step, **{k: repr(float(v)) for k, v in metrics.items() if k != "epoch"}}
        if not self._resumed:
            self._continue_from(step or 0)
        if set(row) <= set(self._columns):
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        else:
            rows = self._rows()
            self._columns += [k for k in row if k not in self._columns]
            self._rewrite([*rows, row])

    def _continue_from(self, step: int) -> None:
        self._resumed = True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if rows := self._rows():
            self._columns = list(rows[0])
            # A row that a killed process left unfinished is among those dropped, or lacks its step.
            self._rewrite([r for r in rows if r["step"] and int(r["step"]) < step])

    def _rows(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
