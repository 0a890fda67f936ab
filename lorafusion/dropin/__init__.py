"""LoRA conditioning in a model that is not ours, in one call.

    handle = drop_in(unet, UCLoRA(rank=4, num_bases=18), targets=SELF_ATTENTION, read_cond=read_cond.diffusers_unet)

Choi et al., TMLR 2024: a fresh adapter changes no output; the attention layers then learn how their weights should
depend on the noise level and the class.
"""

import pkgutil
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

import lorafusion.conditioning.attn as attn
from lorafusion.conditioning import Strategy
from lorafusion.dropin import adapter_file
from lorafusion.dropin.ambient import Read
from lorafusion.dropin.given import GivenEmbedding
from lorafusion.dropin.handle import HANDLES, Handle
from lorafusion.dropin.host import Adapter, Dense, DenseSite, become_host
from lorafusion.dropin.read_cond import KNOWN, OwnEmbedding
from lorafusion.dropin.targets import Targets, at, find
from lorafusion.errors import UserError
from lorafusion.lora import join_omegas

Found = Sequence[tuple[str, Dense]]


def drop_in(
    model: nn.Module,
    strategies: Strategy | Sequence[Strategy],
    *,
    targets: Targets,
    read_cond: Read | None = None,
    num_steps: int | None = None,
    num_classes: int | None = None,
    text_width: int | None = None,
    emb_width: int = 256,
    noise_scale: float = 1.0,
    name: str = "default",
) -> Handle:
    """Add conditional low-rank updates to dense layers of ``model``, in place; what it computes does not change yet.

    strategies:   UCLoRA, TimeLoRA, ClassLoRA, one or several.
    targets:      regex found in full names of ``nn.Linear`` and ``nn.Conv2d`` layers, or ``(name, module) -> bool``.
    read_cond:    a call's arguments by name -> ``Given``; a known model's (``read_cond.diffusers_unet``,
                  ``diffusers_dit``); None = ``handle.given(...)`` alone says the condition.
    num_steps:    T, for TimeLoRA: steps are 0 .. T-1.
    num_classes:  K, where the model does not tell.
    text_width:   of a pooled text embedding, which our embedding then reads too.
    emb_width:    of our embedding, made where the strategies read one and the model has none that is known.
    noise_scale:  multiplies the noise level before that embedding.
    name:         of the handle.

    Raises ValueError where no layer matches, a layer cannot be updated, the name is taken, or a strategy lacks what it
    reads; the model is then as it was.
    """
    strategies = [*strategies] if isinstance(strategies, Sequence) else [strategies]
    if not strategies:
        raise ValueError("drop_in needs a strategy: UCLoRA, TimeLoRA or ClassLoRA")
    taken = getattr(model, HANDLES, {})
    if name in taken or not name.isidentifier():
        raise ValueError(f"name={name!r}: {'there is such a handle already' if name in taken else 'not an identifier'}")
    found = find(model, targets)
    own = read_cond if isinstance(read_cond, OwnEmbedding) else None
    if num_classes is None and own is not None:
        num_classes = own.num_classes(model)
    own_width = None if own is None or text_width is not None else own.width(model)
    config = {
        "strategies": [{"class": type(s).__name__, **vars(s)} for s in strategies],
        "targets": [name for name, _ in found],
        "read_cond": next((known for known, reader in KNOWN.items() if reader is read_cond), None),
        "num_steps": num_steps,
        "num_classes": num_classes,
        "text_width": text_width,
        "emb_width": (own_width or emb_width) if any(strategy.needs_emb for strategy in strategies) else None,
        "noise_scale": noise_scale,
    }
    handle = Handle(model, name, config["targets"], config, read_cond)
    adapters = _adapters(handle, found, strategies)
    if config["emb_width"] is not None and own_width is None:
        embedding = GivenEmbedding(emb_width, num_classes, text_width, noise_scale)
        adapters[0].embedding = embedding.to(found[0][1].weight)
    _enter(handle, found, adapters)
    return handle


