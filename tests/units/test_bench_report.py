"""The page: self-contained, complete, and drawn from the stored numbers alone."""

import dataclasses
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import torch
from scipy.special import stdtrit

from tests.units.bench_fakes import EXPERIMENT, Scaled, White

pytest.importorskip("plotly", reason="reports need plotly: pip install hhat[report]")

from hhat.bench.claims import Level, Ordering, Words
from hhat.bench.experiment import Profile, grid
from hhat.bench.metrics import nmse_db
from hhat.bench.report import figures, file_report, write_report
from hhat.bench.report.capture import file_rows
from hhat.bench.report.channel import channel_map, spectrum
from hhat.bench.report.verdicts import judged, tally
from hhat.bench.run import run
from hhat.bench.stopping import Stopping, counted_groups, rule_of
from hhat.bench.store import Store
from hhat.bench.summary import group
from hhat.methods.solve import solve
from hhat.ops import Fourier, Kron, Steering
from hhat.random import generator
from hhat.types import Slot


class Reader(HTMLParser):
    """What a browser would fetch, the text people see, and the scripts that are not the drawing library."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched, self.words, self.scripts, self.ids, self.said = [], [], [], [], {}
        self._inside = ""

    def handle_starttag(self, tag, attrs):
        self._inside = tag
        known = dict(attrs)
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            if name in known and not known[name].startswith(("#", "data:")):
                self.fetched.append(known[name])
        if "id" in known:
            self.ids.append(known["id"])
        if known.get("role") == "img":
            self.said[known["id"]] = known["aria-label"]

    def handle_data(self, data):
        if self._inside in ("script", "style"):
            if figures.script() not in data:
                self.scripts.append(data)
        else:
            self.words.append(data)

    def handle_endtag(self, tag):
        self._inside = ""

    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def read(path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text())
    reader.close()
    return reader


def words_of(folder) -> str:
    write_report(folder, folder / "report.html")
    return read(folder / "report.html").text()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    run(EXPERIMENT, "full", folder, progress=False)
    return folder


def test_the_page_is_self_contained_and_holds_the_library_once(runs, tmp_path):
    write_report(runs, tmp_path / "report.html")
    reader = read(tmp_path / "report.html")
    assert reader.fetched == []
    own = "".join(reader.scripts)
    assert not re.search(r"https?://|@import|url\(", own) and "Plotly.newPlot" in own
    document = (tmp_path / "report.html").read_text()
    assert document.count(figures.script()) == 1
    assert len(set(reader.ids)) == len(reader.ids) >= 8
    # what is not the library: one run must leave room for dozens
    assert len(document.encode()) - len(figures.script().encode()) < 1.5e5
    assert (tmp_path / "report.html").stat().st_size < 6e6
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_page_says_what_was_measured_and_how(runs, tmp_path):
    write_report(runs, tmp_path / "report.html")
    words = read(tmp_path / "report.html").text()
    for said in (
        "White channels <seen> in white noise",  # escaped, so that it is text and not a tag
        "1 claim: 1 confirmed, 0 not confirmed, 0 not testable.",
        "shrinking wins",
        "nobody 2000, Fig. 1",
        "✓ confirmed",
        "genie knows the SNR",
        "1 / noise_var",
        "‖ĥ − h‖²",
        "seed 0",
        "Scaled(max_steps=1, gain=1.0, claimed=0.25)",
        "(least error here)",
        "torch threads",
        torch.__version__,
    ):
        assert said in words, said
    assert "unfinished" not in words and "Contents" not in words and "Note:" not in words


def test_every_figure_says_in_words_what_it_shows(runs, tmp_path):
    write_report(runs, tmp_path / "report.html")
    said = read(tmp_path / "report.html").said
    assert len(said) == 4 + 2 + 3  # four metrics, cost and calibration, three pictures
    with Store(runs) as store:
        cells = {(c.method, c.point["snr_db"]): c for c in group(store.cells(store.runs()[0].cells))}
    best = 10 * math.log10(float(cells["genie", 10.0].array("ratio").mean()))
    words = said["run-test-white-full-nmse_db"]
    assert f"At SNR 10 dB least: genie, {best:.2f}".replace("-", "−") in words
    assert "over SNR in dB of ls, best, boastful, silent, genie" in words
    assert "boastful 4" in said["run-test-white-full-deciles"]  # a quarter of its error claimed
    assert "boastful 0" not in said["run-test-white-full-deciles"]


def test_an_unfinished_run_is_reported_as_such(tmp_path):
    run(EXPERIMENT, "quick", tmp_path, progress=False)
    with Store(tmp_path) as store:
        store.delete(sorted(store.keys())[:5])
    assert "unfinished: 13 of 18 cells" in words_of(tmp_path)
    with Store(tmp_path) as store:
        store.delete(store.keys())
    with pytest.raises(ValueError, match="there are none"):
        write_report(tmp_path, tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()


def stopping(half_width: float) -> Profile:
    rule = Stopping(half_width, min_blocks=2)
    return Profile(grid({"snr_db": (0.0, 10.0)}), blocks=6, block_size=40, methods=("ls", "best"), until=rule)


def test_rows_count_up_to_where_their_rule_stops_them(tmp_path):
    # without the rule all six blocks are stored; the same store read with it counts the first few of each row alone
    whole = dataclasses.replace(EXPERIMENT, profiles={"quick": dataclasses.replace(stopping(1.0), until=None)})
    run(whole, "quick", tmp_path, progress=False)
    assert "Methods ended at different numbers" not in words_of(tmp_path)
    with Store(tmp_path) as store:
        last = store.runs()[-1]
        groups = group(store.cells(last.cells))
        ls, best = (next(c for c in groups if c.method == m and c.point["snr_db"] == 10.0) for m in ("ls", "best"))
        # the variance that ls reports is a tenth larger than that of best, and so is its interval: it takes longer
        after_three = {}
        for cells in (ls, best):
            reported = torch.cat([cell.arrays["reported"] for cell in cells.cells[:3]]).double()
            after_three[cells.method] = float(stdtrit(119, 0.975)) * float(reported.std()) / math.sqrt(120)
        limit = (after_three["ls"] + after_three["best"]) / 2
        rule = {"class": "Stopping", "half_width": limit, "metric": "reported", "min_blocks": 2}
        store.put_run(dataclasses.replace(last, key="later", profile="other", recipe={**last.recipe, "until": rule}))
        cut = counted_groups(groups, rule_of({"until": rule}))
    lengths = {c.method: len(c.cells) for c in cut if c.point["snr_db"] == 10.0}
    assert lengths["best"] == 3 < lengths["ls"]
    words = words_of(tmp_path)
    assert f"Methods ended at different numbers of blocks here, 3 to {lengths['ls']}" in words
    assert "unfinished" not in words
    # the column of differences: on the common blocks, by hand
    means = {c.method: torch.cat([b.arrays["ratio"] for b in c.cells[:3]]).double().mean() for c in (ls, best)}
    by_hand = 10 * math.log10(float(means["ls"] / means["best"]))
    other = words[words.index("profile other") :]
    row = re.search(r"against best in dB .*? ls (.*?) best ", other)
    assert row is not None and f"+{by_hand:.2f} [" in row.group(1)


def test_a_row_that_met_its_rule_is_finished_and_one_that_did_not_is_not(tmp_path):
    loose = dataclasses.replace(EXPERIMENT, profiles={"quick": stopping(100.0)})  # met after two blocks
    run(loose, "quick", tmp_path, progress=False)
    with Store(tmp_path) as store:
        keys = [cell.key for cell in store.cells(store.runs()[-1].cells) if cell.block > 1]
        store.delete(keys)
    assert "unfinished" not in words_of(tmp_path)
    with Store(tmp_path) as store:
        wanted = [cell.key for cell in store.cells(store.runs()[-1].cells) if cell.method == "ls"]
        store.delete(wanted[:1])
    assert "unfinished: 3 of 4 rows" in words_of(tmp_path)
    with Store(tmp_path) as store:
        store.delete(wanted)  # two whole rows
    assert "unfinished: 2 of 4 rows" in words_of(tmp_path)
    tight = dataclasses.replace(EXPERIMENT, profiles={"quick": stopping(1e-6)})  # never met: all six blocks are run
    run(tight, "quick", tmp_path, progress=False)
    assert "unfinished" not in words_of(tmp_path)


def test_claims_are_judged_and_counted_over_all_runs(runs, tmp_path):
    claims = (
        Ordering("shrinking wins", "a", methods=("best", "ls")),
        Ordering("shrinking loses", "b", methods=("ls", "best")),
        Level("all is well", "c", method="nobody", high=0.0),
        Words("it works on the air", "d"),
    )
    run(dataclasses.replace(EXPERIMENT, claims=claims), "quick", tmp_path, progress=False)
    plain = dataclasses.replace(EXPERIMENT, name="test/other", claims=claims[:1])
    run(plain, "quick", tmp_path, progress=False)
    words = words_of(tmp_path)
    assert "5 claims: 2 confirmed, 1 not confirmed, 2 not testable." in words
    assert "4 claims: 1 confirmed, 1 not confirmed, 2 not testable" in words  # beside its link
    assert "Contents" in words and "2 runs of test/other and test/white." in words
    assert words.count("✓ confirmed") == 2 and words.count("✗ not confirmed") == 1 and "○ not testable" in words
    # the full run of the same experiment is larger: its claims count in place of the quick one's
    run(EXPERIMENT, "full", tmp_path, progress=False)
    assert "2 claims: 2 confirmed, 0 not confirmed, 0 not testable; of an experiment" in words_of(tmp_path)


def test_claims_of_older_and_newer_stores_are_shown_though_not_judged():
    old = judged({"claim": "shrinking <wins>"}, [])
    assert [(j.claim.text, j.verdict.verdict) for j in old] == [("shrinking <wins>", "not testable")]
    new = judged({"claims": [{"class": "Prophecy", "text": "it will work", "source": "nobody"}]}, [])
    assert new[0].claim.text == "it will work" and "cannot be read" in new[0].verdict.measured
    assert judged({"claim": ""}, []) == [] and tally(old + new) == {"not testable": 2}


def test_cells_of_several_machines_are_listed_and_warned_of(tmp_path):
    run(EXPERIMENT, "quick", tmp_path, progress=False)
    assert "Note:" not in words_of(tmp_path)
    with Store(tmp_path) as store:
        cells = list(store.cells(store.runs()[-1].cells))[:7]
        store.delete([cell.key for cell in cells])
        for cell in cells:
            far = {**cell.machine, "cpu": "Abacus 3000"}
            store.put(dataclasses.replace(cell, machine=far, versions={**cell.versions, "torch": "0.0.1"}))
    words = words_of(tmp_path)
    assert "on 2 machines or devices: times of different machines are not comparable." in words
    assert "mixes 2 versions of PyTorch" in words and "versions of the code" not in words
    assert re.search(r"Abacus 3000 .* 0\.0\.1 \S+ 7 ", words)  # seven of its cells


def capture(truth: bool) -> tuple[Slot, dict, dict]:
    slot = White(snr_db=10.0).draw(30, generator("test", "capture"))
    results = {}
    for name, method in {"ls": Scaled(gain=1.0, claimed=math.inf), "best": Scaled()}.items():
        results[name] = solve(method, slot.obs)
    return (slot if truth else Slot(None, slot.obs, slot.about)), results, {"ls": 1e-5, "best": 2e-3}


def test_a_file_with_truth_is_scored_and_one_without_is_drawn(tmp_path):
    slot, results, seconds = capture(truth=True)
    rows = file_rows(slot, results, seconds)
    assert [(row["method"], row["metric"], row["n"]) for row in rows] == [
        ("ls", "nmse_db", 30),
        ("best", "nmse_db", 30),
        ("best", "variance_ratio", 30),
    ]
    assert rows[0]["value"] == pytest.approx(nmse_db(results["ls"], slot.truth), abs=1e-5)
    assert rows[0]["low"] < rows[0]["value"] < rows[0]["high"] and rows[0]["seconds"] == pytest.approx(1e-5)
    file_report(slot, results, seconds, tmp_path / "with.html")
    words = " ".join(read(tmp_path / "with.html").words)
    assert "NMSE in dB" in words and "truth" in words and "2 ms" in words
    file_report(*capture(truth=False), tmp_path / "without.html")
    words = " ".join(read(tmp_path / "without.html").words)
    assert "NMSE in dB" not in words and "truth" not in words and "One channel" in words
    assert file_rows(*capture(truth=False)) == []
    with pytest.raises(ValueError, match="at least one method"):
        file_report(slot, {}, {}, tmp_path / "none.html")
    with pytest.raises(ValueError, match="cannot write the report"):
        file_report(slot, results, seconds, tmp_path / "nowhere" / "report.html")


def test_a_plane_wave_peaks_at_its_angle_and_a_path_at_its_delay():
    u = 0.25
    h = Steering.ula(16, torch.tensor([u])).dense().mT.expand(3, 16)
    power, x, title, across = spectrum(h, ("rx_ant", "tx_ant"))
    assert power.shape == (3, 16) and across == "rx ant" and title.startswith("u = sin(angle) at tx ant")
    assert x[int(power[0].argmax())] == u and float(power.max()) == pytest.approx(10 * math.log10(16), abs=1e-3)
    tones = [k for k in range(-26, 27) if k != 0]  # 52 of 53: the carrier is missing
    frequency = torch.tensor(tones, dtype=torch.float64)
    delay = Steering.delay(frequency, torch.tensor([5 / 53], dtype=torch.float64)).dense(torch.complex128)
    power, x, title, _ = spectrum(delay.mT.expand(2, 52), ("rx_ant", "subcarrier"), tones)
    assert x[int(power[1].argmax())] == 5 and title.startswith("delay")
    # a unitary basis keeps the energy, whatever the channel
    flat = torch.view_as_complex(torch.randn(4, 8, 2, generator=generator("energy")))
    spread = 10 ** (spectrum(flat, ("rx_ant", "tx_ant"))[0] / 10)
    assert float(spread.sum()) == pytest.approx(float(flat.abs().square().sum()), rel=1e-6)
    bins = Kron(Fourier(4), Fourier(8)).apply(flat)
    assert bins.shape == flat.shape


def test_styles_differ_and_pictures_are_small():
    styles = [figures.style(place) for place in range(20)]
    assert len({(style["line"]["color"], style["marker"]["symbol"]) for style in styles}) == 20
    assert len({style["line"]["color"] for style in styles[:10]}) == 10
    power = torch.randn(128, 128, generator=generator("map")) * 10
    data = channel_map(power, float(power.max()), [float(u) for u in range(128)], "u", "antenna").data()
    assert len(data) < 2 * 128 * 128 and "</" not in data
    drawing = figures.Drawing(figures.go.Figure(figures.go.Scatter(x=[1 / 3], name="</script>")), "", ({},) * 4)
    assert "</script>" not in drawing.data()
    assert json.loads(drawing.data())["data"][0] == {"x": [0.33333], "name": "</script>", "type": "scatter"}


def test_without_plotly_the_error_says_how_to_get_it():
    code = "import sys; sys.modules['plotly'] = None\ntry:\n import hhat.bench.report\nexcept ValueError as e: print(e)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install hhat[report]" in said
