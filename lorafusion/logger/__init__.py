"""Where numbers and pictures go while training."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

INTERRUPTED = 255  # what Weights & Biases itself reports of ^C


@runtime_checkable
class LogsPictures(Protocol):
    """A logger that shows pictures too."""

    def log_picture(self, name: str, picture: UInt8[np.ndarray, "H W C"], nimg: int) -> None:
        """nimg: images seen."""
        ...


@runtime_checkable
class Closes(Protocol):
    """A logger that wants to know how a job ended: 0 well, else as the exit code of its process."""

    def close(self, exit_code: int) -> None: ...


@contextmanager
def closing(loggers: Sequence[Any], ended_well: Callable[[], int]) -> Iterator[None]:
    """Whatever ends the block, the loggers are told how it ended; the next job of a sweep then finds them closed.

    ended_well: the exit code where the block raised nothing.
    """
    code = 1
    try:
        yield
        code = ended_well()
    except BaseException as error:
        code = exit_code(error)
        raise
    finally:
        for logger in loggers:
            if isinstance(logger, Closes):
                logger.close(code)


def exit_code(error: BaseException) -> int:
    """Of a process that ends with ``error``. Lightning turns KeyboardInterrupt into SystemExit(1)."""
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 1
