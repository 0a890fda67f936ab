"""A program: models with drop-in, compiled whole, compute what they compute."""

import torch

import lorafusion as lf
from tests.dropin.networks import CALLS, PRESETS, close, gradients, labels, own, steps, trained, unet, x

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)


def check_own(how: str) -> None:
    model, _ = own(how)
    batch, other = (x(), steps(), labels()), (x(), steps().flip(0), labels())
    out = model(*batch)
    out.square().sum().backward()
    expected = {name: g.clone() for name, g in gradients(model).items()}
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    close(compiled(*batch), out)
    model(*other)
    model.zero_grad()
    compiled(*batch).square().sum().backward()
    for name, gradient in gradients(model).items():
        close(gradient, expected[name])


def check_unet() -> None:
    model = unet()
    trained(lf.drop_in, model, **PRESETS["unet"], num_classes=None)
    expected = CALLS["unet"](model)
    torch._dynamo.reset()
    close(CALLS["unet"](torch.compile(model, fullgraph=True, backend="eager")), expected)


check_own("plain")
check_own("non_reentrant")
check_unet()
