"""Saving and loading state: tensors as safetensors, scalars as JSON in its header; written whole or not at all."""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hhat.types import State

SCHEMA = "hhat.state/1"


def save_state(path: str | os.PathLike[str], state: State) -> None:
    """Write a state so that another process resumes from it, bit for bit. A generator is saved as its state tensor.

    Raises ValueError for anything that is neither a tensor, a generator nor a JSON scalar.
    """
    tensors, dtypes, scalars, generators = {}, {}, {}, []
    for name, value in state.items():
        if isinstance(value, torch.Generator):
            generators.append(name)
            value = value.get_state()
        if isinstance(value, Tensor):
            dtypes[name] = str(value.dtype).removeprefix("torch.")
            tensors[name] = (
                (torch.view_as_real(value.resolve_conj()) if value.is_complex() else value).contiguous().clone()
            )
        elif value is None or isinstance(value, bool | int | float | str):
            scalars[name] = value
        else:
            raise ValueError(f"state: '{name}' is a {type(value).__name__}; expected a tensor or a JSON scalar")
    header = {"schema": SCHEMA, "dtypes": dtypes, "scalars": scalars, "generators": generators}
    target = Path(path)
    if not target.parent.is_dir():
        raise ValueError(f"state {path}: no such folder")
    partial = target.with_name(target.name + f".{os.getpid()}.part")
    try:
        save_file(tensors, partial, metadata={"hhat": json.dumps(header)})
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def load_state(path: str | os.PathLike[str]) -> State:
    """Read what `save_state` wrote; ValueError names the file where it is missing, damaged or something else."""
    if not Path(path).is_file():
        raise ValueError(f"state {path}: no such file")
    try:
        with safe_open(path, framework="pt") as handle:
            header = json.loads((handle.metadata() or {}).get("hhat", "{}"))
            if header.get("schema") != SCHEMA:
                raise ValueError(f"state {path}: expected schema {SCHEMA}, got {header.get('schema')}")
            state: State = dict(header["scalars"])
            for name, dtype in header["dtypes"].items():
                value = handle.get_tensor(name).clone()  # aligned memory: MKL's last bit depends on it
                state[name] = torch.view_as_complex(value) if dtype.startswith("complex") else value
        for name in header["generators"]:
            gen = torch.Generator()
            gen.set_state(state[name])
            state[name] = gen
    except (SafetensorError, KeyError, TypeError, AttributeError, RuntimeError, json.JSONDecodeError) as error:
        raise ValueError(f"state {path}: not a readable state file ({error})") from None
    return state
