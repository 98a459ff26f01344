"""Files of weights: safetensors whose header carries the card. Read here; `hhat.train` writes them."""

import functools
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

SCHEMA = "hhat.weights/1"
Weights = dict[str, Tensor]


class Trained(NamedTuple):
    """weights by name, single precision; card: {"model", "settings", "recipe", "curve", "measured", ...}."""

    weights: Weights
    card: dict[str, Any]


def read_weights(path: str | os.PathLike[str]) -> Trained:
    """What a file of weights holds; ValueError of one line where it is missing, damaged or something else."""
    if not Path(path).is_file():
        raise ValueError(f"weights {path}: no such file")
    try:
        with safe_open(path, framework="pt") as handle:
            card = json.loads((handle.metadata() or {}).get("hhat", "{}"))
            if not isinstance(card, dict) or card.get("schema") != SCHEMA:
                raise ValueError(f"weights {path}: expected schema {SCHEMA} in the header")
            # copies: memory of a mapped file need not be aligned, and the last bit of products depends on it
            weights = {name: handle.get_tensor(name).float().clone() for name in handle.keys()}
    except (SafetensorError, OSError, json.JSONDecodeError, RuntimeError) as error:
        raise ValueError(f"weights {path}: not a readable file of weights ({error})") from None
    for name, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"weights {path}: {name}: not finite")
    if not isinstance(card.get("model"), str) or not isinstance(card.get("settings"), dict):
        raise ValueError(f"weights {path}: the card names no model and settings")
    return Trained(weights, card)


@functools.cache
def shipped(model: str) -> Trained:
    """The weights of a model that come with the library."""
    name = model.replace("-", "_") + ".safetensors"
    with resources.as_file(resources.files("hhat") / "weights" / name) as path:
        return read_weights(path)
