"""Units elsewhere give the same bits, and units that die, hang, raise or send nonsense are lost aloud."""

import os
import signal
import time

import pytest
import torch

import hhat
from hhat.decentralized import (
    Concatenate,
    MidTread,
    PosteriorUpload,
    Processes,
    RawUpload,
    Serial,
    UnitsLostError,
)
from hhat.decentralized.execute import Remote
from hhat.decentralized.split import without_units
from hhat.types import Observation, Status
from tests.units import test_decentralised_feedback
from tests.units.decentralised_fakes import LATE_S, BrokenMethod, BrokenOamp, drawn, local, pattern

GARBAGE = ["raise", "not finite", "wrong shape", "a part missing"]
FIFTY_DEADLINE_S = 1.5
METHODS = {
    "posterior": lambda executor: hhat.method(
        "decentralised", unit=local(), upload=PosteriorUpload(MidTread(6)), executor=executor
    ),
    "extrinsic": lambda executor: hhat.method("decentralised", unit=local(), executor=executor),
    "raw": lambda executor: hhat.method("decentralised", upload=RawUpload(quantiser=MidTread(6)), executor=executor),
    "oamp": lambda executor: hhat.method(
        "oamp-decentralised", prior=pattern(), quantiser=MidTread(8), executor=executor, max_steps=6
    ),
}


def same_bits(executor):
    for label, build in METHODS.items():
        slot = drawn(4, label=label)
        want = hhat.solve(build(Serial()), drawn(4, label=label).obs)
        for _ in range(2):  # the second time the units are there already
            found = hhat.solve(build(executor), slot.obs)
            assert torch.equal(found.belief.mean, want.belief.mean), label
            assert torch.equal(found.belief.var, want.belief.var), label
            assert found.status_counts() == want.status_counts() and "DEGRADED" not in found.status_counts()


def survives_a_kill(executor, kill):
    """A unit killed between two requests is lost in the next, and back, restarted, in the one after."""
    slot = drawn(2, label="kill")
    method = METHODS["extrinsic"](executor)
    whole = hhat.solve(method, slot.obs)
    kill(executor, 2)
    lost = hhat.solve(method, slot.obs)
    assert (
        lost.status_counts() == {"DEGRADED": 2}
        and lost.info["lost_units"].tolist() == [[False, False, True, False]] * 2
    )
    assert "unit 2: its" in lost.info["lost_why"]
    back = hhat.solve(method, slot.obs)
    assert torch.equal(back.belief.mean, whole.belief.mean) and back.status_counts() == {"OK": 2}


def kill_process(executor, place):
    os.kill(executor.pid(place), signal.SIGKILL)
    time.sleep(0.2)


def drops_what_is_late(executor):
    slot = drawn(2, label="late")
    slow = BrokenMethod(unit=local(), executor=executor, how="late", broken=(1,))
    executor.deadline_s = None
    hhat.solve(METHODS["extrinsic"](executor), slot.obs)  # all are up
    executor.deadline_s = 0.5
    start = time.monotonic()
    est = hhat.solve(slow, slot.obs)
    again = hhat.solve(slow, slot.obs)
    assert time.monotonic() - start < LATE_S
    assert est.info["lost_units"].tolist() == again.info["lost_units"].tolist() == [[False, True, False, False]] * 2
    assert "no answer within 0.5 s" in est.info["lost_why"] and "still busy" in again.info["lost_why"]
    executor.deadline_s = None
    time.sleep(LATE_S)
    # the late answer of another request is not taken for this one's
    want = hhat.solve(METHODS["posterior"](Serial()), slot.obs)
    assert torch.equal(hhat.solve(METHODS["posterior"](executor), slot.obs).belief.mean, want.belief.mean)


@pytest.fixture(scope="module")
def processes():
    with Processes() as executor:
        yield executor


@pytest.fixture(scope="module")
def actors():
    pytest.importorskip("ray")
    from hhat.decentralized.ray_units import RayUnits

    with RayUnits() as executor:
        yield executor


def kill_actor(executor, place):
    import ray

    ray.kill(executor.actor(place))
    time.sleep(0.2)


