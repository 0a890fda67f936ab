"""A CIFAR-10 classifier, the ResNet-20 of He et al. 2016 (section 4.2): 64 features, 10 classes.

For weights as akamaster/pytorch_resnet_cifar10 publishes them (resnet20-12fca82f.th, 91.7 % of the test images). Its
Frechet distance is one of its own, and no FID; its classes tell how often a class-conditional sample is what was asked.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lorafusion.metrics.extractor import weights_file
from lorafusion.metrics.features import Extracted

FILE = "resnet20-12fca82f.th"
URL = f"https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/{FILE}"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which it was trained with
SIDE = 32


class Block(nn.Module):
    """Two convolutions beside a skip, which takes every second pixel and pads channels with 0 (option A)."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=out // channels, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        stride, wider = self.conv1.stride[0], self.conv1.out_channels - self.conv1.in_channels
        skip = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, wider // 2, wider // 2))
        return F.relu(h + skip)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16), Block(16, 16), Block(16, 16))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 64"]:
        """Features of normalised images; ``linear`` makes logits of them."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3))


class CifarResnet:
    """weights:  the file; null = where torch.hub keeps downloads. It is not downloaded.
    block:    images at once; the last bits of the features depend on it.
    """

    name, resize, num_classes = "cifar_resnet", "none: 32 x 32", 10

    def __init__(self, weights: str | None = None, block: int = 256):
        self.weights, self.block = weights, block

    def load(self, device: torch.device) -> None:
        path = weights_file.find(self.weights, FILE, URL)
        tensors = weights_file.read(path)
        self.net = ResNet20().requires_grad_(False)
        known = self.net.state_dict()  # the published file has no counters of batches
        counters = {key: value for key, value in known.items() if key.endswith("num_batches_tracked")}
        weights_file.fill(self.net, counters | {k.removeprefix("module."): v for k, v in tensors.items()}, path)
        self.net.eval().to(device)
        self.mean, self.std = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, STD))
        self.weights_sha256 = weights_file.sha256(path)

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "B C H W"]) -> Extracted:
        """Raises ValueError for images of another size than (3, 32, 32)."""
        if images.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"extractor cifar_resnet reads images (3, 32, 32); got {tuple(images.shape[1:])}")
        features = self.net((images.float() / 255 - self.mean) / self.std)
        return Extracted(features, self.net.linear(features))
