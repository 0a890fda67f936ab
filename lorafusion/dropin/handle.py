"""The handle on what ``drop_in`` added to a model."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lorafusion.dropin import adapter_file
from lorafusion.dropin.ambient import Ambient, Read
from lorafusion.dropin.given import Given, GivenEmbedding
from lorafusion.dropin.host import Adapter, Host, leave_host, merged
from lorafusion.dropin.read_cond import OwnEmbedding
from lorafusion.dropin.targets import WRAPPED, at, is_added
from lorafusion.lora import JointOmega, LowRank
from lorafusion.sites import Cond

HANDLES = "lorafusion_handles"  # attribute of a model: name -> Handle


class Handle:
    """Made by ``drop_in`` and ``load_adapter``.

    model:    the model.
    name:     of this handle; several handles on one model have different names.
    targets:  names of the layers that have updates.
    config:   what rebuilds the same adapter: plain values.
    """

    def __init__(self, model: nn.Module, name: str, targets: Sequence[str], config: dict[str, Any], read: Read | None):
        self.model, self.name, self.targets, self.config = model, name, tuple(targets), config
        arguments = tuple(inspect.signature(type(model).forward).parameters)[1:]
        self.ambient = Ambient(read, arguments, self.make_cond)
        self.hooks: list[Any] = []

    def parameters(self) -> Iterator[nn.Parameter]:
        """What ``drop_in`` added, to train alone; the model's own ``parameters()`` has these too."""
        yield from (p for _, p in self.named_parameters())

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, module in self._parts():
            yield from ((f"{name}.{key}", p) for key, p in module.named_parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """By the target layers' names; the model's own weights are not in it."""
        return {f"{name}.{key}": value for name, module in self._parts() for key, value in module.state_dict().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Raises ValueError unless names and shapes are exactly this handle's."""
        own = self.state_dict()
        if wrong := sorted(own.keys() ^ state.keys()):
            raise ValueError(f"the adapter is another one: {wrong[0]} is {'missing' if wrong[0] in own else 'unknown'}")
        for key, value in own.items():
            if state[key].shape != value.shape:
                raise ValueError(
                    f"the adapter is another one: {key} is {tuple(state[key].shape)}, here {tuple(value.shape)}"
                )
        for key, value in own.items():
            value.copy_(state[key])

    def save(self, path: str | Path) -> None:
        """Write the adapter, without the model's weights, as safetensors with its configuration in the metadata."""
        adapter_file.save(Path(path), self.state_dict(), self.config)

    def remove(self) -> None:
        """Restore the model exactly as it was. The handle is of no use afterwards."""
        for hook in self.hooks:
            hook.remove()
        for host in self._hosts():
            del host.adapters[self.name]
            leave_host(host)
        handles = getattr(self.model, HANDLES)
        del handles[self.name]
        if not handles:
            delattr(self.model, HANDLES)

    @property
    def scale(self) -> float:
        """Factor on all updates: 1 as trained, 0 silent, more is stronger."""
        return next(iter(self._updates())).strength

    @scale.setter
    def scale(self, value: float) -> None:
        for update in self._updates():
            update.strength = float(value)

    def given(self, **condition: Any) -> AbstractContextManager[None]:
        """Within it, calls of the model have this condition, whatever their arguments say: see ``Given``."""
        return self.ambient.giving(Given(**condition))

    @contextmanager
    def merged(self, **condition: Any) -> Iterator[None]:
        """Within it, every layer computes with one plain weight: the updates at this one condition cost nothing.

        The condition has one row; what calls say of it meanwhile is not read. Nothing is written to the weights, and
        none of them is trained within.
        """
        hosts = self._hosts()
        before = [(host, host.composed) for host in hosts]
        with torch.no_grad():
            composed = self._compose(Given(**condition))
        for host, plain in zip(hosts, composed, strict=True):
            host.composed, self._adapter(host).within = plain, True
        ambient = self.ambient
        ambient.off = True
        try:
            yield
        finally:
            ambient.off = False
            for host, plain in before:
                host.composed, self._adapter(host).within = plain, False

    @torch.no_grad()
    def bake(self, **condition: Any) -> dict[str, Tensor]:
        """The state dict of an untouched model that computes what this one does at one condition: copies, base keys.

        Raises ValueError for a condition of several rows, and for a composed bias on a layer without bias.
        """
        state = {key: value.clone() for key, value in self.model.state_dict().items() if not is_added(key)}
        for target, (weight, bias) in zip(self.targets, self._compose(Given(**condition)), strict=True):
            name = target if f"{target}.weight" in state else target + WRAPPED
            if bias is not None and f"{name}.bias" not in state:
                raise ValueError(f"{name} has no bias to bake the composed bias into; use UCLoRA(bias=False)")
            state |= {f"{name}.weight": weight.clone()} | ({} if bias is None else {f"{name}.bias": bias.clone()})
        return state

    def make_cond(self, model: nn.Module, given: Given) -> Cond:
        """The condition with its embedding, and with what all layers share computed now: a block under activation
        checkpointing may first run without gradients."""
        like = self._like()
        cond = given.cond(like, self.config["num_classes"])
        if self.config["emb_width"] is not None:
            if (ours := self._embedding()) is not None:
                emb = ours(given, cond)
            else:
                read = self.ambient.read
                assert isinstance(read, OwnEmbedding)
                emb = read.embed(model, given).to(like.dtype)
            cond = Cond(cond.noise, cond.step, cond.label, None, emb)
            for update in self._updates():
                if isinstance(update.omega, JointOmega):
                    update.omega(cond)
        return cond

    def _compose(self, given: Given) -> list[tuple[Tensor, Tensor | None]]:
        """Weight and bias of each target with the updates in them."""
        if self.ambient.off:
            raise RuntimeError("this handle is merged already: leave its `with handle.merged(...)` first")
        cond = self.make_cond(self.model, given)
        results = []
        for host in self._hosts():
            weight, bias = host.composed or (host.weight, host.bias)
            for update in self._adapter(host).updates.values():
                assert isinstance(update, LowRank)
                omega = update.omega(cond)
                if len(omega) != 1:
                    raise ValueError(f"merging takes a condition of one row; got {len(omega)}")
                weight, bias = merged(update, weight, bias, omega)
            results.append((weight, bias))
        return results

    def _parts(self) -> Iterator[tuple[str, nn.Module]]:
        for name, host in zip(self.targets, self._hosts(), strict=True):
            yield name, self._adapter(host).updates
        if (ours := self._embedding()) is not None:
            yield "embedding", ours

    def _hosts(self) -> list[Host]:
        hosts = [at(self.model, name) for name in self.targets]
        assert all(isinstance(host, Host) for host in hosts)
        return hosts  # pyright: ignore[reportReturnType]

    def _adapter(self, host: Host) -> Adapter:
        adapter = host.adapters[self.name]
        assert isinstance(adapter, Adapter)
        return adapter

    def _updates(self) -> Iterator[LowRank]:
        for host in self._hosts():
            yield from self._adapter(host).updates.values()  # pyright: ignore[reportReturnType]

    def _embedding(self) -> GivenEmbedding | None:
        return self._adapter(self._hosts()[0]).embedding

    def _like(self) -> Tensor:
        return self._hosts()[0].weight
