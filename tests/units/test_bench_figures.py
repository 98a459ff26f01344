"""Which points share a panel, what lies on the front, how axes are ticked and how numbers are said."""

import itertools
import json
import math

import pytest

pytest.importorskip("plotly", reason="figures need plotly: pip install hhat[report]")

from hhat.bench.experiment import Experiment, grid
from hhat.bench.report import curves, figures, tradeoff
from hhat.bench.report.at_point import cost, front, times
from hhat.bench.report.panels import panels
from hhat.bench.report.words import best_of, digits, logarithmic, spell_point, title_of
from hhat.cli import common


def row(method, point, value, metric="nmse_db", low=None, high=None, seconds=1e-3):
    low = value - 0.5 if low is None else low
    high = value + 0.5 if high is None else high
    head = {"method": method, "point": point, "metric": metric, "n": 10, "seed": 0}
    return head | {"value": value, "low": low, "high": high, "seconds": seconds}


def drawn(rows, metric="nmse_db"):
    split = panels(r["point"] for r in rows)
    names = {r["method"]: 0 for r in rows}
    names = {method: place for place, method in enumerate(names)}
    return curves.drawing(rows, metric, split, names)


def test_one_panel_per_value_of_what_is_not_the_abscissa():
    points = grid({"profile": ("A", "B", "C", "D"), "snr_db": (0.0, 10.0, 20.0)})
    split = panels(points)
    assert [(panel.title, panel.x, len(panel.points)) for panel in split] == [
        (f"profile {name}", "snr_db", 3) for name in "ABCD"
    ]
    assert sum((panel.points for panel in split), ()) == points
    both = panels(grid({"batch": (1, 64, 1024), "threads": (1, 2)}))
    assert [(panel.title, panel.x) for panel in both] == [("threads 1", "batch"), ("threads 2", "batch")]
    fixed = panels(grid({"snr_db": (15.0,), "false_alarm": (0.001, 0.01)}))
    assert [(panel.title, panel.x) for panel in fixed] == [("", "false_alarm")]


def test_sweeps_of_different_keys_do_not_share_a_panel():
    points = [{"condition": 1.0}, {"condition": 9.0}, {"mean": 0.1}, {"mean": 0.3}, {"rank": 0.5}]
    split = panels(points)
    assert [(panel.title, panel.x, len(panel.points)) for panel in split] == [
        ("", "condition", 2),
        ("", "mean", 2),
        ("rank 0.5", "", 1),
    ]
    names = panels(grid({"profile": ("A", "B")}))
    assert [(panel.title, panel.x) for panel in names] == [("profile A", ""), ("profile B", "")]
    assert [(panel.title, panel.x) for panel in panels([{}, {}])] == [("", "")]


def test_forty_curves_are_four_panels_under_one_legend():
    points = grid({"profile": ("A", "B", "C", "D"), "snr_db": (0.0, 10.0)})
    rows = [row(f"m{i}", point, -i - point["snr_db"]) for i in range(10) for point in points]
    drawing = drawn(rows)
    data = json.loads(drawing.data())
    assert len(data["data"]) == 40 and sum(trace["showlegend"] for trace in data["data"]) == 10
    assert {trace["legendgroup"] for trace in data["data"]} == {f"m{i}" for i in range(10)}
    assert len({trace["xaxis"] for trace in data["data"]}) == 4
    assert [note["text"] for note in data["layout"]["annotations"]] == [f"profile {name}" for name in "ABCD"]
    assert "At profile D, SNR 10 dB least: m9, −19.00 [−19.50, −18.50]" in drawing.says
    for layout, width in zip(data["layouts"], figures.WIDTHS, strict=True):
        boxes = []
        for place in ("", "2", "3", "4"):
            across, up = layout["set"][f"xaxis{place}.domain"], layout["set"][f"yaxis{place}.domain"]
            assert 0 <= across[0] < across[1] <= 1 and 0 <= up[0] < up[1] <= 1
            boxes.append((across, up))
        for (x1, y1), (x2, y2) in itertools.combinations(boxes, 2):
            assert x1[1] < x2[0] or x2[1] < x1[0] or y1[1] < y2[0] or y2[1] < y1[0], "panels overlap"
        columns = len({tuple(across) for across, _ in boxes})
        assert columns == (1 if width < 600 else 2)


