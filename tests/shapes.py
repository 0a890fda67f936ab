"""The type checker of the tests: beartype, on the shapes and dtypes of tensors.

The other annotations are left to pyright: a mistyped option (``init="lienar"``) has to reach our own one-line refusal,
which is tested, and a plain Protocol cannot be checked while running.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import beartype
import jaxtyping


def check(fn: Callable) -> Callable:
    """Decorate ``fn`` so that its jaxtyping annotations are checked at every call, and no others."""
    fn.__annotations__ = {name: hint for name, hint in fn.__annotations__.items() if _has_shape(hint)}
    return beartype.beartype(fn)


@contextmanager
def unchecked() -> Iterator[None]:
    """Leaves the checks out. Needed under ``torch.compile(fullgraph=True)``, which cannot trace through beartype.

    Nor can it trace through the wrapper, switched off, around the constructor of a dataclass: that is taken off.
    """
    from lorafusion.sites import Cond

    wrapped = Cond.__init__
    Cond.__init__ = inspect.unwrap(wrapped)
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
        Cond.__init__ = wrapped


def _has_shape(hint: Any) -> bool:
    return (inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray)) or any(map(_has_shape, get_args(hint)))
