"""DINOv2's vision transformers: class-token features of natural images, for FD-DINOv2, and no FID.

Oquab et al. 2023, "DINOv2: learning robust visual features without supervision"; Stein et al. 2023 found its Frechet
distance nearer to what people see than FID. Files of weights are read as Meta publishes them. torch-fidelity has the
same extractor, but cannot be given a file: it loads code and weights by torch.hub, from the network.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lorafusion.errors import UserError
from lorafusion.metrics.extractor import weights_file
from lorafusion.metrics.extractor.inception import resized
from lorafusion.metrics.features import Extracted

VARIANTS = {"s": (384, 12), "b": (768, 12), "l": (1024, 24)}  # width, blocks
SIDE, PATCH, HEAD = 224, 14, 64
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's, of 0 .. 255
FILTERS = {"bilinear": "TensorFlow 1 bilinear to 224", "bicubic": "antialiased bicubic to 224"}


class Attention(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)  # (B, heads, T, 64) each
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self.fc2(F.gelu(self.fc1(x)))


class Scale(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(width, eps=1e-6), Attention(width), Scale(width)
        self.norm2, self.mlp, self.ls2 = nn.LayerNorm(width, eps=1e-6), MLP(width), Scale(width)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """Named as in the published files. positions: rows of its table, 1 + the square of a side."""

    def __init__(self, width: int, blocks: int, positions: int):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, stride=PATCH)})
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """The class token, normed."""
        patches = self.patch_embed["proj"](x)  # (B, D, h, w)
        tokens = torch.cat((self.cls_token.expand(len(x), -1, -1), patches.flatten(2).transpose(1, 2)), dim=1)
        return self.norm(self.blocks(tokens + self.positions(patches.shape[-1])))[:, 0]

    def positions(self, side: int) -> Float[Tensor, "1 T D"]:
        """Of the class and of side x side patches; the table is one of 37 x 37, made smaller as the original does."""
        first, rest = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        old = round(rest.shape[1] ** 0.5)
        if old == side:
            return self.pos_embed
        grid = rest.transpose(1, 2).unflatten(2, (old, old))
        factor = (side + 0.1) / old  # the original's, against a side that rounds down; it moves the samples a little
        small = F.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
        return torch.cat((first, small.flatten(2).transpose(1, 2)), dim=1)


class DINOv2:
    """weights:  Meta's file; null = where torch.hub keeps it. It is not downloaded.
    variant:  s, b or l; FD-DINOv2 is of l.
    filter:   of resizing to 224 px: bilinear as torch-fidelity has it, bicubic (antialiased) as EDM2 has it.
    block:    images at once; the last bits of the features depend on it.

    Raises ValueError for another variant or filter.
    """

    def __init__(self, weights: str | None = None, variant: str = "l", filter: str = "bilinear", block: int = 32):
        for key, value, known in (("variant", variant, VARIANTS), ("filter", filter, FILTERS)):
            if value not in known:
                raise ValueError(f"metric.extractor.{key}={value}: one of {', '.join(known)}")
        self.weights, self.variant, self.filter, self.block = weights, variant, filter, block
        self.name = "dinov2" if variant == "l" else f"dinov2_{variant}"
        self.resize = FILTERS[filter]

    def load(self, device: torch.device) -> None:
        model = f"dinov2_vit{self.variant}14"
        url = f"https://dl.fbaipublicfiles.com/dinov2/{model}/{model}_pretrain.pth"
        path = weights_file.find(self.weights, f"{model}_pretrain.pth", url)
        tensors = {name: value for name, value in weights_file.read(path).items() if name != "mask_token"}
        table = tensors.get("pos_embed", torch.zeros(0))
        if table.ndim != 3 or round((table.shape[1] - 1) ** 0.5) ** 2 != table.shape[1] - 1:
            raise UserError(f"metric.weights={path} does not fit {model}: it has no pos_embed of a square of patches")
        net = VisionTransformer(*VARIANTS[self.variant], table.shape[1])
        weights_file.fill(net, tensors, path)
        self.net = net.eval().requires_grad_(False).to(device)
        self.mean, self.std = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, STD))
        self.weights_sha256 = weights_file.sha256(path)

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "B C H W"]) -> Extracted:
        """Grey is three equal channels."""
        x = images.expand(-1, 3, -1, -1)
        if self.filter == "bilinear":
            x = resized(x, SIDE)
        else:
            x = F.interpolate(x.float(), size=(SIDE, SIDE), mode="bicubic", antialias=True)
        return Extracted(self.net((x - self.mean) / self.std))
