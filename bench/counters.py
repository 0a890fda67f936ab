"""What does not depend on the machine: floating-point operations, and calls of operators that do work."""

from collections.abc import Callable
from dataclasses import dataclass

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Count:
    """flops: of matrix products and convolutions. calls: of aten operators that are not views: a stand-in for kernel
    launches."""

    flops: int
    calls: int


class _Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += not func.is_view and func.__name__.partition(".")[0] not in ("detach", "_unsafe_view")
        return func(*args, **(kwargs or {}))


def count(work: Callable[[], object]) -> Count:
    with FlopCounterMode(display=False) as flops:
        work()
    with _Calls() as calls:
        work()
    return Count(flops.get_total_flops(), calls.calls)
