"""The first real input: re-noised over-the-air captures, every file and user, against measured marks.

Marks: a 60-iteration delay-domain SBL reached -10.0 / -13.7 / -16.7 / -19.3 dB at 0 / 5 / 10 / 15 dB in the worst
case over three files and two users; least squares gives 0 / -5 / -10 / -15 dB by construction.
"""

import os
from pathlib import Path

import pytest

import hhat
from hhat.bench.scores import renoise
from hhat.methods.defaults import method_for

FOLDER = Path(os.environ.get("HHAT_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "renew"
FILES = sorted(FOLDER.glob("*.mat"))
MARKS = {0.0: -10.0, 5.0: -13.7, 10.0: -16.7, 15.0: -19.3}

pytestmark = pytest.mark.skipif(not FILES, reason=f"no RENEW captures in {FOLDER}")


def score(path, name, snr_db):
    slot = hhat.read(path)
    method = method_for(name, slot.obs, slot.about)
    return renoise(slot, snr_db, hhat.generator("renew", snr_db), lambda obs: hhat.solve(method, obs), draws=20)


@pytest.mark.parametrize("snr_db", MARKS)
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
@pytest.mark.parametrize("name", ["sbl", "auto"])
def test_delay_domain_sbl_reaches_its_marks(name, path, snr_db):
    assert float(score(path, name, snr_db).max()) < MARKS[snr_db] + 0.2


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_oamp_in_the_delay_basis(path):
    assert float(score(path, "oamp", 5.0).max()) < -12.5


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_least_squares_is_what_was_added(path):
    assert abs(float(score(path, "ls", 5.0).mean()) + 5.0) < 0.2
