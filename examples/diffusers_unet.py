"""diffusers' UNet2DModel on 4,000 digits of 16 x 16, with and without drop-in conditioning: equal images and noise."""

import argparse
from contextlib import nullcontext
from pathlib import Path

import diffusers
import numpy as np
import torch

import lorafusion as lf
from lorafusion import pictures
from lorafusion.data.mnist_5k import Mnist5k
from lorafusion.metrics.digits import Digits

parser = argparse.ArgumentParser(description=__doc__)
for setting in ("steps=400", "seeds=1", "width=16", "samples=128", "batch=64"):
    parser.add_argument("--" + setting.split("=")[0], type=int, default=setting.split("=")[1])
parser.add_argument("--out", type=Path, default=Path("outputs/diffusers_unet"))
args = parser.parse_args()
records = [r for split in ("train", "test") for r in Mnist5k().records(split)]  # 4,000 and 1,000 digits, 28 x 28
padded = np.pad([r.image for r in records], ((0, 0), (2, 2), (2, 2)))
digits = padded.reshape(-1, 1, 16, 2, 16, 2).mean((3, 5)).astype(np.uint8)  # (5000, 1, 16, 16)
labels, judge = np.array([r.label for r in records]), Digits(args.out)
judge.prepare(digits[:4000], labels[:4000], digits[4000:], labels[4000:])
train = torch.from_numpy(digits[:4000]) / 127.5 - 1
(process := diffusers.DDIMScheduler(1000, timestep_spacing="trailing")).set_timesteps(50)
kinds = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
sizes = {"block_out_channels": (args.width, 2 * args.width), "norm_num_groups": 8}
runs: dict[str, list] = {"plain": [], "drop-in": []}
for name, seed in ((name, seed) for name in runs for seed in range(args.seeds)):
    torch.manual_seed(seed)
    unet, handle, lora = diffusers.UNet2DModel(16, 1, 1, **kinds, **sizes), None, lf.UCLoRA(4, 8, mlp=(32,))
    if name == "drop-in":
        handle = lf.drop_in(unet, lora, targets=lf.SELF_ATTENTION, read_cond=lf.read_cond.diffusers_unet)
    optimizer, losses, draws = torch.optim.AdamW(unet.parameters()), [], torch.Generator().manual_seed(seed)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=args.steps)
    for _ in range(args.steps):
        x0 = train[torch.randint(len(train), (args.batch,), generator=draws)]
        t, eps = torch.randint(1000, (args.batch,), generator=draws), torch.randn(x0.shape, generator=draws)
        loss = (unet(process.add_noise(x0, eps, t), t).sample - eps).square().mean()
        loss.backward(), optimizer.step(), rates.step(), optimizer.zero_grad(), losses.append(loss.item())
    x = torch.randn(args.samples, 1, 16, 16, generator=draws)
    for t in process.timesteps:  # at one noise level the updates are merged into the weights
        with torch.no_grad(), handle.merged(noise=t) if handle else nullcontext():
            x = process.step(unet(x, t).sample, t, x).prev_sample
    pictures.save_png(pictures.grid(drawn := pictures.to_uint8(x)), args.out / f"{name}_{seed}.png", scale=4)
    runs[name].append((np.mean(losses[-args.steps // 5 :]), judge.measure(drawn.transpose(0, 3, 1, 2)).recognised))
    mean, spread = np.mean(runs[name], 0), np.std(runs[name], 0)  # of the loss over the last fifth, and of the share
    print(f"{name:7} loss, recognised: {runs[name][-1]}; mean of {seed + 1} {mean} +- {spread}", flush=True)
