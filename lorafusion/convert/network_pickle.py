"""What the pickles of networks may name, and a pickled network as a state dict.

NVlabs' pickles reduce each object to torch_utils.persistence._reconstruct_persistent_obj({type, version, module_src,
class_name, state}), module_src being source code that the original compiles. Here only the state is kept.
"""

from typing import Any

from torch import Tensor

from lorafusion.convert.safe_pickle import Budget, Find, Inert, Refused
from lorafusion.convert.torch_file import rebuild_parameter, rebuild_tensor, storage_from_bytes

_MAX_MODULES, _MAX_DEPTH = 5_000, 32  # published networks have below 1,000
_NUMERIC = {*"fiub"}  # kinds of numpy types


def finder(budget: Budget) -> Find:
    """(module, name) -> the inert builder that stands for it; raises Refused for all that is not on the list."""

    def find(module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return lambda data: storage_from_bytes(data, budget)
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module.startswith(("torch.nn.modules.", "training.")):
            return lambda *_: Inert(f"{module}.{name}")
        raise Refused(f"its pickle asks for {module}.{name}, which no network needs")

    return find


def named_tensors(network: Inert) -> dict[str, Tensor]:
    """Parameters and persistent buffers of a pickled nn.Module, by the names of its state dict."""
    found: dict[str, Tensor] = {}
    pending: list[tuple[tuple[str, ...], Any]] = [((), network)]
    for _ in range(_MAX_MODULES):
        if not pending:
            return found
        path, module = pending.pop()
        state = module.state if type(module) is Inert else None
        if type(state) is not dict or len(path) > _MAX_DEPTH:
            raise Refused(f"its network is no module, or too deep a nest of them, at {'.'.join(path)[:80]!r}")
        transient = state.get("_non_persistent_buffers_set") or ()
        parameters, buffers, modules = (_entries(state, key) for key in ("_parameters", "_buffers", "_modules"))
        buffers = {name: value for name, value in buffers.items() if name not in transient}
        for name, value in (*parameters.items(), *buffers.items()):
            if isinstance(value, Tensor):
                found[".".join((*path, name))] = value
            elif value is not None:
                raise Refused(f"its {'.'.join((*path, name))[:80]} is no tensor")
        pending += [((*path, name), child) for name, child in reversed(modules.items()) if child is not None]
    raise Refused(f"its network has more than {_MAX_MODULES:,} modules")


def _entries(state: dict, key: str) -> dict[str, Any]:
    entries = state.get(key, {})
    if type(entries) is not dict or not all(type(name) is str for name in entries):
        raise Refused(f"its {key} are no dict of names")
    return entries


def _persistent(meta: Any) -> Inert:
    if type(meta) is not dict or meta.get("type") != "class" or type(meta.get("class_name")) is not str:
        raise Refused("its persistent object is none")
    return Inert(meta["class_name"], meta.get("state"))


def _empty_dict() -> dict:
    return {}


def _set(items: list | tuple = ()) -> set[str]:
    if type(items) is not list or not all(type(item) is str for item in items):
        raise Refused("it has a set of other things than names")
    return set(items)


def _size(items: tuple) -> tuple:
    return items


def _encode(text: str, code: str) -> bytes:
    """How protocol 2 writes bytes."""
    if type(text) is not str or code != "latin1":
        raise Refused("it has bytes that are none")
    return text.encode("latin-1")


def _dtype(code: str, align: bool = False, copy: bool = False) -> Inert:
    if type(code) is not str or code.lstrip("<>=|")[:1] not in _NUMERIC:
        raise Refused("it has a numpy type that is no number's")
    return Inert("numpy.dtype")


def _scalar(dtype: Inert, data: bytes) -> Inert:
    if type(dtype) is not Inert or dtype.name != "numpy.dtype" or type(data) is not bytes:
        raise Refused("it has a numpy number that is none")
    return Inert("numpy.scalar")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch", "Size"): _size,
    ("collections", "OrderedDict"): _empty_dict,
    ("dnnlib.util", "EasyDict"): _empty_dict,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}