def test_single_points_are_bars_from_zero_or_dots_in_db():
    points = grid({"profile": ("A", "B")})
    share = [row(m, p, 0.5, "converged") for m in ("a", "b") for p in points]
    kinds = {trace["type"] for trace in json.loads(drawn(share, "converged").data())["data"]}
    assert kinds == {"bar"}
    errors = [row(m, p, -5.0) for m in ("a", "b") for p in points]
    kinds = {trace["type"] for trace in json.loads(drawn(errors).data())["data"]}
    assert kinds == {"scatter"}
    assert drawn([row("a", {}, None, low=0, high=0)]) is None


def test_a_number_without_an_interval_gets_no_bar_and_the_others_keep_theirs():
    rows = [row("a", {"snr_db": 0.0}, 1.0), row("a", {"snr_db": 10.0}, 2.0) | {"low": None}]
    trace = json.loads(drawn(rows).data())["data"][0]
    assert trace["error_y"]["array"] == [0.5, 0.0] and trace["y"] == [1.0, 2.0]


def test_no_method_beats_one_on_the_front_and_each_off_it_is_beaten():
    values = [(3.0, -9.0), (1.0, -2.0), (2.0, -2.0), (2.0, -5.0), (9.0, -8.9), (1.0, -1.0), (4.0, -9.0), (0.5, 3.0)]
    rows = [row(str(i), {}, value, seconds=seconds) for i, (seconds, value) in enumerate(values)]
    on = {r["method"] for r in front(rows)}
    for i, (time, error) in enumerate(values):
        beaten = any(t <= time and e <= error and (t, e) != (time, error) for t, e in values)
        assert (str(i) in on) != beaten, i
    drawing = cost(rows, "nmse_db", {str(i): i for i in range(len(values))})
    data = json.loads(drawing.data())
    assert len(data["data"]) == 1 + len(values) and data["layout"]["xaxis"]["type"] == "log"
    assert data["data"][0]["x"][:4] == [500.0, 1000.0, 2000.0, 3000.0] and data["data"][0]["line"]["shape"] == "hv"
    assert "0 (3 s, −9.00" in drawing.says
    assert cost(rows[:1], "nmse_db", {"0": 0}) is None


def test_times_are_drawn_in_ms_and_the_least_is_named():
    drawing = times({"slow": 2.0, "fast": 5e-6}, {"slow": 0, "fast": 1})
    assert "Least: fast, 5 µs." in drawing.says
    assert [trace["x"] for trace in json.loads(drawing.data())["data"]] == [[2000.0], [0.005]]


@pytest.mark.parametrize("low, high", [(0.95, 1.06), (0.7, 1.5), (0.5, 4.0), (0.1, 90.0), (1e-3, 1e3), (1e-9, 1e4)])
def test_ticks_of_a_logarithmic_axis_are_few_and_cover_it(low, high):
    ticks = figures.log_ticks([low, high])
    inside = [tick for tick in ticks["tickvals"] if low * 0.999 <= tick <= high * 1.001]
    assert 2 <= len(inside) <= 9 and ticks["tickvals"][0] <= low and len(ticks["tickvals"]) == len(ticks["ticktext"])
    assert len(set(ticks["ticktext"])) == len(ticks["ticktext"])


def test_names_numbers_and_axes_are_said_plainly():
    assert title_of("snr_db") == "SNR in dB" and title_of("position_rmse_m") == "position RMSE in m"
    assert title_of("stage1_nmse_median_db") == "stage1 NMSE median in dB"
    assert (
        title_of("seconds_per_symbol") == "seconds per symbol" and title_of("channels_per_s") == "channels per second"
    )
    assert spell_point({"snr_db": -10, "profile": "A", "hops": 2}) == "SNR −10 dB, profile A, hops 2"
    assert digits(-0.001, "nmse_db") == "0.00" and digits(0.0123) == "0.0123" and digits(-3.14159) == "−3.14"
    assert digits(4.754e-4, "e0") == "4.75e−04" and common.digits(4.754e-4, "e0") == "4.75e-04"
    assert common.interval({"metric": "e0", "low": 3e-4, "high": 0.0512}) == "[3.00e-04, 0.0512]"
    assert common.digits(0.004, "nmse_db") == "0.00" and common.digits(0.0, "e0") == "0.00"
    assert logarithmic("false_alarm", (0.001, 0.01, 0.1)) and not logarithmic("snr_db", (0, 10, 20))
    assert not logarithmic("distance_m", (1.0, 20.0, 40.0, 60.0))


