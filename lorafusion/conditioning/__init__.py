"""Conditioning: which strategies enter a network, and the one walk that attaches them."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

from lorafusion.lora import join_omegas
from lorafusion.sites import AttnSite, ConvSite, Network

N = TypeVar("N", bound=Network)


class Strategy(Protocol):
    """A plain class with hyper-parameters that knows how to enter one kind of site.

    needs_emb:  whether what it attaches reads ``cond.emb``; the shared embedding is built only if something does.

    Where it cannot work it says so in ``refuses``, rules.py's table of conditions on its settings and on the network's
    ``num_steps`` and ``num_classes``, and begins ``attach`` with ``site.allow(self)``: the command line reads it too.
    """

    needs_emb: bool

    def attach(self, site: Any) -> None: ...


class Conditioning:
    """The strategies of a network's convolution and attention sites; empty = that kind of site is unconditioned.

    conv, attn:  strategies, as a list or as the mapping name -> strategy that a config gives.
    """

    def __init__(
        self,
        conv: Iterable[Strategy] | Mapping[str, Strategy] = (),
        attn: Iterable[Strategy] | Mapping[str, Strategy] = (),
    ):
        self.conv, self.attn = ([*(s.values() if isinstance(s, Mapping) else s)] for s in (conv, attn))

    def attach(self, net: N) -> N:
        """Attach every strategy to every site of its kind, in place, and return ``net``.

        Raises ValueError where two strategies want one slot, or where a strategy asks for what the network lacks
        (sites of its kind, discrete steps, classes); ``net`` is then half attached and should be dropped.
        """
        like = next(net.parameters())
        sites = [*net.sites()]
        for kind, strategies in ((ConvSite, self.conv), (AttnSite, self.attn)):
            for strategy in strategies:
                entered = [site for site in sites if isinstance(site, kind)]
                if not entered:
                    raise ValueError(
                        f"{type(strategy).__name__} finds no {kind.__name__} in this network; "
                        "give it some (backbone.attn_resolutions) or leave the strategy out (conditioning/attn=[])"
                    )
                for site in entered:
                    strategy.attach(site)
                if strategy.needs_emb:
                    net.add_embedding()
        join_omegas(net)
        return net.to(like)  # what was attached follows the network's device and dtype
