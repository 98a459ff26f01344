"""The demo writes what it says, and its numbers are those of the file."""

import hhat
from hhat import demo
from hhat.methods.defaults import method_for


def test_the_demo_writes_a_capture_and_a_page_about_it(tmp_path, capsys):
    rows = demo.demo(tmp_path / "new", snapshots=2)
    slot = hhat.read(tmp_path / "new" / "capture.h5")
    assert slot.obs.y.shape == (2, 16, 38) and slot.truth.h.shape == (2, 16, 64)
    nmse = {row["method"]: row for row in rows if row["metric"] == "nmse_db"}
    assert tuple(nmse) == demo.METHODS
    again = hhat.solve(method_for("rls", slot.obs), slot.obs)
    assert abs(nmse["rls"]["value"] - hhat.nmse_db(again, slot.truth)) < 1e-3
    # what is known or learned of the channel helps
    assert nmse["lmmse"]["value"] < nmse["oamp"]["value"] < nmse["rls"]["value"] < nmse["ls"]["value"]
    printed = capsys.readouterr().out
    assert all(name in printed for name in demo.METHODS) and "report.html" in printed
    page = (tmp_path / "new" / "report.html").read_text()
    assert "https://" not in page.split("<script>")[0] and "oamp" in page


def test_a_folder_that_cannot_be_made_is_one_line_and_two(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert demo.main([str(tmp_path / "taken")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
