"""Tiny models of other libraries, and one of a reader's own; handles whose updates are no longer zero."""

from collections.abc import Callable
from typing import Any

import diffusers
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import lorafusion as lf
from lorafusion.dropin.handle import Handle

UC = {"rank": 2, "num_bases": 3, "mlp": (8,)}


def unet(**settings: Any) -> nn.Module:
    sizes = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4}
    kinds = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    return made(lambda: diffusers.UNet2DModel(8, 1, 1, **sizes, **kinds, **settings))


def unet_condition() -> nn.Module:
    sizes = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4}
    kinds = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "cross_attention_dim": 6}
    kinds |= {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
    return made(lambda: diffusers.UNet2DConditionModel(8, 1, 1, **sizes, **kinds))


def dit() -> nn.Module:
    sizes = {"num_attention_heads": 2, "attention_head_dim": 4, "num_layers": 2, "sample_size": 4, "patch_size": 2}
    more = {"in_channels": 1, "out_channels": 1, "num_embeds_ada_norm": 5, "norm_num_groups": 1}
    return made(lambda: diffusers.DiTTransformer2DModel(**sizes, **more))


def vit() -> nn.Module:
    import timm

    sizes = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 8, "depth": 2, "num_heads": 2}
    return made(lambda: timm.models.VisionTransformer(**sizes, num_classes=3))


def made(make: Callable[[], nn.Module]) -> nn.Module:
    """The same weights every time, none of them zero, evaluating: DiT's dropped labels are drawn."""
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


X, STEPS, LABELS = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)), [1, 500, 999], [0, 4, 2]
CALLS: dict[str, Callable[..., Tensor]] = {
    "unet": lambda model, rows=slice(None), t=None: model(x(rows), steps(rows, t)).sample,
    "unet_condition": lambda model, rows=slice(None), t=None: model(x(rows), steps(rows, t), text(rows)).sample,
    "dit": lambda model, rows=slice(None), t=None: model(x(rows)[..., :4, :4], steps(rows, t), labels(rows)).sample,
}
MODELS = {"unet": unet, "unet_condition": unet_condition, "dit": dit}
PRESETS = {
    "unet": {"targets": lf.SELF_ATTENTION, "read_cond": lf.read_cond.diffusers_unet},
    "unet_condition": {"targets": lf.ALL_ATTENTION, "read_cond": lf.read_cond.diffusers_unet},
    "dit": {"targets": lf.SELF_ATTENTION, "read_cond": lf.read_cond.diffusers_dit},
}


def x(rows: slice = slice(None)) -> Tensor:
    return X.to(torch.get_default_dtype())[rows]


def steps(rows: slice = slice(None), t: int | None = None) -> Tensor:
    return torch.tensor(STEPS if t is None else [t] * len(STEPS))[rows]


def labels(rows: slice = slice(None)) -> Tensor:
    return torch.tensor(LABELS)[rows]


def text(rows: slice = slice(None)) -> Tensor:
    return torch.linspace(-1, 1, 36).view(3, 2, 6)[rows]


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv, self.dense = nn.Conv2d(width, width, 3, padding=1), nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.conv(F.silu(h))
        return h + self.dense(h.flatten(2).transpose(1, 2)).transpose(1, 2).view_as(h).tanh()


class Own(nn.Module):
    """A model that nobody knows. how: 'plain', 'non_reentrant', 'reentrant', 'nested'."""

    def __init__(self, how: str = "plain"):
        super().__init__()
        self.how, self.blocks = how, nn.ModuleList(Block(2) for _ in range(3))
        self.taps: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        h, self.taps = torch.cat((x, x.square()), 1), []
        for block in self.blocks:
            h = self.run(block, h)
            self.taps.append(h)
        return h

    def run(self, block: nn.Module, h: Tensor) -> Tensor:
        if self.how == "plain":
            return block(h)
        if self.how == "nested":
            return checkpoint(lambda h: checkpoint(block, h, use_reentrant=False), h, use_reentrant=False)
        return checkpoint(block, h, use_reentrant=self.how == "reentrant")


def read(call: Any) -> lf.Given:
    return lf.Given(noise=call["t"], label=call.get("y"))


EVERY = r"(conv|dense)$"
STRATEGIES = {
    "uc": lambda: [lf.UCLoRA(**UC)],
    "uc_scaled": lambda: [lf.UCLoRA(**UC, bias=False, scale="learned")],
    "time": lambda: [lf.TimeLoRA(2, 4)],
    "time_of_each_step": lambda: [lf.TimeLoRA(2, compositional=False)],
    "class": lambda: [lf.ClassLoRA(2)],
    "class_table": lambda: [lf.ClassLoRA(2, compositional=True, num_bases=3)],
    "all": lambda: [lf.UCLoRA(**UC), lf.TimeLoRA(2, 4), lf.ClassLoRA(2)],
}


def own(how: str = "plain", strategies: str = "uc") -> tuple[Any, Handle]:
    model = made(lambda: Own(how))
    return model, trained(lf.drop_in, model, strategies, targets=EVERY, read_cond=read)


def trained(drop_in: Callable[..., Handle], model: nn.Module, strategies: str = "uc", **settings: Any) -> Handle:
    """A handle whose updates count."""
    torch.manual_seed(2)
    sizes = {"num_steps": 1000} | ({} if "dit" in type(model).__name__.lower() else {"num_classes": 5})
    handle = drop_in(model, STRATEGIES[strategies](), **{**sizes, **settings})
    return perturb(handle)


def perturb(handle: Handle) -> Handle:
    with torch.no_grad():
        for parameter in handle.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return handle


def close(a: Tensor, b: Tensor, tolerance: float = 1e-11) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
