"""The Inception-v3 of FID, as torch-fidelity ports it from TensorFlow: its layers, fed faster.

Batch norms are folded into the convolutions, which run in channels_last memory. Images become 299 x 299 as
TensorFlow 1 did it: bilinear, not antialiased, pixel 0 on pixel 0. Each row is resized in width once, and rows are then
mixed: the same arithmetic as torch-fidelity's for each pixel, a quarter of the work.
"""

import io

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lorafusion.errors import UserError
from lorafusion.metrics.extractor import weights_file
from lorafusion.metrics.features import Extracted

FILE = "weights-inception-2015-12-05-6726825d.pth"  # torch.hub's custom: the name ends in the sha256's first digits
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
SIDE = 299
LAYERS = {  # features that torch-fidelity offers -> the layers up to them, behind those above
    64: ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1"),
    192: ("Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    768: ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    2048: ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
}


class Inception:
    """weights:  torch-fidelity's file; null = where torch.hub keeps it. It is not downloaded.
    layer:    width of the features: 2048 are FID's; 64, 192, 768 are earlier layers, for sets smaller than that.
    block:    images at once; the last bits of the features depend on it.

    Raises ValueError for another layer.
    """

    resize = "TensorFlow 1 bilinear to 299"

    def __init__(self, weights: str | None = None, layer: int = 2048, block: int = 64):
        if layer not in LAYERS:
            raise ValueError(f"metric.extractor.layer={layer}: one of {', '.join(map(str, LAYERS))}")
        self.weights, self.layer, self.block = weights, layer, block
        self.name = "inception" if layer == 2048 else f"inception_{layer}"

    @property
    def published(self) -> bool:
        """Whether the weights are those of published FIDs, once loaded."""
        return self.weights_sha256.startswith(FILE[-12:-4])

    def load(self, device: torch.device) -> None:
        path = weights_file.find(self.weights, FILE, URL)
        net = _torch_fidelity(weights_file.read(path), str(path))
        self.weights_sha256 = weights_file.sha256(path)
        names = [name for width, part in LAYERS.items() if width <= self.layer for name in part]
        layers = nn.Sequential(*(_folded(net.get_submodule(name)) for name in names))
        self.layers = layers.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # pyright: ignore
        self.classes = net.get_submodule("fc").weight.to(device) if self.layer == 2048 else None  # (1008, 2048)

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "B C H W"]) -> Extracted:
        """Grey images are taken as three equal channels. Logits are without a bias, as the Inception score has them."""
        x = resized(images.expand(-1, 3, -1, -1)).sub_(128).div_(128)
        features = self.layers(x.contiguous(memory_format=torch.channels_last)).mean(dim=(2, 3))
        return Extracted(features, None if self.classes is None else features @ self.classes.T)


def resized(images: UInt8[Tensor, "B C H W"], side: int = SIDE) -> Float[Tensor, "B C R R"]:
    """As TensorFlow 1's resize_bilinear without align_corners: pixel i lies at i * H / R, and takes from there on."""
    x = images.float()
    for dim in (3, 2):
        low, high, share = _places(x.shape[dim], side, x.device)
        first = x.index_select(dim, low)
        x = first + (x.index_select(dim, high) - first) * (share if dim == 3 else share[:, None])
    return x


def _places(size: int, side: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of each pixel wanted: its two neighbours, and the share of the second."""
    at = torch.arange(side, dtype=torch.float32, device=device) * torch.tensor(size / side, dtype=torch.float32)
    low = at.long()
    return low, (low + 1).clamp_max(size - 1), at - low.float()


def _torch_fidelity(tensors: dict[str, Tensor], source: str) -> nn.Module:
    """Its network. It reads a file with the pickle module, so it is given one of our own making."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    file = io.BytesIO()
    torch.save(tensors, file)
    file.seek(0)
    try:
        return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=file)  # pyright: ignore
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"metric.weights={source} are not those of torch-fidelity's Inception: {reason}") from error


def _folded(layer: nn.Module) -> nn.Module:
    """Each batch norm within the convolution before it."""
    for part in layer.modules():
        if isinstance(getattr(part, "bn", None), nn.BatchNorm2d):
            part.conv, part.bn = fuse_conv_bn_eval(part.get_submodule("conv"), part.get_submodule("bn")), nn.Identity()  # pyright: ignore
    return layer
