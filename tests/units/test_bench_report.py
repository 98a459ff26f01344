"""The page: self-contained, complete, and drawn from the stored numbers alone."""

import math
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import torch

from tests.units.bench_fakes import EXPERIMENT, Scaled, White

pytest.importorskip("plotly", reason="reports need plotly: pip install hhat[report]")

from hhat.bench import figures
from hhat.bench.capture import file_rows
from hhat.bench.metrics import nmse_db
from hhat.bench.report import file_report, write_report
from hhat.bench.run import run
from hhat.bench.store import Store
from hhat.methods.solve import solve
from hhat.ops import Fourier, Kron, Steering
from hhat.random import generator
from hhat.types import Slot


class Reader(HTMLParser):
    """What a browser would fetch, the text people see, and the scripts that are not the drawing library."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched, self.words, self.scripts, self.ids, self._inside = [], [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self._inside = tag
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                self.fetched.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_data(self, data):
        if self._inside in ("script", "style"):
            if figures.script() not in data:
                self.scripts.append(data)
        else:
            self.words.append(data)

    def handle_endtag(self, tag):
        self._inside = ""


def read(path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text())
    return reader


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    run(EXPERIMENT, "full", folder, progress=False)
    return folder


def test_the_page_is_self_contained_and_holds_the_library_once(runs, tmp_path):
    write_report(runs, tmp_path / "report.html")
    reader = read(tmp_path / "report.html")
    assert [link for link in reader.fetched if not link.startswith("data:")] == []
    own = "".join(reader.scripts)
    assert not re.search(r"https?://|@import|url\(", own) and "Plotly.newPlot" in own
    assert (tmp_path / "report.html").read_text().count(figures.script()) == 1
    assert len(set(reader.ids)) == len(reader.ids) >= 8
    assert (tmp_path / "report.html").stat().st_size < 6e6
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_page_says_what_was_measured_and_how(runs, tmp_path):
    write_report(runs, tmp_path / "report.html")
    words = " ".join(read(tmp_path / "report.html").words)
    for said in (
        "White channels <seen> in white noise",  # escaped, so that it is text and not a tag
        "Claim: shrinking wins",
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
    assert "unfinished" not in words


def test_an_unfinished_run_is_reported_as_such(tmp_path):
    run(EXPERIMENT, "quick", tmp_path, progress=False)
    with Store(tmp_path) as store:
        store.delete(sorted(store.keys())[:5])
    write_report(tmp_path, tmp_path / "report.html")
    assert "unfinished: 13 of 18 cells" in " ".join(read(tmp_path / "report.html").words)
    with Store(tmp_path) as store:
        store.delete(store.keys())
    with pytest.raises(ValueError, match="there are none"):
        write_report(tmp_path, tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()


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
    power, x, title, across = figures.spectrum(h, ("rx_ant", "tx_ant"))
    assert power.shape == (3, 16) and across == "rx ant" and title.startswith("u = sin(angle) at tx ant")
    assert x[int(power[0].argmax())] == u and float(power.max()) == pytest.approx(10 * math.log10(16), abs=1e-3)
    tones = [k for k in range(-26, 27) if k != 0]  # 52 of 53: the carrier is missing
    frequency = torch.tensor(tones, dtype=torch.float64)
    delay = Steering.delay(frequency, torch.tensor([5 / 53], dtype=torch.float64)).dense(torch.complex128)
    power, x, title, _ = figures.spectrum(delay.mT.expand(2, 52), ("rx_ant", "subcarrier"), tones)
    assert x[int(power[1].argmax())] == 5 and title.startswith("delay")
    # a unitary basis keeps the energy, whatever the channel
    flat = torch.view_as_complex(torch.randn(4, 8, 2, generator=generator("energy")))
    spectrum = 10 ** (figures.spectrum(flat, ("rx_ant", "tx_ant"))[0] / 10)
    assert float(spectrum.sum()) == pytest.approx(float(flat.abs().square().sum()), rel=1e-6)
    bins = Kron(Fourier(4), Fourier(8)).apply(flat)
    assert bins.shape == flat.shape


def test_every_style_of_ten_methods_differs():
    styles = [figures._style(place) for place in range(10)]
    assert len({style["line"]["color"] for style in styles}) == 10
    assert len({style["marker"]["symbol"] for style in styles}) == 10


def test_without_plotly_the_error_says_how_to_get_it():
    code = "import sys; sys.modules['plotly'] = None\ntry:\n import hhat.bench.report\nexcept ValueError as e: print(e)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install hhat[report]" in said
