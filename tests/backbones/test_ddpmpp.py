import math

import pytest
import torch
import torch.nn.functional as F

from lorafusion.backbones.ddpmpp import DDPMpp
from lorafusion.backbones.resample import Down
from lorafusion.conditioning import Conditioning
from lorafusion.conditioning.conv.shift import Shift
from lorafusion.sites import AttnSite, Cond

SMALL = {"resolution": 16, "model_channels": 16, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (8,)}


def net(**options) -> DDPMpp:
    torch.manual_seed(0)
    return Conditioning([Shift()]).attach(DDPMpp(**{**SMALL, **options}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"resolution": 15}, "2 levels halve the image 1 times, and a resolution of 15"),
        ({"embedding": "sine"}, "embedding must be 'positional' or 'fourier'; got 'sine'"),
        ({"encoder": "skips"}, "encoder must be 'standard', 'residual' or 'skip'; got 'skips'"),
        ({"resample_filter": (1, 2, 1)}, "even number of taps"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options, said):
    with pytest.raises(ValueError, match=said):
        net(**options)


def test_classes_need_a_label():
    with pytest.raises(ValueError, match="built for 7 classes and got no label"):
        net(num_classes=7)(torch.randn(2, 3, 16, 16), torch.zeros(2))


def test_augmentation_labels_may_be_left_out():
    """Without them the sample counts as not augmented: the same as labels of zero."""
    network, x, noise = net(augment_dim=4).eval(), torch.randn(2, 3, 16, 16), torch.tensor([0.2, -0.4])
    torch.nn.init.normal_(network.out_conv.weight)
    left_out = network(x, noise)
    assert torch.equal(left_out, network(x, noise, augment=torch.zeros(2, 4)))
    assert not torch.allclose(left_out, network(x, noise, augment=torch.ones(2, 4)))


def test_initial_weights_are_edms():
    """Xavier-uniform of these gains, biases zero."""
    network = DDPMpp(channel_mult=(1, 2), num_blocks=1)
    block = network.enc["16_block0"]
    gains = {block.conv0: 1, block.skip: 1, block.conv1: 1e-5, network.conv_in: 1, network.out_conv: 1e-5}
    gains |= {block.attn.qkv: math.sqrt(0.2), block.attn.proj: 1e-5}
    for layer, gain in gains.items():
        kernel = layer.weight[0, 0].numel()
        bound = gain * math.sqrt(6 / kernel / sum(layer.weight.shape[:2]))
        assert 0.99 * bound < layer.weight.abs().max() <= bound * (1 + 1e-6)
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert not layer.bias.any()


@pytest.mark.parametrize("encoder", ["residual", "skip"])
def test_pyramids_feed_the_encoder(encoder, float64):
    """After every downsampling block, with the original's arithmetic: sum over sqrt(2), or plain sum."""
    taps = (1, 3, 3, 1)
    network = net(resolution=32, channel_mult=(1, 2, 2), encoder=encoder, resample_filter=taps).eval()
    torch.nn.init.normal_(network.out_conv.weight)
    x, noise = torch.randn(2, 3, 32, 32), torch.tensor([0.2, -0.4])
    cond, down = Cond(noise, emb=network.embedding(noise, None, None)), Down(taps)
    skips, image, y = [], x, network.conv_in(x)
    skips.append(y)
    for name, block in network.enc.items():
        y = block(y, cond)
        if name in ("16_down", "8_down"):
            conv = network.pyramid[name].conv
            if encoder == "residual":
                c = conv.out_channels
                wide = F.conv2d(F.pad(image, [2] * 4), conv.weight)
                small = F.conv2d(wide, down.kernel.repeat(c, 1, 1, 1), stride=2, groups=c)
                image = y = (y + small + conv.bias[:, None, None]) / math.sqrt(2)
            else:
                image = down(image)
                y = y + F.conv2d(image, conv.weight, conv.bias)
        skips.append(y)
    for block in network.dec.values():
        if block.norm0.num_channels != y.shape[1]:
            y = torch.cat((y, skips.pop()), dim=1)
        y = block(y, cond)
    assert not skips, "a skip is left over"
    torch.testing.assert_close(network(x, noise), network.out_conv(F.silu(network.out_norm(y))))


def test_sites_come_in_forward_order():
    network, order = net(), []
    sites = [*network.sites()]
    for site in sites:
        slot = "qkv" if isinstance(site, AttnSite) else "norm_out"
        site[slot].register_forward_hook(lambda *_, name=site.name: order.append(name))
    network(torch.randn(1, 3, 16, 16), torch.zeros(1))
    assert order == [site.name for site in sites]
    assert order[-1] == "dec.16_block1.conv"
    assert "enc.8_block0.attn" in order


def test_the_embedding_is_built_once():
    network = net()
    before = network.embedding
    network.add_embedding()
    assert network.embedding is before
    assert DDPMpp(**SMALL).embedding is None
