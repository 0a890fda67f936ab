import math

import pytest
import torch

from lorafusion.backbones.embed import Fourier, Sinusoidal


def test_the_endpoint_is_the_slowest_wave(float64):
    """Wave i turns by max_period^(-i / (n - 1)) a unit: from 1 to 1 / max_period; else one step short."""
    n, noise = 8, torch.tensor([0.3])
    for endpoint, ratio in ((True, n - 1), (False, n)):
        embed = Sinusoidal(2 * n, max_period=10_000, endpoint=endpoint)
        angle = [0.3 * 10_000 ** (-i / ratio) for i in range(n)]
        want = [math.cos(a) for a in angle] + [math.sin(a) for a in angle]
        torch.testing.assert_close(embed(noise)[0], torch.tensor(want))


def test_fourier_features(float64):
    embed, noise = Fourier(6), torch.tensor([0.3, -1.0])
    for b, value in enumerate((0.3, -1.0)):
        angle = [2 * math.pi * f * value for f in embed.freqs.tolist()]
        want = [math.cos(a) for a in angle] + [math.sin(a) for a in angle]
        torch.testing.assert_close(embed(noise)[b], torch.tensor(want))


def test_fourier_frequencies_belong_to_the_weights():
    a, b = Fourier(4000, scale=16), Fourier(4000, scale=16)
    assert not [*a.parameters()]
    assert not torch.equal(a.freqs, b.freqs)
    assert 15 < a.freqs.std() < 17
    b.load_state_dict(a.state_dict())
    assert torch.equal(a.freqs, b.freqs)


@pytest.mark.parametrize("kind", [Sinusoidal, Fourier])
def test_an_odd_width_is_refused(kind):
    with pytest.raises(ValueError, match="even width; got 5"):
        kind(5)
