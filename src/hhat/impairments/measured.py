"""Amplifiers that were measured: pairs of input and output samples, and the polynomial fitted to them.

A folder as OpenDPD keeps them: `spec.json` and CSV files of columns I, Q, one for each of train, val and test, input
and output. What the library calls measured behaviour: a causal generalised memory polynomial fitted to the pairs and
taken as the truth, gain removed. Its error on other samples of the same record is `Fitted.test_nmse_db`; nothing of
the amplifier beyond that is claimed.

A record is sampled several times faster than its signal changes: fitted at that rate a polynomial says nothing about
inputs that change from sample to sample, as pilots do (their distortion then comes out near 0 dB, an artefact). So the
delays count `stride` samples, about one symbol at the Nyquist rate of the measured signal.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from hhat.impairments.polynomial import Delays, Polynomial, evaluate, fit, memory
from hhat.ops.linalg import squared

PathType = str | os.PathLike[str]
SPLITS = ("train", "val", "test")
OVERSAMPLING = 1.2
"""Samples per symbol of the measured bandwidth that a stride keeps at least."""
ORDERS = (1, 3, 5, 7)
DELAYS: Delays = (*memory(4), (0, 1), (0, 2), (1, 2), (1, 0), (2, 1))
EXTRACT = Path(__file__).parents[1] / "weights" / "amplifiers.safetensors"
SHIPPED = ("apa-200mhz", "dpa-200mhz")
"""Measured amplifiers of which 3,072 samples for the fit and 1,024 for its test ship."""
MAX_BYTES = 1e9


@dataclass(frozen=True, eq=False)
class Record:
    """clean, dirty: by split, complex128 (sample); bandwidth_hz: of the signal; source: where it is from."""

    clean: dict[str, Tensor]
    dirty: dict[str, Tensor]
    sample_rate_hz: float
    bandwidth_hz: float
    source: str

    @property
    def stride(self) -> int:
        """Samples per symbol, see the module."""
        return max(1, math.floor(self.sample_rate_hz / (OVERSAMPLING * self.bandwidth_hz)))


@dataclass(frozen=True, eq=False)
class Fitted:
    """polynomial: for inputs of the record's scale, output over gain; NMSE: of its error over the output's power."""

    polynomial: Polynomial
    gain: complex
    stride: int
    train_nmse_db: float
    test_nmse_db: float


def read(folder: PathType, max_samples: int | None = None) -> Record:
    """A folder of spec.json and <split>_input.csv, <split>_output.csv; the first max_samples of each split.

    spec.json: input_signal_fs and bw_main_ch in Hz, description. Raises ValueError naming the file and what it lacks.
    """
    place = Path(folder)
    spec = _spec(place / "spec.json")
    clean, dirty = {}, {}
    for split in SPLITS:
        pair = [place / f"{split}_{end}.csv" for end in ("input", "output")]
        if not pair[0].exists() and split != "train":
            continue
        first, second = (_samples(path, max_samples) for path in pair)
        if first.shape != second.shape:
            raise ValueError(f"{pair[1]}: expected {len(first)} samples as in the input, got {len(second)}")
        clean[split], dirty[split] = first, second
    return Record(clean, dirty, spec["input_signal_fs"], spec["bw_main_ch"], str(spec.get("description", place.name)))


def shipped(name: str) -> Record:
    """One of SHIPPED: the extract that comes with the library. ValueError for other names."""
    if name not in SHIPPED:
        raise ValueError(f"measured: expected one of {', '.join(SHIPPED)}, got '{name}'")
    with safe_open(EXTRACT, "pt") as file:
        card = json.loads(file.metadata()["card"])[name]
        parts = {key: torch.view_as_complex(file.get_tensor(f"{name}/{key}").double()) for key in _KEYS}
    return Record(
        {split: parts[f"{split}_input"] for split in ("train", "test")},
        {split: parts[f"{split}_output"] for split in ("train", "test")},
        card["sample_rate_hz"],
        card["bandwidth_hz"],
        card["source"],
    )


_KEYS = tuple(f"{split}_{end}" for split in ("train", "test") for end in ("input", "output"))


def fitted(
    record: Record,
    orders: tuple[int, ...] = ORDERS,
    delays: Delays = DELAYS,
    stride: int | None = None,
    ridge: float = 1e-6,
) -> Fitted:
    """The polynomial of a record's training samples, for the library's amplifiers.

    The output is divided by the gain <x, y> / <x, x>, so that what is left is distortion. back_off is the input's own
    rms, so that a signal of unit power drives the amplifier as hard as it was driven, and max_amplitude the largest
    input measured: beyond it nothing is known. stride: samples per delay; None: the record's own.
    """
    x, y = record.clean["train"], record.dirty["train"]
    stride = record.stride if stride is None else stride
    gain = torch.vdot(x, y) / squared(x).sum()
    c = fit(x, y / gain, orders, delays, stride, ridge)
    rms = float(squared(x).mean().sqrt())
    model = Polynomial(c, orders, delays, rms, float(x.abs().max()), f"fitted to measured samples: {record.source}")
    errors = [_nmse_db(model, record, split, stride, gain) for split in ("train", "test")]
    return Fitted(model, complex(gain), stride, *errors)


def _nmse_db(model: Polynomial, record: Record, split: str, stride: int, gain: Tensor) -> float:
    """Of the amplifier as it is used, inputs cut; every stride-th sample is a sequence of its own."""
    if split not in record.clean:
        return math.nan
    u, v = record.clean[split], record.dirty[split] / gain
    error = torch.zeros((), dtype=torch.float64)
    for first in range(stride):
        part = u[first::stride, None]
        found = evaluate(part, model.coefficients, model.orders, model.delays, model.max_amplitude)
        error = error + squared(found[:, 0] - v[first::stride]).sum()
    return float(10 * torch.log10(error / squared(v).sum()))


def _spec(path: Path) -> dict[str, Any]:
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; expected a folder with spec.json and CSV files") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from None
    for name in ("input_signal_fs", "bw_main_ch"):
        value = spec.get(name) if isinstance(spec, dict) else None
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            raise ValueError(f"{path}: {name}: expected a frequency in Hz, got {value!r}")
    return spec


def _samples(path: Path, max_samples: int | None) -> Tensor:
    """Complex samples of a CSV with header I,Q."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path}: larger than {MAX_BYTES:.0f} bytes")
        with open(path, encoding="utf-8") as file:
            head = [name.strip() for name in file.readline().split(",")]
            if head != ["I", "Q"]:
                raise ValueError(f"{path}: expected a first line I,Q, got {','.join(head)[:40]!r}")
            values = np.loadtxt(file, delimiter=",", dtype=np.float64, ndmin=2, max_rows=max_samples)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable ({error})") from None
    except ValueError as error:
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from None
    if values.ndim != 2 or values.shape[1] != 2 or not len(values):
        raise ValueError(f"{path}: expected lines of two numbers, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: {int((~np.isfinite(values)).sum())} values are not finite")
    return torch.view_as_complex(torch.from_numpy(np.ascontiguousarray(values)))
