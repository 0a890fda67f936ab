"""Reads the pickle language without the power to run anything.

A machine of its own over ``pickletools.genops``: it builds numbers, strings, tuples, lists, dicts and sets; every name
that a pickle asks for is either refused or replaced by a builder of ours, chosen by the caller. ``pickle.Unpickler``
with its own ``find_class`` stops code as well, but not waste: it sizes its memo by a number in the file (ten bytes can
ask for gigabytes) and hashes any nest of tuples that stands as a key (60 of them take for ever).
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

MAX_OPERATIONS = 300_000  # in one file, done in half a second; EDM's pickles have about 200 for each tensor
_MAX_INT_KEY = 1 << 31  # below it no two ints share a hash


class Refused(Exception):
    """Why a file is not read; half a sentence that follows its name."""


class Stream(Protocol):
    """A file, an mmap or a BytesIO."""

    def read(self, n: int, /) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...


class Budget:
    """What reading one file may cost, over all pickles in it."""

    def __init__(self, size: int):
        """size:  bytes in the file."""
        self.operations, self.bytes = MAX_OPERATIONS, size

    def storage(self, size: int) -> None:
        self.bytes -= size
        if self.bytes < 0:
            raise Refused("its storages are larger than the file")


@dataclass
class Inert:
    """An object in a pickle: its class by name, and its state. It does nothing."""

    name: str
    state: Any = None


@dataclass(frozen=True)
class Named:
    """A class or function that a pickle names. build: what stands for a call of it."""

    name: str
    build: Callable[..., Any]


# (module, name) -> the builder that stands for it, or a constant; raises Refused for what is not on the list.
Find = Callable[[str, str], Any]
# persistent id -> what it stands for
Persistent = Callable[[Any], Any]


def load(stream: Stream, budget: Budget, find: Find, persistent: Persistent | None = None) -> Any:
    """The value of the pickle that starts at the stream's position; the stream is left behind it.

    Raises Refused for what ``find`` refuses, for what is over ``budget``, for persistent ids where none are expected,
    and for operations that the pickles of networks do not hold; ValueError, IndexError, KeyError or TypeError where the
    pickle is broken.
    """
    machine = _Machine(find, persistent)
    for opcode, argument, _ in pickletools.genops(stream):  # pyright: ignore[reportArgumentType]
        budget.operations -= 1
        if budget.operations < 0:
            raise Refused(f"its pickle has more than {MAX_OPERATIONS:,} operations")
        step = _STEPS.get(opcode.name)
        if step is None:
            raise Refused(f"its pickle uses the operation {opcode.name}")
        step(machine, argument)
    (value,) = machine.stack
    return value


class _Machine:
    def __init__(self, find: Find, persistent: Persistent | None):
        self.find, self.persistent = find, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.named: dict[tuple[str, str], Any] = {}

    def to_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise Refused("its pickle names something by what is no name")
        if (module, name) not in self.named:
            self.named[module, name] = self.look_up(module, name)
        self.stack.append(self.named[module, name])

    def look_up(self, module: str, name: str) -> Any:
        if not module.replace(".", "_").isidentifier() or not name.isidentifier():
            raise Refused(f"its pickle asks for {module[:80]}.{name[:80]}, a dotted name")
        found = self.find(module, name)
        return Named(f"{module}.{name}", found) if callable(found) else found

    def global_(self, both: str) -> None:
        module, _, name = both.partition(" ")
        self.name(module, name)

    def stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.name(module, name)

    def call(self, _: None) -> None:
        """REDUCE and NEWOBJ."""
        arguments, named = self.stack.pop(), self.stack.pop()
        if type(named) is not Named or type(arguments) is not tuple:
            raise Refused("its pickle calls something that is no class or function")
        self.stack.append(named.build(*arguments))

    def build(self, _: None) -> None:
        state, built = self.stack.pop(), self.stack[-1]
        if type(built) is Inert:
            built.state = state
        elif type(built) is not dict:  # an OrderedDict's attributes, which nobody reads
            raise Refused("its pickle sets the state of something that has none")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise Refused("its pickle fills a dict that is none")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_plain(key)] = value

    def append_items(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise Refused("its pickle fills a list that is none")
        self.stack[-1].extend(items)

    def add_items(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not set:
            raise Refused("its pickle fills a set that is none")
        self.stack[-1].update(map(_plain, items))

    def make_dict(self, items: list[Any]) -> None:
        self.stack.append({})
        self.set_items(items)

    def last(self, n: int) -> list[Any]:
        if len(self.stack) < n:
            raise Refused("its pickle takes from an empty stack")
        items = self.stack[-n:]
        del self.stack[-n:]
        return items

    def persistent_id(self, _: None) -> None:
        if self.persistent is None:
            raise Refused("its pickle holds persistent ids")
        self.stack.append(self.persistent(self.stack.pop()))


def _plain(key: Any) -> Any:
    """A key whose hash costs nothing."""
    if type(key) is str or (type(key) is int and abs(key) < _MAX_INT_KEY):
        return key
    raise Refused("its pickle has a key that is neither a string nor a small number")


def _push(value: Any) -> Callable[[_Machine, Any], None]:
    return lambda m, _: m.stack.append(value)


_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda m, _: None),
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        lambda m, value: m.stack.append(value),
    ),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"), lambda m, value: m.stack.append(value)),
    "NONE": _push(None),
    "NEWTRUE": _push(True),
    "NEWFALSE": _push(False),
    "EMPTY_TUPLE": _push(()),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_SET": lambda m, _: m.stack.append(set()),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.to_mark(),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.to_mark())),
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.last(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.last(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.last(3))),
    "LIST": lambda m, _: m.stack.append(m.to_mark()),
    "DICT": lambda m, _: m.make_dict(m.to_mark()),
    "APPEND": lambda m, _: m.append_items(m.last(1)),
    "APPENDS": lambda m, _: m.append_items(m.to_mark()),
    "SETITEM": lambda m, _: m.set_items(m.last(2)),
    "SETITEMS": lambda m, _: m.set_items(m.to_mark()),
    "ADDITEMS": lambda m, _: m.add_items(m.to_mark()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda m, index: m.memo.__setitem__(index, m.stack[-1])),
    "MEMOIZE": lambda m, _: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, index: m.stack.append(m.memo[index])),
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.call),
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent_id,
}
