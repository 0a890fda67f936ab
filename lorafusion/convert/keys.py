"""What the key maps share: strict loading, and putting an attention's fused rows in our order."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from lorafusion.errors import UserError


def load(net: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Fill ``net``, in place, with every tensor of ``state``.

    state:   by our names (see edm.py, iddpm.py).
    source:  where it comes from, for the message.

    Raises UserError, before anything is changed, where a key is missing, unexpected or of another shape.
    """
    wanted = net.state_dict()
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    reshaped = [
        f"{key} {list(state[key].shape)} for {list(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    faults = (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
    said = "; ".join(f"{len(keys)} {fault}: {first(keys)}" for fault, keys in faults if keys)
    if said:
        raise UserError(f"{source}: these weights do not fit {type(net).__name__} as it is configured: {said}")
    net.load_state_dict(dict(state))


def first(keys: Iterable[str], most: int = 3) -> str:
    keys = [*keys]
    return ", ".join(keys[:most]) + (", ..." if len(keys) > most else "")


def qkv_rows(x: Tensor, dim: int, *, heads: int, fused: str) -> Tensor:
    """Reorder ``dim`` (3 C rows of a fused qkv layer) to ours: q|k|v, each head-major.

    fused:  order of the source, slowest first: 'head q|k|v channel' or 'head channel q|k|v'.
    """
    shape = {"head q|k|v channel": (heads, 3, -1), "head channel q|k|v": (heads, -1, 3)}[fused]
    rows = x.unflatten(dim, shape).movedim(dim + shape.index(3), dim)  # (.., 3, h, C/h, ..)
    return rows.flatten(dim, dim + 2)