@pytest.mark.parametrize("how", GARBAGE)
def test_a_unit_that_sends_nonsense_is_lost_and_named(how):
    slot = drawn(3)
    est = hhat.solve(BrokenMethod(unit=local(), how=how, upload=PosteriorUpload(), centre=Concatenate()), slot.obs)
    assert est.status_counts() == {"DEGRADED": 3} and "unit 1: " in est.info["lost_why"]
    whole = hhat.solve(METHODS["extrinsic"](None), slot.obs)
    assert whole.status_counts() == {"OK": 3}
    mean, var = est.belief.mean.unflatten(-2, (4, 4)), est.belief.var.unflatten(-2, (4, 4))
    assert bool((mean[:, 1] == 0).all()) and bool(torch.isinf(var[:, 1]).all())
    want = hhat.solve(
        hhat.method("decentralised", unit=local(), upload=PosteriorUpload(), centre=Concatenate()), slot.obs
    ).belief.mean.unflatten(-2, (4, 4))
    assert torch.equal(mean[:, [0, 2, 3]], want[:, [0, 2, 3]]) and bool(torch.isfinite(var[:, [0, 2, 3]]).all())


def test_raw_pilots_without_a_unit_are_the_remaining_pilots():
    slot = drawn(3)
    central = hhat.method("oamp", prior=pattern())
    est = hhat.solve(BrokenMethod(upload=RawUpload(central), how="wrong shape", broken=(0,)), slot.obs)
    keep = without_units(slot.obs.op, 4, (1, 2, 3))
    want = hhat.solve(central, Observation(slot.obs.y[..., 2:, :], keep, slot.obs.noise_var, slot.obs.axes))
    torch.testing.assert_close(est.belief.mean, want.belief.mean, rtol=1e-3, atol=1e-4)
    assert est.status_counts() == {"DEGRADED": 3}


@pytest.mark.parametrize("how", GARBAGE)
def test_rounds_without_a_unit_are_oamp_on_the_remaining_pilots(how):
    slot = drawn(3)
    est = hhat.solve(BrokenOamp(prior=pattern(), how=how, broken=(3,), max_steps=6, tol=-1.0), slot.obs)
    rows = Observation(slot.obs.y[..., :6, :], without_units(slot.obs.op, 4, (0, 1, 2)), slot.obs.noise_var)
    central = hhat.solve(hhat.method("oamp", prior=pattern(), average_axes=(-2,)), rows, 6, -1.0)
    # only where all pilots scale the start (their energy comes before the first round) do they differ at all;
    # coefficients, as the channel of lost antennas is read out otherwise (`beyond`)
    found, want = est.info["coefficients"].mean, central.info["coefficients"].mean
    assert float((found - want).abs().square().sum()) < 0.02 * float(want.abs().square().sum())
    whole = hhat.solve(hhat.method("oamp-decentralised", prior=pattern()), slot.obs, 6, -1.0)
    assert est.status_counts() == {"DEGRADED": 3} and est.belief.var.mean() > whole.belief.var.mean()


def test_no_unit_left_is_an_error_and_a_wrong_call_no_loss():
    slot = drawn(3)
    for build in (BrokenMethod, BrokenOamp):
        with pytest.raises(UnitsLostError, match="no unit of 4 answered: unit 0: RuntimeError: out of order; unit 1"):
            hhat.solve(
                build(prior=pattern(), broken=(0, 1, 2, 3))
                if build is BrokenOamp
                else build(unit=local(), broken=(0, 1, 2, 3)),
                slot.obs,
            )
        with pytest.raises(ValueError, match="no such thing"):
            hhat.solve(build(how="wrong call"), slot.obs)


def test_an_item_that_one_unit_cannot_solve_is_degraded_alone():
    slot = drawn(3)

    class Odd(type(local())):
        def read(self, state, obs):
            est = super().read(state, obs)
            bad = torch.zeros(3, 1, 1, dtype=torch.bool)
            bad[1] = bool((obs.y == slot.obs.y[..., 2:4, :]).all())
            est.belief.mean[bad.expand(est.belief.mean.shape)] = torch.nan
            return est

    unit = Odd(**vars(local()))
    est = hhat.solve(hhat.method("decentralised", unit=unit, upload=PosteriorUpload()), slot.obs)
    assert [Status(s).name for s in est.status.tolist()] == ["OK", "DEGRADED", "OK"]
    assert est.info["lost_units"].tolist() == [[False] * 4, [False, True, False, False], [False] * 4]
    good = hhat.solve(hhat.method("decentralised", unit=local(), upload=PosteriorUpload()), slot.obs)
    torch.testing.assert_close(est.belief.mean[[0, 2]], good.belief.mean[[0, 2]], rtol=1e-3, atol=1e-4)