def test_the_best_is_the_least_error_the_greatest_rate_and_the_ratio_nearest_to_one():
    def best(metric, *values):
        found = best_of([row(str(i), {}, value, metric) for i, value in enumerate(values)], metric)
        return None if found is None else found["value"]

    assert best("nmse_db", -3.0, -9.0, 1.0) == -9.0
    assert best("channels_per_s", 3.0, 9.0) == 9.0
    assert best("variance_ratio", 0.5, 1.9, 3.0) == 1.9  # 0.5 is further off by the factor
    assert best("e0", 1.0, 2.0) == 1 and best("gospa_m", 3.0, 2.0) == 2
    assert best("targets_found", 1.0, 2.0) is None and best("nmse_db") is None
    assert math.isclose(best("gain_over_gmp_db", 1.0, 2.5), 2.5)


def test_a_metric_against_another_is_one_drawing_with_a_front():
    """Two methods at bits x rounds: a line per method and panel of points, in one pair of axes."""
    points = grid({"rounds": (1, 2, 3), "bits": (4, 8)})
    price = {(m, repr(p)): p["rounds"] * p["bits"] * (2 if m == "b" else 1) for m in "ab" for p in points}
    error = {key: -1.0 - math.log(spent) + (0.5 if key[0] == "b" else 0) for key, spent in price.items()}
    rows = [row(m, p, price[m, repr(p)], "fronthaul_bits_per_sample") for m in "ab" for p in points]
    rows += [row(m, p, error[m, repr(p)]) for m in "ab" for p in points]
    rows.append(row("b", {"rounds": 9, "bits": 4}, -99.0))  # without a price it has no place
    split, names = panels(r["point"] for r in rows), {"a": 0, "b": 1}
    marks = tradeoff.placed(rows, "nmse_db", "fronthaul_bits_per_sample")
    assert len(marks) == 12 and all(mark.x == price[mark.row["method"], repr(mark.row["point"])] for mark in marks)
    best = tradeoff.unbeaten(marks)
    for mark in marks:
        beaten = any(
            o.x <= mark.x
            and o.row["value"] <= mark.row["value"]
            and (o.x, o.row["value"]) != (mark.x, mark.row["value"])
            for o in marks
        )
        assert beaten == (mark not in best) or any((o.x, o.row["value"]) == (mark.x, mark.row["value"]) for o in best)
    drawing = tradeoff.drawing(rows, "nmse_db", "fronthaul_bits_per_sample", split, names)
    data = json.loads(drawing.data())
    lines = data["data"][1:]
    assert len(lines) == 4 and sum(trace["showlegend"] for trace in lines) == 2
    assert all(trace["x"] == sorted(trace["x"]) and len(trace["x"]) == 3 for trace in lines)
    assert data["data"][0]["line"]["shape"] == "hv" and data["layout"]["xaxis"]["type"] == "log"
    assert f"a at rounds 1, bits 4 (4.00, {digits(-1 - math.log(4), 'nmse_db')} [" in drawing.says
    table = tradeoff.table(rows, "nmse_db", "fronthaul_bits_per_sample")
    assert table.count("<tr") == 13 and table.count(">yes<") == len(best)
    assert tradeoff.drawing(rows[:3], "nmse_db", "fronthaul_bits_per_sample", split, names) is None
    assert (
        tradeoff.drawing(rows, "fronthaul_bits_per_sample", "nmse_db", split, names) is None
    )  # no telling what is good


def test_a_price_is_one_of_the_metrics():
    named = {"name": "a", "title": "b", "waits_for": "c"}
    assert Experiment(**named, metrics=("nmse_db", "bits"), over="bits").over == "bits"
    for over in ("nmse_db", "time"):
        with pytest.raises(ValueError, match=f"over: expected one of .*bits.*, got '{over}'"):
            Experiment(**named, metrics=("nmse_db", "bits"), over=over)
