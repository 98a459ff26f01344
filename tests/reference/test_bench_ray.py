"""A local Ray cluster gives the numbers of a serial run, and loses nothing with an actor."""

import dataclasses

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install hhat[ray]")

from hhat.bench.experiment import Profile
from hhat.bench.ray_lanes import RayLanes
from hhat.bench.run import complete, run
from tests.units.bench_fakes import EXPERIMENT
from tests.units.test_bench_execute import Deadly
from tests.units.test_bench_run import blobs

# Ray opens sockets and files of its own and leaves some to the garbage collector
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::FutureWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def test_ray_gives_the_serial_numbers_to_the_bit_and_survives_a_killed_actor(tmp_path):
    methods = {**EXPERIMENT.methods, "deadly": lambda scene: Deadly(gain=1.0, fuse=str(tmp_path / "fuse"))}
    labels = ("ls", "best", "boastful", "deadly")
    quick = dataclasses.replace(EXPERIMENT.profiles["quick"], methods=labels)
    experiment = dataclasses.replace(EXPERIMENT, methods=methods, profiles={"quick": quick})
    result = complete(experiment, "quick", tmp_path / "ray", progress=False, lanes=RayLanes("local", 2))
    assert (tmp_path / "fuse").exists() and result.failed == ()
    run(experiment, "quick", tmp_path / "serial", progress=False)
    assert blobs(tmp_path / "ray") == blobs(tmp_path / "serial")


def test_an_address_where_nothing_answers_is_one_line(tmp_path):
    experiment = dataclasses.replace(EXPERIMENT, profiles={"quick": Profile(({"snr_db": 0.0},), 1)})
    with pytest.raises(ValueError, match=r"--ray 127.0.0.1:1: no Ray cluster answers there"):
        run(experiment, "quick", tmp_path, progress=False, lanes=RayLanes("127.0.0.1:1"))