def _adapters(handle: Handle, found: Found, strategies: Sequence[Strategy]) -> list[Adapter]:
    config = handle.config
    sizes = {"emb_width": config["emb_width"] or 0} | {key: config[key] for key in ("num_steps", "num_classes")}
    adapters = []
    for target, layer in found:
        adapters.append(Adapter(layer, handle.ambient))
        for strategy in strategies:
            try:
                strategy.attach(DenseSite(target, adapters[-1], **sizes))
            except (ValueError, TypeError) as error:
                hint = "; drop_in is told by num_steps=, num_classes=" if isinstance(error, ValueError) else ""
                raise ValueError(f"{target}: {error}{hint}") from error
    join_omegas(nn.ModuleList(adapters))
    return adapters


def _enter(handle: Handle, found: Found, adapters: list[Adapter]) -> None:
    """Nothing here fails: a model is changed as a whole or not at all."""
    model = handle.model
    for (_, layer), adapter in zip(found, adapters, strict=True):
        become_host(layer).adapters[handle.name] = adapter.train(layer.training)
    handle.hooks = [
        model.register_forward_pre_hook(handle.ambient.enter, with_kwargs=True),
        model.register_forward_hook(handle.ambient.leave, with_kwargs=True, always_call=True),
    ]
    setattr(model, HANDLES, {**getattr(model, HANDLES, {}), handle.name: handle})


def handles(model: nn.Module) -> Mapping[str, Handle]:
    """The handles on a model by name: on a copy of a model, the copy's."""
    return dict(getattr(model, HANDLES, {}))


def load_adapter(model: nn.Module, path: str | Path, *, read_cond: Read | None = None, name: str = "default") -> Handle:
    """Add a saved adapter to a model like the one that it was trained on.

    read_cond:  as ``drop_in``; a known model's is remembered by the file.

    Raises UserError for a file that cannot be read, ValueError where the model's layers differ in name or shape; the
    model is then as it was.
    """
    tensors, config = adapter_file.read(Path(path))
    try:
        strategies = [_strategy(**settings) for settings in config["strategies"]]
        wanted = [str(target) for target in config["targets"]]
        reader = read_cond or (KNOWN[config["read_cond"]] if config["read_cond"] else None)
        sizes = {key: config[key] for key in ("num_steps", "num_classes", "text_width", "noise_scale")}
        sizes["emb_width"] = config["emb_width"] or 0
        _check_layers(model, wanted, tensors)
        names = set(wanted)
        handle = drop_in(model, strategies, targets=lambda n, _: n in names, read_cond=reader, name=name, **sizes)
    except ValueError as error:
        raise ValueError(f"adapter {path}: {error}") from error
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(f"adapter {path} does not say how it was made: {_line(error)}") from error
    try:
        handle.load_state_dict(tensors)
    except ValueError as error:
        handle.remove()
        raise ValueError(f"adapter {path}: {error}") from error
    return handle


def _check_layers(model: nn.Module, wanted: list[str], tensors: Mapping[str, Any]) -> None:
    for name in wanted:
        try:
            layer = at(model, name)
        except AttributeError:
            layer = None
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            raise ValueError(f"it is of another model: it updates {name}, which is no dense layer here")
        out, inside = layer.weight.flatten(1).shape
        for key, value in tensors.items():
            if key.startswith(name + ".") and key.endswith((".up", ".down")) and value.ndim == 2:
                mine, theirs = (out, value.shape[0]) if key.endswith(".up") else (inside, value.shape[1])
                if mine != theirs:
                    raise ValueError(f"it is of another model: {name} is {out} x {inside} here, {key} has {theirs}")


def _strategy(**settings: Any) -> Strategy:
    """An instance of a strategy of ours, and of nothing else, by the name of its class."""
    kind = settings.pop("class")
    for file in pkgutil.iter_modules(attn.__path__, attn.__name__ + "."):
        found = vars(import_module(file.name)).get(kind)
        if isinstance(found, type) and found.__module__ == file.name and hasattr(found, "attach"):
            return found(**settings)  # pyright: ignore[reportReturnType]
    raise KeyError(kind)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
