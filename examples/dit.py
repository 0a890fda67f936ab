"""A diffusers DiT whose base stays frozen: the adapter alone is trained, saved, and loaded into another copy.

python examples/dit.py --steps 50
"""

import argparse
from copy import deepcopy
from pathlib import Path

import diffusers
import torch

import lorafusion as lf

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--out", type=Path, default=Path("outputs/dit"))
args = parser.parse_args()

torch.manual_seed(0)
dit = diffusers.DiTTransformer2DModel(  # stands for a pretrained one: DiTTransformer2DModel.from_pretrained(...)
    num_attention_heads=2, attention_head_dim=8, num_layers=2, sample_size=8, num_embeds_ada_norm=10
).requires_grad_(False)
other = deepcopy(dit)
strategies = [lf.TimeLoRA(rank=4, num_bases=11), lf.ClassLoRA(rank=4)]  # they add up
handle = lf.drop_in(dit, strategies, targets=lf.SELF_ATTENTION, read_cond=lf.read_cond.diffusers_dit, num_steps=1000)
optimizer = torch.optim.AdamW(handle.parameters(), 1e-3)

latents, labels = torch.randn(16, 4, 8, 8), torch.randint(10, (16,))  # yours come from an autoencoder
process = diffusers.DDIMScheduler(1000)
for step in range(args.steps):
    t, eps = torch.randint(1000, (16,)), torch.randn_like(latents)
    out = dit(process.add_noise(latents, eps, t), t, labels).sample[:, :4]  # the other half is the learned variance
    loss = (out - eps).square().mean()
    loss.backward()
    optimizer.step(), optimizer.zero_grad()
    if step % 10 == 0:
        print(f"step {step}: loss {loss.item():.4f}")

handle.save(args.out / "adapter.safetensors")
lf.load_adapter(other, args.out / "adapter.safetensors")
dit.eval(), other.eval()
with torch.no_grad():
    print("same output:", torch.equal(other(latents, t, labels).sample, dit(latents, t, labels).sample))
