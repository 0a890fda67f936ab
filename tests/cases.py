"""Every conditioning strategy in every network, small, in float64: what the contract is checked on.

A new yaml under conf/ is found by its folder; no list of names has to be edited.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lorafusion.conditioning import Conditioning
from lorafusion.sites import Network

CONF = Path(__file__).parents[1] / "conf"

# What keeps a network or a strategy small, by the name of the parameter; names that a yaml lacks are passed over.
# 64 model channels: with fewer, norms of 32 groups would have groups of one channel, which undo any shift.
SMALL: dict[str, Any] = {
    "resolution": 8,
    "channels": 2,
    "widths": [4, 6, 8],
    "model_channels": 64,
    "channel_mult": [1, 1],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "dropout": 0.0,
    "num_steps": 12,
    "num_classes": 3,
    "rank": 2,
    "num_bases": 3,
    "mlp": [16, 8],
}

# Every form of a strategy, by the name of the parameter.
FORMS = {
    "compositional": [True, False],
    "init": ["linear", "random"],
    "bias": [True, False],
    "scale": ["fixed", "learned"],
    "gate": [False, True],
}

FIRST = "nano"  # the cheapest network


@dataclass(frozen=True)
class Case:
    """A network and the strategies in it, by their yamls' names; ``form`` overrides the strategies' parameters."""

    backbone: str
    conv: tuple[str, ...] = ()
    attn: tuple[str, ...] = ()
    form: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return "-".join([self.backbone, *self.conv, *self.attn, *(f"{k}={v}" for k, v in self.form)])

    def build(self, **changes) -> Network:
        """The network alone, with weights that are zero nowhere: at its own init much would be the identity anyway."""
        with float64(seed=0):
            return perturb(instantiate(_small(f"backbone/{self.backbone}", changes)))

    def strategies(self) -> dict[str, list]:
        return {
            kind: [
                instantiate(_small(f"conditioning/{kind}/{name}", dict(self.form))[name])
                for name in getattr(self, kind)
            ]
            for kind in ("conv", "attn")
        }

    def attach(self, net: Network) -> Network:
        with float64(seed=1):
            return Conditioning(**self.strategies()).attach(net)

    def fits(self) -> bool:
        """Whether the strategies find their slots free."""
        try:
            self.attach(self.build())
        except ValueError:
            return False
        return True

    def base(self) -> Network:
        """As ``build``; kept and shared, so copy it before you change it, as the next two."""
        return _base(self)

    def fresh(self) -> Network:
        """Attached to a trained network, itself as it starts."""
        return _fresh(self)

    def trained(self) -> Network:
        """Attached, all weights moved."""
        return _trained(self)


@lru_cache(maxsize=2)
def _base(case: Case) -> Network:
    return case.build()


@lru_cache(maxsize=2)
def _fresh(case: Case) -> Network:
    return case.attach(case.build())


@lru_cache(maxsize=2)
def _trained(case: Case) -> Network:
    with float64(seed=2):
        return perturb(case.attach(case.build()))


def forget() -> None:
    """Build anew: the package has been changed under the networks that are kept."""
    for kept in (_base, _fresh, _trained):
        kept.cache_clear()


def cases(*kinds: str) -> list[Case]:
    """Every network x every strategy of these kinds as its yaml says; on the first network, each of its forms too."""
    found: list[Case] = []
    for backbone, (kind, name) in product(backbones(), _strategies(*kinds)):
        case = replace(Case(backbone), **{kind: (name,)})
        found += [replace(case, form=form) for form in (_forms(kind, name) if backbone == FIRST else [()])]
    return found


def together() -> list[Case]:
    """In every network, LoRAs that share their layers, beside a conditioning of the convolutions."""
    return [Case(backbone, ("scale_shift",), ("time_lora", "class_lora", "uc_lora")) for backbone in backbones()]


def crowded(backbone: str) -> list[Case]:
    """Every strategy in this network, as many together as their slots allow."""
    sets: list[Case] = []
    for kind, name in _strategies("conv", "attn"):
        for i, case in enumerate(sets):
            joined = replace(case, **{kind: (*getattr(case, kind), name)})
            if joined.fits():
                sets[i] = joined
                break
        else:
            sets.append(replace(Case(backbone), **{kind: (name,)}))
    return sets


@cache
def backbones() -> list[str]:
    """The yamls whose small networks differ: a larger sister (iddpm_64) shrinks to the same as the smaller one."""
    distinct = {}
    for name in sorted(_names("backbone"), key=lambda name: name != FIRST):
        distinct.setdefault(str(_small(f"backbone/{name}", {})), name)
    return [*distinct.values()]


def perturb(net: Network) -> Network:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return net


def inputs(net: Network) -> dict[str, Any]:
    """Three samples, each with its own noise level, step, label (real mixtures) and augmentation."""
    g = torch.Generator().manual_seed(3)
    size, dims = SMALL["resolution"], getattr(net, "augment_dim", 0)
    return {
        "x": torch.randn(3, SMALL["channels"], size, size, generator=g, dtype=torch.float64),
        "noise": torch.tensor([0.4, 3.1, -1.7], dtype=torch.float64),
        "step": torch.tensor([0, 11, 5]),
        "label": torch.tensor([[0.0, 1.0, 0.0], [0.3, 0.7, 0.0], [-1.0, 0.5, 2.0]], dtype=torch.float64),
        "augment": torch.randn(3, dims, generator=g, dtype=torch.float64) if dims else None,
    }


def _strategies(*kinds: str) -> list[tuple[str, str]]:
    return [(kind, name) for kind in kinds for name in _names(f"conditioning/{kind}")]


def _names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _small(path: str, changes: Mapping[str, Any]) -> Any:
    """The node of a yaml, with the sizes of SMALL; what it takes from other groups is there, a discrete process too."""
    whole = OmegaConf.create({"it": _composed(path), "data": SMALL, "process": SMALL})
    config: Any = OmegaConf.to_container(whole.it, resolve=True)
    for node in [config, *(v for v in config.values() if isinstance(v, dict))]:
        for name in node.keys() & {*SMALL, *changes}:
            node[name] = {**SMALL, **changes}[name]
    return config


@cache
def _composed(path: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.select(compose(path), path.rpartition("/")[0].replace("/", "."))


def _forms(kind: str, name: str) -> list[tuple]:
    config = _small(f"conditioning/{kind}/{name}", {})[name]
    names = [option for option in FORMS if option in config]
    return [tuple(zip(names, values, strict=True)) for values in product(*(FORMS[option] for option in names))]


@contextmanager
def float64(seed: int) -> Iterator[None]:
    """Builds in float64, from this seed."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_default_dtype(before)
