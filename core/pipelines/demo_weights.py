"""Initial weights of the demo family: the same bytes on every machine, and a picture to be seen.

Random numbers come from SHAKE-256 of the tensor's name and are scaled by exact or correctly
rounded float32 arithmetic: torch's own generators differ between processors.

The VAE starts as an average over 8 x 8 pixels and a smooth enlargement; the experts start by
pulling the noise towards the latents of the given picture, each with its own strength. What they
learn in training replaces both.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]

_PULL: Final = {"high": 1.6, "low": 1.1}
_LEVEL: Final = 8.0
"""The VAE's constant channel: so large that RMS norms leave the colours nearly as they are."""
_COPIES: Final = 5
"""How often each colour stands in the 16 latent channels; the decoder takes their mean."""
_GAIN: Final = 1.5
"""Makes latents of usual pictures about as large as noise."""


def plain(model: str, shapes: Shapes) -> dict[str, Array]:
    """Plain random weights of sensible scale; other ones for each `model`."""
    return {name: usual(f"{model}/{name}", shape) for name, shape in shapes.items()}


def expert(role: str, shapes: Shapes, settings: Mapping[str, Any]) -> dict[str, Array]:
    """A DiT; `role` is "high" or "low"."""
    weights = {name: usual(f"{role}/{name}", shape) for name, shape in shapes.items()}
    for name in weights:
        # Branches that add to the residual stream start small, so that the pull below is seen.
        if name.endswith((".o.weight", ".ffn.2.weight", "time_embedding.2.weight")):
            weights[name] *= np.float32(0.25)
        if name.endswith(("time_projection.1.weight", "modulation", "adapter.conv.weight")):
            weights[name] *= np.float32(0.5)
    latent, inputs = int(settings["out_dim"]), int(settings["in_dim"])
    entry, head = weights["patch_embedding.weight"], weights["head.head.weight"]
    entry *= np.float32(0.02)
    head *= np.float32(0.02)
    pull = np.float32(_PULL[role])
    for channel in range(latent):
        for place in range(4):  # a patch is 1 x 2 x 2 latents
            noisy, given = 4 * channel + place, 4 * (latent + channel) + place
            row = place * latent + channel
            entry[noisy, channel, 0, place // 2, place % 2] = 1
            head[row, noisy] = pull
            if inputs > latent:  # else text-to-video: there is no given picture
                entry[given, inputs - latent + channel, 0, place // 2, place % 2] = 1
                head[row, given] = -pull
    return weights


def vae(shapes: Shapes) -> dict[str, Array]:
    """A VAE that keeps colours: in channels 0..2, their negatives in 3..5; 6 is constant."""
    weights = {name: usual(f"vae/{name}", shape) for name, shape in shapes.items()}
    for name, array in weights.items():
        if name.endswith("residual.6.weight"):
            array[:] = 0  # residual blocks start as identity
        elif name.endswith("shortcut.weight"):
            array[:] = 0  # else the constant channel leaks into the colours
            _pass_on(array, time=(1,))
        elif name.endswith("resample.1.weight"):
            _resample(array, shrink=name.startswith("encoder."))
        elif name.endswith("time_conv.weight"):
            array[:] = 0
            _pass_on(array, time=(0, 0.5, 0.5) if name.startswith("encoder.") else (0, 0, 1))
        elif name.endswith("middle.1.proj.weight"):
            array[:] = 0
        elif name in ("conv1.weight", "conv2.weight"):
            array[:] = 0
            _pass_on(array, time=(1,))
    _colour_ends(weights)
    return weights


def _colour_ends(weights: dict[str, Array]) -> None:
    """Where pictures enter and leave, and where latents do."""
    for side in ("encoder", "decoder"):
        weights[f"{side}.conv1.weight"][:] = 0
        weights[f"{side}.conv1.bias"][6] = _LEVEL
        weights[f"{side}.head.2.weight"][:] = 0
    first, last = weights["encoder.conv1.weight"], weights["decoder.head.2.weight"]
    latent_out, latent_in = weights["encoder.head.2.weight"], weights["decoder.conv1.weight"]
    # silu(a) - silu(-a) = a: with each colour and its negative the activation cancels out.
    up = _LEVEL / math.sqrt(latent_out.shape[1])
    down = _LEVEL / math.sqrt(last.shape[1])
    for colour in range(3):
        first[colour, colour, -1, 1, 1], first[colour + 3, colour, -1, 1, 1] = 1, -1
        last[colour, colour, -1, 1, 1], last[colour, colour + 3, -1, 1, 1] = down, -down
        for copy in range(_COPIES):
            channel = 3 * copy + colour
            latent_out[channel, colour, -1, 1, 1] = up * _GAIN
            latent_out[channel, colour + 3, -1, 1, 1] = -up * _GAIN
            latent_in[colour, channel, -1, 1, 1] = 1 / (_GAIN * _COPIES)
            latent_in[colour + 3, channel, -1, 1, 1] = -1 / (_GAIN * _COPIES)


def _pass_on(array: Array, *, time: tuple[float, ...]) -> None:
    """Channel i to channel i (again for a second frame where there are twice as many outputs)."""
    inputs = array.shape[1]
    for output in range(array.shape[0]):
        for tap, weight in enumerate(time):
            array[output, output % inputs, tap, 0, 0] = weight


def _resample(array: Array, *, shrink: bool) -> None:
    """Halve by the mean of 2 x 2, or smooth what was doubled."""
    array[:] = 0
    edge = np.array((0.5, 0.5, 0) if shrink else (0.25, 0.5, 0.25), np.float32)
    for channel in range(array.shape[0]):
        array[channel, channel] = np.outer(edge, edge)


def usual(name: str, shape: tuple[int, ...]) -> Array:
    """Ones for norms, zeros for biases, else uniform with variance 1 / (3 * inputs)."""
    leaf = name.rpartition(".")[2]
    if leaf == "gamma" or (leaf == "weight" and len(shape) == 1):
        return np.ones(shape, np.float32)
    if leaf == "bias":
        return np.zeros(shape, np.float32)
    inputs = shape[-1] if leaf == "modulation" else math.prod(shape[1:])
    return _random(name, shape) * np.float32(1 / math.sqrt(inputs))


def _random(name: str, shape: tuple[int, ...]) -> Array:
    """Uniform in [-1, 1), exact in float32."""
    raw = hashlib.shake_256(name.encode()).digest(4 * math.prod(shape))
    whole = (np.frombuffer(raw, "<u4") >> 8).astype(np.float32)
    numbers: Array = whole * np.float32(2.0**-23) - np.float32(1)
    return numbers.reshape(shape)
