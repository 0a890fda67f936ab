"""lorafusion: LoRA conditioning for diffusion models.

    import lorafusion as lf
    handle = lf.drop_in(unet, lf.UCLoRA(), targets=lf.SELF_ATTENTION, read_cond=lf.read_cond.diffusers_unet)

Importing this package imports neither torch nor lightning, so that the command line can answer at once; what drop-in
needs is imported when it is first named.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lorafusion import torchvision_cure

if TYPE_CHECKING:
    from lorafusion.conditioning.attn.class_lora import ClassLoRA as ClassLoRA
    from lorafusion.conditioning.attn.time_lora import TimeLoRA as TimeLoRA
    from lorafusion.conditioning.attn.uc_lora import UCLoRA as UCLoRA
    from lorafusion.dropin import drop_in as drop_in
    from lorafusion.dropin import handles as handles
    from lorafusion.dropin import load_adapter as load_adapter
    from lorafusion.dropin import read_cond as read_cond
    from lorafusion.dropin.given import Given as Given
    from lorafusion.dropin.targets import ALL_ATTENTION as ALL_ATTENTION
    from lorafusion.dropin.targets import CROSS_ATTENTION as CROSS_ATTENTION
    from lorafusion.dropin.targets import SELF_ATTENTION as SELF_ATTENTION
    from lorafusion.dropin.targets import TIMM_ATTENTION as TIMM_ATTENTION

__version__ = "0.1.0"

_HOMES = {
    "drop_in": "dropin",
    "load_adapter": "dropin",
    "handles": "dropin",
    "read_cond": "dropin",
    "Given": "dropin.given",
    "UCLoRA": "conditioning.attn.uc_lora",
    "TimeLoRA": "conditioning.attn.time_lora",
    "ClassLoRA": "conditioning.attn.class_lora",
    "SELF_ATTENTION": "dropin.targets",
    "CROSS_ATTENTION": "dropin.targets",
    "ALL_ATTENTION": "dropin.targets",
    "TIMM_ATTENTION": "dropin.targets",
}

torchvision_cure.install()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
