"""Lets torchvision be imported where its compiled library cannot be loaded.

A common breakage on CPU machines: pip pairs a CPU build of torch with PyPI's CUDA build of torchvision. Its compiled
library then fails to load, which torchvision tolerates, but a moment later it registers shape functions for operators
which that library would have defined, and fails with

    RuntimeError: operator torchvision::nms does not exist

and so do torchmetrics, torch_fidelity and lightning, which import it. The cure declares the two missing operators,
before torchvision is imported and only if its library cannot be loaded. Nothing here calls them.
"""

import ctypes
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from pathlib import Path

_LIBRARIES = []  # a torch.library.Library undefines its operators when it is collected


class _TorchvisionFinder(MetaPathFinder):
    """Waits for the first import of torchvision, then cures it and steps aside: torch is not imported before that."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "torchvision":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.origin is not None and not _loads(Path(spec.origin).parent):
            _declare_missing_operators()
        return spec


def install() -> None:
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _TorchvisionFinder())


def _loads(folder: Path) -> bool:
    """Whether torchvision's compiled library can be loaded beside this torch; True where it has none."""
    import torch  # noqa: F401  the library links against torch's own, which must be loaded first

    try:
        for library in folder.glob("_C*.so"):
            ctypes.CDLL(str(library))
    except OSError:
        return False
    return True


def _declare_missing_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")  # beside the same cure taken elsewhere in the program
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARIES.append(library)
