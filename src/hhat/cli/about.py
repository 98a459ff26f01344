"""`hhat list` and `hhat doctor`: what is there, and what this machine has."""

import importlib.metadata
import os
import platform
from typing import Annotated, Any

import typer

from hhat import __version__, registry
from hhat.cli.common import (
    Device,
    Json,
    Seed,
    Threads,
    print_json,
    print_pairs,
    print_table,
)

NEEDED = ("torch", "numpy", "scipy", "h5py", "safetensors", "jaxtyping", "pydantic", "typer", "rich", "sionna-no-rt")
OPTIONAL = {
    "plotly": ("report", "HTML reports (`hhat report`)"),
    "csiread": ("captures", "Intel 5300 and Atheros channel-state logs"),
    "ray": ("ray", "several processes or machines"),
    "onnx": ("onnx", "export to ONNX"),
    "onnxruntime": ("onnx", "running exported models"),
    "mkdocs-material": ("docs", "building the documentation"),
}
"""Distribution -> the extra that brings it, and what it is for."""


def list_names(
    kind: Annotated[str | None, typer.Argument(help=f"One of: {' '.join(registry.KINDS)}. All where left out.")] = None,
    as_json: Json = False,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """List the registered names, one line each with its source."""
    if kind is not None and kind not in registry.KINDS:
        raise ValueError(f"list: unknown kind '{kind}'; there are: {' '.join(registry.KINDS)}")
    kinds = {name: table for name, table in registry.KINDS.items() if kind in (None, name)}
    if as_json:
        print_json(
            {
                name: [{"name": key, "summary": entry.summary, "source": entry.source} for key, entry in table.items()]
                for name, table in kinds.items()
            }
        )
        return
    rows = [(name, key, entry.summary, entry.source) for name, table in kinds.items() for key, entry in table.items()]
    if kind is None:
        print_table("", ("kind", "name", "what", "source"), rows, words=4)
    else:
        print_table("", ("name", "what", "source"), [row[1:] for row in rows], words=3)


def doctor(
    as_json: Json = False,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Show versions, devices and threads, and how to get the optional parts that are missing."""
    found = examine()
    if as_json:
        print_json(found)
        return
    pairs = [("hhat", found["hhat"]), ("python", found["python"]), ("system", found["system"])]
    pairs += [("devices", ", ".join(found["devices"]))]
    pairs += [("threads", f"{found['threads']['torch']} by torch's default, {found['threads']['cores']} cores")]
    pairs += [(name, version or "missing: pip install hhat") for name, version in found["packages"].items()]
    print_pairs(pairs)
    rows = [
        (part["name"], part["version"] or "missing", part["use"], "" if part["version"] else part["get"])
        for part in found["optional"]
    ]
    print_table("Optional parts", ("package", "version", "for", "how to get it"), rows, words=4)


def examine() -> dict[str, Any]:
    """What `doctor` reports, JSON-able."""
    import torch

    devices = ["cpu"]
    for index in range(torch.cuda.device_count()):
        devices.append(f"cuda:{index} ({torch.cuda.get_device_name(index)})")
    return {
        "hhat": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "devices": devices,
        "threads": {"torch": torch.get_num_threads(), "cores": os.cpu_count() or 1},
        "packages": {name: _version(name) for name in NEEDED},
        "optional": [
            {"name": name, "version": _version(name), "use": use, "get": f"pip install 'hhat[{extra}]'"}
            for name, (extra, use) in OPTIONAL.items()
        ],
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
