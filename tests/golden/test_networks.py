"""DDPM++ and the IDDPM U-Net compute what the originals do, with the originals' weights, through the key maps."""

import pytest
import torch

from lorafusion.processes.edm import EDM
from tests.golden.reference import edm_net, iddpm_net, reference, relative

EDM_FILES = ["edm_uncond", "edm_cond_augment", "edm_uclora"]
DTYPES = [torch.float32, torch.float64]


def denoised(net, ref, x):
    given = (ref.get(key) for key in ("sigma", "class_labels", "augment_labels"))
    return EDM(sigma_data=0.5).denoise(net, x, *(t if t is None else t.to(x.dtype) for t in given)).x0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", EDM_FILES)
def test_edm(name, dtype):
    ref = reference(name)
    net = edm_net(ref).to(dtype)
    with torch.no_grad():
        assert relative(denoised(net, ref, ref["x"].to(dtype)), ref["denoised"]) < 1e-5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", EDM_FILES)
def test_edm_loss_and_its_gradients(name, dtype):
    ref = reference(name)
    net = edm_net(ref).to(dtype)
    clean, sigma, noise = (ref[key].to(dtype) for key in ("clean", "sigma", "noise"))
    sigma_ = sigma[:, None, None, None]
    weight = EDM(sigma_data=0.5).weight(sigma)[:, None, None, None]
    loss = weight * (denoised(net, ref, clean + sigma_ * noise) - clean) ** 2
    assert relative(loss, ref["loss"]) < 1e-5
    loss.mean().backward()
    gradients = [parameter.grad for parameter in net.parameters()]
    assert all(gradient is not None for gradient in gradients), "the original trains every parameter"
    norm = torch.stack([gradient.double().norm() for gradient in gradients]).norm()
    assert relative(norm, ref["grad_l2"][0]) < 1e-5


# The recorded float32 output of iddpm_uncond is itself 0.9e-5 from exact arithmetic, and so is ours.
@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [
        ("iddpm_uncond", torch.float64, 1e-5),
        ("iddpm_cond", torch.float64, 1e-5),
        ("iddpm_uncond", torch.float32, 2e-5),
        ("iddpm_cond", torch.float32, 1e-5),
    ],
    ids=str,
)
def test_iddpm(name, dtype, tolerance):
    ref = reference(name)
    net = iddpm_net(ref).to(dtype)
    label = torch.nn.functional.one_hot(ref["y"], 10).to(dtype) if net.num_classes else None
    with torch.no_grad():
        out = net(ref["x_start"].to(dtype), ref["model_t"].to(dtype), label=label)
    assert relative(out, ref["model_out"]) < tolerance


@pytest.mark.parametrize("name", [*EDM_FILES, "iddpm_uncond", "iddpm_cond"])
def test_networks_have_the_originals_size(name):
    ref = reference(name)
    net = (edm_net if name.startswith("edm") else iddpm_net)(ref)
    assert sum(p.numel() for p in net.parameters()) == sum(torch.Size(shape).numel() for _, shape in ref.parameters)


@pytest.mark.parametrize("name", ["edm_cond_augment", "iddpm_cond"])
def test_channels_last_memory_changes_nothing(name):
    ref = reference(name)
    net = (edm_net if name.startswith("edm") else iddpm_net)(ref).double()
    x, noise = torch.randn(2, 3, 16, 16, dtype=torch.float64), torch.tensor([0.3, 2.0], dtype=torch.float64)
    label = torch.eye(10, dtype=torch.float64)[:2]
    with torch.no_grad():
        out = net(x, noise, label=label)
        last = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), noise, label=label)
    assert relative(last, out) < 1e-12
    assert last.is_contiguous(memory_format=torch.channels_last)