def test_processes_give_the_serial_numbers_to_the_bit(processes):
    same_bits(processes)
    test_decentralised_feedback.same_bits(processes)


def test_a_killed_process_is_lost_once(processes):
    survives_a_kill(processes, kill_process)


def test_a_process_killed_at_work_is_lost(processes, tmp_path):
    slot = drawn(2, label="at work")
    est = hhat.solve(BrokenMethod(unit=local(), executor=processes, how="kill", fuse=str(tmp_path / "fuse")), slot.obs)
    assert est.status_counts() == {"DEGRADED": 2} and "unit 1: its process died" in est.info["lost_why"]


def test_a_stopped_process_that_does_not_read_blocks_nobody(processes):
    """A request larger than the pipe's buffer, to a process that is stopped: the deadline holds all the same."""
    slot = drawn(600, label="large")
    method = METHODS["extrinsic"](processes)
    hhat.solve(method, slot.obs)
    os.kill(processes.pid(0), signal.SIGSTOP)
    processes.deadline_s = 2.0
    try:
        start = time.monotonic()
        est = hhat.solve(method, slot.obs)
        assert time.monotonic() - start < 10 and est.info["lost_units"][0].tolist() == [True, False, False, False]
    finally:
        processes.deadline_s = None
        os.kill(processes.pid(0), signal.SIGCONT)
        time.sleep(0.5)


def test_late_answers_of_processes_are_dropped(processes):
    drops_what_is_late(processes)


def test_nothing_is_left_of_closed_processes():
    executor = Processes()
    hhat.solve(METHODS["extrinsic"](executor), drawn(1).obs)
    pids = [executor.pid(place) for place in range(4)]
    executor.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_deadlines_are_times():
    for wrong in (0, -1.0):
        with pytest.raises(ValueError, match="deadline_s"):
            Remote.__init__(Processes.__new__(Processes), wrong)


def test_actors_give_the_serial_numbers_and_lose_aloud(actors):
    same_bits(actors)
    survives_a_kill(actors, kill_actor)
    drops_what_is_late(actors)


@pytest.mark.slow
def test_fifty_kills_without_a_hang(processes, actors):
    for _ in range(50):
        survives_a_kill(processes, kill_process)
        survives_a_kill(actors, kill_actor)


def fifty_times(executor, how, tmp_path):
    """A fault in one request of two, fifty times: no hang, the answer that of the three units in this process, to the
    bit, and the next request whole again."""
    slot = drawn(2, label="fifty")
    whole = hhat.solve(METHODS["extrinsic"](Serial()), slot.obs)
    lost = hhat.solve(BrokenMethod(unit=local(), how="raise"), slot.obs)
    assert not torch.equal(whole.belief.mean, lost.belief.mean)
    hhat.solve(METHODS["extrinsic"](executor), slot.obs)  # all are up
    longest = 0.0
    executor.deadline_s = FIFTY_DEADLINE_S if how == "late" else None
    try:
        for number in range(50):
            method = BrokenMethod(unit=local(), executor=executor, how=how, fuse=str(tmp_path / f"{how} {number}"))
            start = time.monotonic()
            est = hhat.solve(method, slot.obs)
            longest = max(longest, time.monotonic() - start)
            assert est.status_counts() == {"DEGRADED": 2}, (number, est.info["lost_why"])
            assert est.info["lost_units"].tolist() == [[False, True, False, False]] * 2
            assert torch.equal(est.belief.mean, lost.belief.mean) and torch.equal(est.belief.var, lost.belief.var)
            if how == "late":
                time.sleep(LATE_S - FIFTY_DEADLINE_S + 0.3)
            est = hhat.solve(method, slot.obs)
            assert est.status_counts() == {"OK": 2}, (number, est.info["lost_why"])
            assert torch.equal(est.belief.mean, whole.belief.mean) and torch.equal(est.belief.var, whole.belief.var)
    finally:
        executor.deadline_s = None
    assert longest < (LATE_S if how == "late" else 20.0)
    print(f"{how}: longest request {longest:.2f} s")


@pytest.mark.slow
@pytest.mark.parametrize("how", [*GARBAGE, "kill", "late"])
def test_fifty_faults_of_processes(processes, tmp_path, how):
    fifty_times(processes, how, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("how", [*GARBAGE, "kill", "late"])
def test_fifty_faults_of_actors(actors, tmp_path, how):
    fifty_times(actors, how, tmp_path)
