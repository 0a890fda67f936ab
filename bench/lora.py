"""The LoRA layer beside a naive per-sample weight, and beside one pair of matrix products for each base.

python bench/lora.py --batch 32 --tokens 256 --width 256 --num-bases 18 --rank 4
"""

import argparse

import abab
import torch
from torch import Tensor, nn

from lorafusion.lora import LoRALinear, LowRank
from lorafusion.sites import Cond, Linear


class Mixture(nn.Module):
    """A given omega, so that what is timed is the layer."""

    def __init__(self, omega: Tensor):
        super().__init__()
        self.omega = omega

    def forward(self, cond: Cond) -> Tensor:
        return self.omega


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("batch", 32), ("tokens", 256), ("width", 256), ("num-bases", 18), ("rank", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    print(abab.machine())
    torch.manual_seed(0)
    b, n, d, m, r = args.batch, args.tokens, args.width, args.num_bases, args.rank
    update = LowRank(d, 3 * d, rank=r, num_bases=m, omega=Mixture(torch.randn(b, m)))
    nn.init.normal_(update.up, std=0.02)
    layer = LoRALinear(Linear(d, 3 * d))
    layer.updates["timed"] = update
    x, cond = torch.randn(b, n, d), Cond(torch.zeros(b))
    omega, down, up = update.omega(cond), update.down.unflatten(0, (m, r)), update.up.unflatten(1, (m, r))

    def weight_per_sample() -> Tensor:
        delta = torch.einsum("bm,omr,mri->boi", omega, up, down)  # (B, d_out, d_in)
        return torch.baddbmm(layer.bias.expand(b, n, -1), x, (layer.weight + delta).transpose(1, 2))

    def pair_per_base() -> Tensor:
        y = nn.functional.linear(x, layer.weight, layer.bias)
        for i in range(m):
            y = y + omega[:, i, None, None] * (x @ down[i].T @ up[:, i].T)
        return y

    variants = {
        "LoRALinear": lambda: layer(x, cond),
        "a weight for each sample": weight_per_sample,
        "two products for each base": pair_per_base,
        "the dense layer alone": lambda: nn.functional.linear(x, layer.weight, layer.bias),
    }
    alone = variants.pop("the dense layer alone")
    title = f"{b} x {n} tokens, {d} -> {3 * d}, m = {m}, r = {r}"
    with torch.no_grad():
        abab.show(f"{title}: forward", abab.abab(variants, rtol=1e-3, atol=1e-3))
        abab.show(
            f"{title}: forward, what the update adds",
            abab.abab({"dense": alone, "LoRALinear": variants["LoRALinear"]}, check=lambda out, expected: None),
        )
    trained = {name: lambda work=work: _backward(work, layer) for name, work in variants.items()}
    abab.show(f"{title}: forward and backward", abab.abab(trained, rtol=1e-2, atol=1e-2))


def _backward(work, layer: nn.Module) -> Tensor:
    layer.zero_grad()
    work().square().mean().backward()
    return layer.weight.grad.clone()


if __name__ == "__main__":
    main()
