"""A weights file of the right layout for Inception-v3, its weights drawn so that features keep their variation."""

import io
from pathlib import Path

import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


class _Unfilled(FeatureExtractorInceptionV3):
    def load_state_dict(self, *_):  # pyright: ignore
        pass


def write(file: Path) -> Path:
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    net = _Unfilled("inception-v3-compat", ["2048"], feature_extractor_weights_path=empty)  # pyright: ignore
    state, draw = net.state_dict(), torch.Generator().manual_seed(0)
    for name, value in state.items():
        if value.ndim == 4:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=draw)
        elif name.endswith("running_mean"):
            value.normal_(0, 0.1, generator=draw)
        elif name.endswith("running_var"):
            value.uniform_(0.8, 1.25, generator=draw)
        elif name.endswith("bn.weight"):
            value.uniform_(0.9, 1.1, generator=draw)
    torch.save(state, file)
    return file
