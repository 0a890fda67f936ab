"""The condition of the forward pass that is under way, for layers that cannot be handed one.

A model that is not ours cannot pass a condition down, so a hook on its forward sets it and another clears it. A block
under activation checkpointing runs again in the backward pass, long after: then the condition is that of the forward
pass whose graph is being walked, which the number of the autograd node tells. What cannot be told raises.
"""

import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.utils._pytree import tree_leaves

from lorafusion.dropin.given import Given
from lorafusion.sites import Cond

Read = Callable[[Mapping[str, Any]], Given]


@dataclass(eq=False)
class Pass:
    """A forward pass.

    explicit:     what ``handle.given`` said, if it did.
    task:         number of the backward pass that it runs in, as part of a recomputation; -1 = none.
    first, last:  its autograd nodes have numbers above the one, up to the other.
    """

    cond: Cond
    explicit: Given | None
    thread: int
    task: int
    first: int
    last: int = -1

    def made(self, node: Any) -> bool:
        return self.first < node._sequence_nr() <= self.last


@dataclass(eq=False)
class Ambient:
    """read:   a call's arguments by name -> what it gives; None = only ``given`` does.
    names:  of the model's positional arguments.
    make:   model, given -> the condition.
    off:    no layer asks for the condition.
    """

    read: Read | None
    names: tuple[str, ...]
    make: Callable[[nn.Module, Given], Cond]
    off: bool = False
    now: Pass | None = None
    explicit: Given | None = None
    untold: bool = False  # a pass without gradients was told by ``given``: were it recomputed, nobody would know
    past: list[Any] = field(default_factory=list)  # weak references: a pass lives as long as its graph

    def enter(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook."""
        if self.off:
            return
        thread, task = _thread(), _task()
        if self.now is not None and self.now.thread != thread:
            raise RuntimeError("two threads run one model with a drop-in condition at once; give each its own copy")
        explicit = self.explicit if task == -1 else self._explicit_again()
        if explicit is None and self.read is None:
            raise RuntimeError("no condition: this model has no read_cond; call it within `with handle.given(...)`")
        given = explicit
        if given is None:
            assert self.read is not None
            given = self.read({**dict(zip(self.names, args, strict=False)), **kwargs})
        self.now = Pass(self.make(model, given), explicit, thread, task, _number())

    def leave(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Forward hook, called after a failure too."""
        done = self.now
        if done is None or done.thread != _thread():
            return
        self.now = None
        if torch.compiler.is_compiling():
            return
        if not torch.is_grad_enabled():
            self.untold |= done.explicit is not None
            return
        done.last = _number()
        nodes = [leaf.grad_fn for leaf in tree_leaves(out) if isinstance(leaf, Tensor) and leaf.grad_fn is not None]
        self.past = [ref for ref in self.past if ref() is not None]
        for node in filter(done.made, nodes):  # an older one may be the condition's: a cycle would never be freed
            node.metadata.setdefault("lorafusion", []).append(done)  # pyright: ignore  the graph keeps the pass alive
        if nodes:
            self.past.append(weakref.ref(done))

    def cond(self) -> Cond:
        """Raises RuntimeError where no forward pass is under way, or a recomputed one cannot be told."""
        if self.now is not None and self.now.task == _task():
            return self.now.cond
        node = torch._C._current_autograd_node()
        if node is None:
            raise RuntimeError(
                "a layer with a drop-in condition was called outside its model's forward, so its condition is not "
                "known; call the model itself"
            )
        done = self._pass_of(node)
        if done is None:
            raise RuntimeError(
                "a checkpointed block is recomputed and its condition cannot be told; use "
                "torch.utils.checkpoint.checkpoint(..., use_reentrant=False) in the model's forward and keep its output"
            )
        return done.cond

    def _explicit_again(self) -> Given | None:
        """What ``given`` said when the model, all of which is being recomputed, first ran."""
        done = self._pass_of(torch._C._current_autograd_node())
        if done is None and (self.untold or self.explicit is not None):
            raise RuntimeError(
                "the model is recomputed and `handle.given(...)` may have told its condition; use use_reentrant=False"
            )
        return None if done is None else done.explicit

    def _pass_of(self, node: Any) -> Pass | None:
        """The pass that made ``node``. A reentrant checkpoint's is not told: the nodes that it makes as it recomputes
        are numbered by whatever thread runs it."""
        if node is None or isinstance(node, BackwardCFunction):
            return None
        found = [done for ref in self.past if (done := ref()) is not None and done.made(node)]
        return found[0] if len(found) == 1 else None  # threads number their nodes apart, so that two may have made it

    @contextmanager
    def giving(self, given: Given):
        before, self.explicit = self.explicit, given
        try:
            yield
        finally:
            self.explicit = before

    def __getstate__(self) -> dict[str, Any]:
        """A copy starts with no pass under way."""
        return {**self.__dict__, "now": None, "explicit": None, "off": False, "untold": False, "past": []}


def _thread() -> int:
    return 0 if torch.compiler.is_compiling() else threading.get_ident()


def _task() -> int:
    """Number of the backward pass under way, -1 = none."""
    return -1 if torch.compiler.is_compiling() else torch._C._current_graph_task_id()


def _number() -> int:
    """Of the next autograd node of this thread; they count upwards."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return -1
    node = torch.empty((), requires_grad=True).clone().grad_fn
    assert node is not None
    return node._sequence_nr()
