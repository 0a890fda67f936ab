"""What drop-in UC-LoRA adds to diffusers' UNet2DModel: parameters, operations, operator calls and time.

python bench/dropin.py
"""

import argparse
from collections.abc import Callable
from copy import deepcopy

import abab
import counters
import diffusers
import torch

import lorafusion as lf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("width", 32), ("batch", 4), ("resolution", 32), ("rank", 4), ("bases", 18)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    print(abab.machine())
    torch.manual_seed(0)
    kinds = ("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D")
    widths = (args.width, 2 * args.width)
    base = diffusers.UNet2DModel(
        args.resolution, 3, 3, down_block_types=kinds[0], up_block_types=kinds[1], block_out_channels=widths
    )
    with_lora = deepcopy(base)
    strategy = lf.UCLoRA(rank=args.rank, num_bases=args.bases)
    handle = lf.drop_in(with_lora, strategy, targets=lf.SELF_ATTENTION, read_cond=lf.read_cond.diffusers_unet)
    size, added = (sum(p.numel() for p in part.parameters()) for part in (base, handle))
    print(f"{size:,} parameters; drop-in adds {added:,} ({added / size:.1%}) in {len(handle.targets)} layers")
    x = torch.randn(args.batch, 3, args.resolution, args.resolution)

    def sampling(model) -> Callable[[], torch.Tensor]:
        def work() -> torch.Tensor:
            with torch.no_grad():
                return model(x, 500).sample

        return work

    def training(model) -> Callable[[], torch.Tensor]:
        def work() -> torch.Tensor:
            model.zero_grad()
            loss = model(x, torch.arange(args.batch)).sample.square().mean()
            loss.backward()
            return loss

        return work

    merged = deepcopy(with_lora)
    with lf.handles(merged)["default"].merged(noise=500):
        models = {"base": base, "drop-in": with_lora, "within merged": merged}
        show("sampling: one noise level", {name: sampling(model) for name, model in models.items()})
    show("training step: a level for each sample", {"base": training(base), "drop-in": training(with_lora)})


def show(title: str, variants: dict[str, Callable[[], torch.Tensor]]) -> None:
    for name, work in variants.items():
        cost = counters.count(work)
        print(f"{title}, {name}: {cost.flops / 1e9:.4f} GFLOP, {cost.calls} calls")
    abab.show(title, abab.abab(variants, rtol=1e-3, atol=1e-4))  # a fresh adapter is zero: the same output


if __name__ == "__main__":
    main()
