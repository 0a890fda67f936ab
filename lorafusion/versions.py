"""What runs: the packages' versions and the source's git revision, for the record of a run and of a measurement."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("lorafusion", "torch", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy")


def versions() -> dict[str, str | None]:
    return {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}, "git": git_revision()}


def git_revision() -> str | None:
    """Of the source that runs, with '+' where it was changed since; None outside a checkout."""
    here = Path(__file__).parent
    try:
        ask = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"]
        return subprocess.run(ask, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
