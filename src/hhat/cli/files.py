"""`hhat simulate` and `hhat inspect`: capture files made and looked at."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hhat.cli.common import (
    WRONG,
    Device,
    Json,
    MaxBytes,
    Seed,
    Settings,
    Threads,
    complain,
    digits,
    prepare,
    print_json,
    print_pairs,
    print_table,
)


def simulate(
    scenario: Annotated[str, typer.Argument(help="A scenario's name; `hhat list scenarios` shows them.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The capture file to write (.h5).")],
    count: Annotated[int | None, typer.Option("-n", min=1, help="Snapshots (100), or links per slot (1).")] = None,
    slots: Annotated[int | None, typer.Option("--slots", min=1, help="Draw a sequence of this many slots.")] = None,
    settings: Settings = [],  # noqa: B006 - the parser takes its default from here and never changes it
    as_json: Json = False,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Draw truth and observations of a scenario into a capture file. The draw is made on the CPU on any device."""
    from hhat import io, random, registry
    from hhat.distortion.record import DistortedPilots
    from hhat.sensing.echoes import Echoes
    from hhat.settings import pairs, typed

    target = registry.load("scenarios", scenario)
    scene = registry.build("scenarios", scenario, typed(target, pairs(settings)))
    prepare(device, threads)
    gen = random.generator("simulate", scenario, seed)
    if slots is None:
        slot = scene.draw(count or 100, gen)
        io.write(out, slot)
        shape = tuple(slot.obs.y.shape)
    else:
        drawn = list(scene.slots(slots, gen, links=count or 1))
        io.write_slots(out, drawn)
        slot, shape = drawn[0], (slots, *drawn[0].obs.y.shape)
    if isinstance(slot.obs, Echoes):
        channel_shape, channel_axes = [slot.obs.num_rx_ant, slot.obs.num_subcarriers], ["rx_ant", "subcarrier"]
    elif isinstance(slot.obs, DistortedPilots):
        channel_shape, channel_axes = [slot.obs.num_rx_ant], ["rx_ant"]
    else:
        channel_shape, channel_axes = list(slot.obs.op.in_shape), list(slot.obs.axes or ())
    found = {
        "file": str(out),
        "scenario": scenario,
        "seed": seed,
        "slots": slots,
        "y_shape": list(shape),
        "channel_shape": channel_shape,
        "channel_axes": channel_axes,
        "snr_definition": slot.about.snr_definition,
        "source": slot.about.source,
    }
    if as_json:
        print_json(found)
        return
    sizes = " x ".join(f"{name} {size}" for name, size in zip(channel_axes, channel_shape, strict=False))
    print_pairs(
        [
            ("wrote", str(out)),
            ("source", slot.about.source),
            ("y", " x ".join(map(str, shape))),
            ("channel", sizes),
            ("SNR", slot.about.snr_definition),
        ]
    )


def inspect(
    file: Annotated[Path, typer.Argument(help="A capture: .h5, .npz, .mat or a Wi-Fi log.")],
    max_bytes: MaxBytes = 8e9,
    as_json: Json = False,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Show what a file holds: axes, units, geometry, SNR definition, and the problems found.

    Exits with 2 where a problem keeps the file from being estimated.
    """
    from hhat.io.inspect import describe

    prepare(device, threads)
    found = describe(file, max_bytes=max_bytes)
    if as_json:
        print_json(found)
    else:
        _show(found)
    if "operator" not in found:
        complain(found["problems"][0])
        raise typer.Exit(WRONG)


def _show(found: dict[str, Any]) -> None:
    lines = [("file", found["file"]), ("format", found["format"])]
    for name in ("kind", "source", "snr_definition", "normalisation", "created"):
        if name in found:
            lines.append((name.replace("snr_definition", "SNR"), str(found[name])))
    for name, words in (("axes", "axes of y"), ("channel_axes", "channel"), ("constants", "constants")):
        if found.get(name):
            lines.append((words, _sizes(found[name])))
    geometry = found.get("geometry", {})
    for axis, points in geometry.items():
        extent = " x ".join(digits(value) for value in points["extent_wavelengths"])
        lines.append((f"geometry {axis}", f"{points['elements']} elements over {extent} wavelengths"))
    if found.get("subcarriers"):
        tones = found["subcarriers"]
        lines.append(("subcarriers", f"{len(tones)} tones, {min(tones)} to {max(tones)}"))
    if "operator" in found:
        lines.append(("operator", found["operator"]))
    noise = found["noise_var"]
    if "mean_noise_var" in found:
        noise += f", mean {found['mean_noise_var']:.4g} (E|n|^2 per complex sample)"
    lines.append(("noise_var", noise))
    if "mean_power" in found:
        lines.append(("mean |y|^2", f"{found['mean_power']:.4g}"))
    lines.append(("truth", " ".join(found["truth"]) or "none"))
    lines.append(("repeated", "yes: a hold-out score can be had" if found["repeated"] else "no"))
    print_pairs(lines)
    rows = [
        (name, " ".join(entry["axes"]) or "-", " x ".join(map(str, entry["shape"])) or "scalar", entry["dtype"])
        for name, entry in found["datasets"].items()
    ]
    print_table("", ("dataset", "axes", "shape", "type"), rows, words=4)
    print_pairs([("problems", "none")] if not found["problems"] else [("problem", text) for text in found["problems"]])


def _sizes(values: Any) -> str:
    if isinstance(values, dict):
        return ", ".join(f"{name} {value:g}" for name, value in values.items())
    return " x ".join(map(str, values))
