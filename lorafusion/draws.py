"""Random numbers that belong to images, not to batches.

Draw k of image i is a pure function of (seed, i, k): a counter goes through a hash. So noise does not depend on batch
size, gradient accumulation, number of devices or what was drawn before, there is no generator state to save, and a
run that is resumed draws what the undisturbed run would have drawn.

The hash is SplitMix64's output function (Steele, Lea & Flood 2014), its three streams (seed, image, call) keyed by
hashing again; normals come from it by Box & Muller 1958.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15  # SplitMix64's increment: 2^64 over the golden ratio, odd
_MIX1, _MIX2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Draws:
    """The random numbers of a batch; each call gives new ones.

    seed:   any int.
    index:  (B,) int64, which image each row is: its position in the training stream, or its sampling seed.
    """

    def __init__(self, seed: int, index: Int[Tensor, "B"]):
        self._keys = _hash(_hash(_constant(seed, index)) + index * _signed(_GAMMA))  # (B,)
        self._calls = 0

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "B ..."]:
        """(B, *shape) in the open interval (0, 1), on a grid of 2^-23."""
        bits = _shift(self._bits(math.prod(shape)), 41)
        return ((bits.to(dtype) + 0.5) * 2.0**-23).view(-1, *shape)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "B ..."]:
        """(B, *shape) standard normal."""
        n = math.prod(shape)
        bits = self._bits((n + 1) // 2)  # (B, n/2): 32 bits for the radius, 32 for the angle
        u = (_shift(bits, 32).to(dtype) + 0.5) * 2.0**-32
        angle = (bits & 0xFFFFFFFF).to(dtype) * (2 * math.pi * 2.0**-32)
        radius = (-2 * u.clamp(max=1).log()).sqrt()
        return torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)[:, :n].reshape(-1, *shape)

    def integers(self, high: int) -> Int[Tensor, "B"]:
        """(B,) in 0 .. high - 1; ``high`` up to 2^31 (its bias is below 2^-32)."""
        return _shift(_shift(self._bits(1)[:, 0], 32) * high, 32)

    def _bits(self, n: int) -> Int[Tensor, "B n"]:
        self._calls += 1
        key = _hash(self._keys + _signed(self._calls * _GAMMA))  # (B,)
        counter = torch.arange(1, n + 1, device=key.device) * _signed(_GAMMA)  # (n,)
        return _hash(key[:, None] + counter)


def _hash(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _signed(_MIX1)
    z = (z ^ _shift(z, 27)) * _signed(_MIX2)
    return z ^ _shift(z, 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64, whose own shift copies the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(n: int) -> int:
    """The int64 with the bits of n modulo 2^64: torch's int64 products wrap, as the hash wants."""
    n &= (1 << 64) - 1
    return n - (1 << 64) if n >= 1 << 63 else n


def _constant(n: int, like: Tensor) -> Tensor:
    return torch.full((), _signed(n * _GAMMA), dtype=torch.int64, device=like.device)
