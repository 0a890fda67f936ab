"""What the runs of a sweep have in common, by which W&B groups them."""

from pathlib import Path


def sweep_group(folder: Path) -> str:
    """The last two parts of a multirun's folder: 2026-11-27/09-30-00."""
    return "/".join(folder.absolute().parts[-2:])[-128:]  # W&B takes 128 letters
