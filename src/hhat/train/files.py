"""Trained weights on disk: safetensors with the card in the header, and the card as JSON beside it."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from hhat.priors.weights import SCHEMA, Weights

EXACT = ("lags", "matrix", "variances", "shares")
"""Small differences of these matter (a covariance's small eigenvalues), or their range is wide"""


def write_weights(folder: Path, model: str, weights: Weights, card: dict[str, Any], half: bool = False) -> Path:
    """Write folder/<model>.safetensors (model's name with _) and folder/<model>.json; each whole or not at all.

    The weights are the last to appear. half: in half precision, but for what is in EXACT. Raises ValueError where the
    folder cannot be written.
    """
    stem = model.replace("-", "_")
    dtype = torch.float16 if half else torch.float32
    tensors = {n: value.to(torch.float32 if n in EXACT else dtype).contiguous() for n, value in weights.items()}
    document = {"schema": SCHEMA, "model": model, "precision": str(dtype).removeprefix("torch."), **card}
    text = json.dumps(document, indent=1, allow_nan=False)
    target = folder / f"{stem}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _whole(folder / f"{stem}.json", lambda path: path.write_text(text + "\n"))
        _whole(target, lambda path: save_file(tensors, path, metadata={"hhat": json.dumps(document)}))
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return target


def rounded(weights: Weights) -> Weights:
    """As they come back from a file in half precision."""
    return {name: value if name in EXACT else value.half().float() for name, value in weights.items()}


def _whole(target: Path, write: Callable[[Path], Any]) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    os.close(handle)
    partial = Path(name)
    try:
        write(partial)
        partial.chmod(0o644)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
