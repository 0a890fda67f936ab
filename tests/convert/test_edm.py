import math

import pytest
import torch

from lorafusion.backbones.ddpmpp import DDPMpp
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.conv.shift import Shift
from lorafusion.convert.edm import edm
from lorafusion.convert.keys import load
from lorafusion.errors import UserError
from tests.golden.reference import edm_net, reference, relative


def original_layers(*, mult, blocks, attention, encoder) -> list[str]:
    """The original's layers, written after its rules, for 32 px, 2 levels and 8 channels."""
    names = ["map_layer0", "map_layer1", "enc.32x32_conv", "dec.32x32_aux_norm", "dec.32x32_aux_conv"]
    width = [m * 8 for m in mult]

    def block(name, c_in, c_out, *, resampled=False, attn=False):
        layers = ["norm0", "conv0", "affine", "norm1", "conv1"]
        layers += ["skip"] if resampled or c_in != c_out else []
        layers += ["norm2", "qkv", "proj"] if attn else []
        names.extend(f"{name}.{layer}" for layer in layers)

    c, skips = 8, [8]
    for level, size in enumerate((32, 16)):
        if level:
            block("enc.16x16_down", c, c, resampled=True)
            skips.append(c)
            if encoder != "standard":
                names.append(f"enc.16x16_aux_{encoder}")
        for i in range(blocks):
            block(f"enc.{size}x{size}_block{i}", c, width[level], attn=size in attention)
            c = width[level]
            skips.append(c)
    block("dec.16x16_in0", c, c, attn=True)
    block("dec.16x16_in1", c, c)
    for level, size in ((1, 16), (0, 32)):
        if level == 0:
            block("dec.32x32_up", c, c, resampled=True)
        for i in range(blocks + 1):
            attn = size in attention and i == blocks
            block(f"dec.{size}x{size}_block{i}", c + skips.pop(), width[level], attn=attn)
            c = width[level]
    return names


@pytest.mark.parametrize("encoder", ["standard", "residual", "skip"])
def test_every_key_has_its_place(encoder):
    sizes = {"mult": (1, 2), "blocks": 2, "attention": [16]}
    net = DDPMpp(
        32, 3, 8, sizes["mult"], sizes["blocks"], sizes["attention"], embedding="fourier", noise_mult=2, encoder=encoder
    )
    Conditioning([Shift()]).attach(net)
    kinds = {"weight": torch.zeros(6, 6), "bias": torch.zeros(6)}
    layers = original_layers(encoder=encoder, **sizes)
    state = {f"model.{layer}.{kind}": value for layer in layers for kind, value in kinds.items()}
    state["model.map_noise.freqs"] = torch.zeros(8)
    ours = edm(state, net)
    assert sorted(ours) == sorted(net.state_dict())
    assert len(ours) == len(state), "two keys of the original became one"


def test_resampling_filters_are_compared():
    ref = reference("edm_uncond")
    net = edm_net(ref)
    key = "model.enc.8x8_down.conv0.resample_filter"
    edm({**ref.weights(), key: torch.full((1, 1, 2, 2), 0.25)}, net)
    with pytest.raises(UserError, match=r"enc.8x8_down.conv0.resample_filter .* resample_filter=\[1, 1\]"):
        edm({**ref.weights(), key: torch.ones(4, 4)}, net)


def test_an_unknown_key_is_named():
    ref = reference("edm_uncond")
    with pytest.raises(UserError, match=r"1 keys have no place in a DDPM.*: model.enc.8x8_block0.qkv.extra"):
        edm({**ref.weights(), "model.enc.8x8_block0.qkv.extra": torch.ones(1)}, edm_net(ref))


def test_a_network_of_another_form_is_refused():
    plain, lora = reference("edm_cond_augment"), reference("edm_uclora")
    net = edm_net(plain)
    with pytest.raises(UserError, match=r"missing: .*unexpected: .*uc_lora"):
        load(net, edm(lora.weights(), net), source="there.pkl")


def test_the_embedding_s_halves_are_turned():
    """The original's first layer reads [sin, cos] of its frequencies, written here by the original's formula."""
    ref = reference("edm_cond_augment")
    net, weights = edm_net(ref).double(), ref.weights()
    w0, b0, w1, b1, wl, bl, wa = (
        weights[f"model.{key}"].double()
        for key in (
            "map_layer0.weight", "map_layer0.bias", "map_layer1.weight", "map_layer1.bias",
            "map_label.weight", "map_label.bias", "map_augment.weight",
        )
    )  # fmt: skip
    noise, label = torch.tensor([0.7], dtype=torch.float64), torch.randn(1, 10, dtype=torch.float64)
    augment = torch.randn(1, 9, dtype=torch.float64)
    angle = noise * (1 / 10_000) ** (torch.arange(8, dtype=torch.float64) / 7)
    emb = torch.cat((angle.sin(), angle.cos()))[None]
    emb = emb + math.sqrt(10) * label @ wl.T + bl + augment @ wa.T
    for w, b in ((w0, b0), (w1, b1)):
        emb = emb @ w.T + b
        emb = emb * emb.sigmoid()
    assert relative(net.embedding(noise, label, augment), emb) < 1e-6  # its frequencies are float32
