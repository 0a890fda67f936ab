"""Every test runs on one thread, with the shapes in the annotations checked at every call of the package."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start; this one is set below

from jaxtyping import install_import_hook

from tests import shapes  # noqa: F401  the hook finds the checker by its name, as an attribute of `tests`

install_import_hook("lorafusion", "tests.shapes.check")  # before the first import of the package

import pytest  # noqa: E402
import torch  # noqa: E402

import lorafusion  # noqa: E402, F401  cures torchvision before a test imports lightning

torch.set_num_threads(1)


@pytest.fixture
def float64():
    """Networks and tensors made in the test are float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
