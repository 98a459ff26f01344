"""How the report says metrics, points, numbers and times; which end of a metric is the good one."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hhat.bench.summary import Row, has_number

Number = float | int

TITLES = {
    "nmse_pooled_db": "pooled NMSE in dB",
    "nmse_median_db": "median NMSE in dB",
    "variance_ratio": "squared error / reported variance",
    "channels_per_s": "channels per second",
    "batch": "channels per call",
    "fronthaul_bits_per_sample": "fronthaul bits per pilot resource element and unit",
    "log10_condition": "log10 of the condition number",
    "converged": "share that converged",
    "e0": "e0, what the beam loses",
    "e1": "e1, the same without the common shift",
    "gospa_m": "GOSPA in m",
    "after": "snapshots seen",
}
UNITS = ("db", "s", "hz", "m", "rad", "deg")
INITIALS = {"snr": "SNR", "nmse": "NMSE", "rmse": "RMSE", "db": "dB", "hz": "Hz", "los": "LOS"}
DEFINITIONS = {
    "nmse_db": "10 log10 of the mean over realisations of ‖ĥ − h‖² / ‖h‖²; interval: 95 %, delta method",
    "nmse_pooled_db": "10 log10 of Σ‖ĥ − h‖² / Σ‖h‖²; interval: 95 %, delta method",
    "nmse_median_db": "10 log10 of the median of ‖ĥ − h‖² / ‖h‖²; interval: 95 %, order statistics",
    "variance_ratio": "squared error / reported variance, both summed over all realisations: 1 is honest, above 1 too "
    "sure of itself; interval: 95 %, delta method. A method without a variance has none",
    "channels_per_s": "geometric mean over blocks; interval: 95 %, Student's t on the logarithm",
}
ROOT = (
    "root of the mean over realisations of the squares that the experiment's score keeps; interval: 95 %, delta method"
)
MEAN = "mean over realisations of what the experiment's score keeps; interval: 95 %, Student's t"
LESS, MORE, ONE = "less", "more", "one"
"""Which value of a metric is the best: the least, the greatest, the one nearest to 1"""
GAIN_ERRORS = ("e0", "e1")
LOGARITHMIC = ("variance_ratio", "channels_per_s", "batch", "fronthaul_bits_per_sample", *GAIN_ERRORS, "expected_e0")
SPREAD, EVEN_STEPS = 30.0, 2.5
"""A sweep over positive values is drawn on a logarithmic axis if it spans 30 and its ratios differ by at most 2.5"""


def title_of(name: str) -> str:
    """snr_db -> SNR in dB; the names of metrics and of keys of points end in their unit."""
    if name in TITLES:
        return TITLES[name]
    *head, last = name.split("_")
    if head and last in UNITS and head[-1] != "per":
        return f"{_spelled(head)} in {INITIALS.get(last, last)}"
    return _spelled([*head, last])


def definition_of(metric: str) -> str:
    return DEFINITIONS.get(metric, ROOT if _is_root(metric) else MEAN)


def _is_root(metric: str) -> bool:
    return "rmse" in metric or metric.startswith("gospa")


def good_end(metric: str) -> str:
    """LESS, MORE or ONE; empty where the name does not tell."""
    if metric == "variance_ratio":
        return ONE
    if "nmse" in metric or _is_root(metric) or metric.startswith(("seconds", "gap_to", "deviation")):
        return LESS
    if metric in GAIN_ERRORS:
        return LESS
    return MORE if metric in ("channels_per_s", "converged", "detection_probability") or "gain_over" in metric else ""


def best_of(rows: Iterable[Row], metric: str) -> Row | None:
    """The row with the best value of a metric; None where there is no number or no telling which is good.
    Bounds do not count: nobody reached them."""
    shown = [row for row in rows if row["metric"] == metric and has_number(row) and row["seconds"] is not None]
    end = good_end(metric)
    if not shown or not end:
        return None
    if end == ONE:
        return min(shown, key=lambda row: abs(math.log(row["value"])) if row["value"] > 0 else math.inf)
    return (min if end == LESS else max)(shown, key=lambda row: row["value"])


def logarithmic(name: str, values: Iterable[Number] = ()) -> bool:
    """Is this metric, or a sweep over these values, drawn on a logarithmic axis?"""
    if name in LOGARITHMIC or name.startswith("seconds"):
        return True
    steps = sorted({float(value) for value in values})
    if len(steps) < 3 or steps[0] <= 0 or steps[-1] < SPREAD * steps[0]:
        return False
    ratios = [high / low for low, high in itertools.pairwise(steps)]
    return max(ratios) <= EVEN_STEPS * min(ratios)


def spell_value(key: str, value: Any) -> str:
    """10.0 of snr_db -> 10 dB."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    said = f"{value:g}".replace("-", "−") if number else str(value)
    unit = key.rsplit("_", 1)[-1] if "_" in key else ""
    return f"{said} {INITIALS.get(unit, unit)}" if number and unit in UNITS else said


def spell_key(key: str) -> str:
    """The name of a key without its unit, which its value carries."""
    return key if key in TITLES else title_of(key).rsplit(" in ", 1)[0]


def spell_point(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{spell_key(key)} {spell_value(key, value)}" for key, value in point.items()) or "the only point"


def digits(value: Number, metric: str = "") -> str:
    """Two decimals, none where the number is large; three digits where it is small (4.75e−04), unless it is in dB."""
    if metric.endswith("_db"):
        return f"{value:z.2f}".replace("-", "−")
    if value != 0 and abs(value) < 0.1:
        spelled = f"{value:.3g}" if abs(value) >= 1e-2 else f"{value:.2e}"
    else:
        spelled = f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return spelled.replace("-", "−")


def interval(low: Number | None, high: Number | None, metric: str = "") -> str:
    """[low, high]; empty where one block gives none."""
    if low is None or high is None or not math.isfinite(low) or not math.isfinite(high):
        return ""
    return f"[{digits(low, metric)}, {digits(high, metric)}]"


def measured(row: Row) -> str:
    """Value and interval in one line."""
    if row["value"] is None:
        return "not a number"
    if row["value"] == -math.inf:
        return "exact"
    metric = row["metric"]
    return f"{digits(row['value'], metric)} {interval(row['low'], row['high'], metric)}".strip()


def time_of(seconds: Number) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def count(number: int, one: str, many: str = "") -> str:
    """1 run, 2 runs."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def listed(words: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""


def _spelled(parts: Sequence[str]) -> str:
    return " ".join(INITIALS.get(part, part) for part in parts)
