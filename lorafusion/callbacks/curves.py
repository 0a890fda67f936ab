"""The loss over images seen, as a picture, redrawn at the end of a run."""

import csv
from pathlib import Path

import numpy as np
from lightning import Callback, Trainer

from lorafusion.denoisers.base import Denoiser
from lorafusion.files import replacing


class Curves(Callback):
    """folder: holds metrics.csv; curves.png is written beside it."""

    def __init__(self, folder: str):
        self.folder = Path(folder)

    def on_train_end(self, trainer: Trainer, denoiser: Denoiser) -> None:
        if trainer.is_global_zero and (self.folder / "metrics.csv").is_file():
            draw(self.folder / "metrics.csv", self.folder / "curves.png")


def draw(metrics: Path, picture: Path, smooth: int = 20) -> None:
    """Training loss (each logged step, and its running mean over ``smooth`` of them) and validation loss."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    axes = (figure := Figure(figsize=(7, 4), layout="constrained")).subplots()
    for key, colour in (("loss", "tab:blue"), ("val_loss", "tab:orange")):
        points = [(float(r["nimg"]), float(r[key])) for r in rows if r.get(key)]
        if not points:
            continue
        x, y = np.array(points).T
        if key == "loss":
            axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.7)
            width = max(1, min(smooth, len(y) // 5))
            x, y = x[width - 1 :], np.convolve(y, np.ones(width) / width, "valid")
        axes.plot(x, y, color=colour, label=key, marker="." if len(y) < 30 else None)
    axes.set(xlabel="images seen", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(picture) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
