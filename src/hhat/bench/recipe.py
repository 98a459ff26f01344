"""What a number depends on, as plain data: settings, code and machine. Its hash names a cell of the store."""

import dataclasses
import enum
import functools
import hashlib
import inspect
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hhat

DIGEST_BYTES = 16
SHORT = 8
"""Tensors of at most this many entries are written out"""
ONLY_SHOW = (
    "cli",
    "demo.py",
    "experiments/",
    "io/",
    "bench/execute.py",
    "bench/forecast.py",
    "bench/progress.py",
    "bench/ray_lanes.py",
    "bench/run.py",
    "bench/schedule.py",
    "bench/claims.py",
    "bench/compare.py",
    "bench/report/",
    "bench/store/",
)
"""Sources whose change does not change a number; an experiment's own settings are hashed one by one instead"""


def describe(thing: Any) -> Any:
    """JSON of anything a setting may hold; tensors by type and values, or by shape and a hash of their bytes.

    Raises ValueError for an object that is neither a dataclass, a record, a function nor a plain value.
    """
    if thing is None or (isinstance(thing, bool | int | float | str) and not isinstance(thing, enum.Enum)):
        return thing
    if isinstance(thing, enum.Enum):
        return f"{type(thing).__name__}.{thing.name}"
    if isinstance(thing, Tensor):
        kind = str(thing.dtype).removeprefix("torch.")
        if thing.numel() <= SHORT:
            return f"{kind} {thing.tolist()}"
        return f"{kind}{list(thing.shape)}#{_tensor_digest(thing)}"
    if isinstance(thing, torch.dtype | torch.device):
        return str(thing)
    if isinstance(thing, functools.partial):
        return {"function": describe(thing.func), "args": describe(thing.args), "keywords": describe(thing.keywords)}
    if inspect.isroutine(thing) or isinstance(thing, type):
        name = f"{thing.__module__}.{thing.__qualname__}#{_source_digest(thing)}"
        # what a closure holds is not in its source: two of one source may do different things
        held = [cell.cell_contents for cell in getattr(inspect.unwrap(thing), "__closure__", None) or ()]
        held = [value for value in held if value is not thing]  # one that calls itself
        return {"function": name, "holds": describe(held)} if held else name
    if dataclasses.is_dataclass(thing):
        # a field with metadata {"recipe": False} says where something lies, not what it is
        told = [f.name for f in dataclasses.fields(thing) if f.metadata.get("recipe", True)]
        fields = {name: describe(getattr(thing, name)) for name in told}
        return {"class": type(thing).__qualname__, **fields}
    if isinstance(thing, Mapping):
        return {str(key): describe(value) for key, value in thing.items()}
    names = getattr(thing, "_fields", None) if isinstance(thing, tuple) else None
    if names is not None:
        return {"class": type(thing).__qualname__, **{name: describe(getattr(thing, name)) for name in names}}
    if isinstance(thing, list | tuple):
        return [describe(value) for value in thing]
    raise ValueError(f"setting: expected a dataclass, a function or a plain value, got {type(thing).__name__}")


def spell(description: Any) -> str:
    """One line for people: Oamp(prior=Mixture(...), damping=0.7)."""
    if isinstance(description, dict):
        inner = ", ".join(f"{k}={spell(v)}" for k, v in description.items() if k != "class" and v is not None)
        return f"{description.get('class', '')}({inner})"
    if isinstance(description, list):
        return f"[{', '.join(map(spell, description))}]"
    return description.split("#")[0] if isinstance(description, str) else str(description)


def digest(*parts: Any) -> str:
    """Hash of JSON data, independent of the order of keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


@functools.cache
def code_version() -> str:
    """Version and a hash of the sources that make numbers, so that edited code never passes for the old."""
    root = Path(hhat.__file__).parent
    sources = hashlib.blake2b(digest_size=4)
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(ONLY_SHOW):
            sources.update(name.encode() + b"\0" + path.read_bytes())
    return f"{hhat.__version__}+{sources.hexdigest()}"


def versions() -> dict[str, str]:
    """What a number was made with."""
    return {"hhat": code_version(), "torch": torch.__version__, "python": platform.python_version()}


@functools.cache
def machine() -> dict[str, str]:
    """What times depend on; no names of hosts, users or folders."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"cpu": cpu, "cores": str(os.cpu_count()), "gpu": gpu, "system": f"{platform.system()} {platform.release()}"}


def _tensor_digest(value: Tensor) -> str:
    data = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(data.numpy().tobytes(), digest_size=8).hexdigest()


def _source_digest(thing: Any) -> str:
    try:
        source = inspect.getsource(thing)
    except (OSError, TypeError):  # built in, or typed at a prompt: the name has to do
        return "builtin"
    return hashlib.blake2b(source.encode(), digest_size=8).hexdigest()
