"""Receive chains: each law against its formula written out, and what it must leave alone."""

import json
import math
from dataclasses import replace

import pytest
import torch

from hhat.impairments.amplifier import Amplifier
from hhat.impairments.chain import Chain
from hhat.impairments.crosstalk import Crosstalk
from hhat.impairments.drift import Drift, Theta
from hhat.impairments.iq_imbalance import IqImbalance
from hhat.impairments.measured import SHIPPED, Record, fitted, read, shipped
from hhat.impairments.phase_noise import PhaseNoise
from hhat.impairments.polynomial import Polynomial, fit, memory
from hhat.impairments.presets import PRESETS, preset
from hhat.impairments.quantiser import Quantiser
from hhat.random import complex_normal, generator

PHASE = 0.1778


def signal(*shape, seed=0, var=1.0):
    return complex_normal(shape, generator("signal", seed), torch.complex128, var)


def energy(x):
    return x.abs().square().sum()


def test_crosstalk_is_its_tridiagonal_matrix_and_stays_local():
    leak = Crosstalk.draw(generator("leak"), shape=(6,), deviation=0.3)
    x = signal(2, 3, 6)
    matrix = torch.eye(6, dtype=torch.float64)
    for row in range(6):
        for column in (row - 1, row + 1):
            if 0 <= column < 6:
                matrix[row, column] = leak.coupling[row]
    torch.testing.assert_close(leak(x), torch.einsum("ij,bpj->bpi", matrix.to(x), x))
    batch = Crosstalk(torch.stack([leak.coupling, 2 * leak.coupling]))
    torch.testing.assert_close(batch(x)[1], Crosstalk(2 * leak.coupling)(x[1]))
    torch.testing.assert_close(batch.op() @ x, batch(x))


def test_iq_imbalance_has_the_image_of_the_phase_error():
    own = IqImbalance(torch.full((4,), PHASE, dtype=torch.float64))
    torch.testing.assert_close(own.image_rejection(), torch.full((4,), math.tan(PHASE / 2) ** 2, dtype=torch.float64))
    # a tone seen alone gives the image alone
    tone = torch.polar(torch.ones(8, dtype=torch.float64), 2 * math.pi * torch.arange(8, dtype=torch.float64) / 8)
    spectrum = torch.fft.fft(own(tone[:, None].expand(8, 4)), dim=0).abs().square()
    torch.testing.assert_close(spectrum[7] / spectrum[1], own.image_rejection())
    # the branches themselves: I at +phase/2, Q at -phase/2, amplitudes 1 +- gain
    x, gain = signal(1, 1, 1), 0.1
    seen = IqImbalance(torch.tensor([PHASE]).double(), torch.tensor([gain]).double())(x)
    half = torch.tensor(PHASE / 2, dtype=torch.float64)
    i = (1 + gain) * (x.real * half.cos() - x.imag * half.sin())
    q = (1 - gain) * (x.imag * half.cos() - x.real * half.sin())
    torch.testing.assert_close(seen, torch.complex(i, q))


def test_the_reals_superpose_through_iq_imbalance_and_the_linear_part_of_a_chain():
    amplifier = Amplifier("gan-2ghz-lagging")
    chain = Theta.alike(amplifier, (5,)).chain(amplifier.linear_part())
    chain = replace(chain, parts=(chain.parts[0], amplifier.linear_part(), chain.parts[2]))
    x, y = signal(2, 4, 5), signal(2, 4, 5, seed=1)
    torch.testing.assert_close(chain(2 * x - 3 * y), 2 * chain(x) - 3 * chain(y))
    assert not torch.allclose(chain(1j * x), 1j * chain(x), rtol=1e-2, atol=1e-2)


def test_amplifier_is_its_sum_written_out():
    own = Amplifier("gan-2ghz-lagging", 0.25)
    x = signal(1, 5, 2, var=0.5)
    table, delays = own.polynomial.coefficients, own.polynomial.delays
    wanted = torch.zeros_like(x)
    at = lambda p: x[:, p] if p >= 0 else torch.zeros_like(x[:, 0])  # noqa: E731
    for p in range(5):
        for row, k in enumerate(own.polynomial.orders):
            for column, (s, e) in enumerate(delays):
                wanted[:, p] += table[row, column] * 0.25 ** (k - 1) * at(p - s) * at(p - e).abs() ** (k - 1)
    torch.testing.assert_close(own(x), wanted)
    assert delays[3] == (0, 3)


def test_amplifier_of_each_chain_and_even_orders():
    model = Polynomial(torch.tensor([[1.0 + 0j], [0.1j]]), (1, 2), memory(1))
    own = Amplifier(model, 1.0, signal(2, 3, 2, 1))
    x = signal(2, 4, 3)
    first, second = own.taps[..., 0, 0][:, None], own.taps[..., 1, 0][:, None]
    torch.testing.assert_close(own(x), x * first + x * x.abs() * second)


def test_amplitudes_beyond_the_record_are_cut():
    model = Polynomial(torch.ones(1, 1, dtype=torch.complex128), (1,), memory(1), 0.5, 1.0)
    own = Amplifier(model)
    assert own.max_amplitude == 2.0
    torch.testing.assert_close(own(torch.tensor([[3j, 1.5]]).cdouble()), torch.tensor([[2j, 1.5]]).cdouble())


def test_presets_hold_what_they_say():
    sizes = {name: model.coefficients.numel() for name, model in PRESETS.items()}
    assert sizes == {"warp": 12, "ding": 9, "gan-2ghz": 5, "gan-2ghz-lagging": 20}
    lagging = {name: any(e > s for s, e in model.delays) for name, model in PRESETS.items()}
    assert lagging == {"warp": False, "ding": False, "gan-2ghz": False, "gan-2ghz-lagging": True}
    assert all(model.source != "not stated" for model in PRESETS.values())
    with pytest.raises(ValueError, match="expected one of warp"):
        preset("none such")


def test_the_published_receiver_distorts_as_much_as_it_should():
    """Total and nonlinear distortion of section 2.2: -8.0 and -21.2 dB, 0.3 times the board's full scale."""
    x = signal(200, 10, 16)
    amplifier = Amplifier("warp", 0.3)
    whole = Theta.alike(amplifier, (16,)).chain(amplifier)
    linear = Chain((whole.parts[0], amplifier.linear_part(), whole.parts[2]))
    level = lambda e: float(10 * torch.log10(energy(e) / energy(x)))  # noqa: E731
    assert level(whole(x) - x) == pytest.approx(-8.0, abs=0.3)
    assert level(whole(x) - linear(x)) == pytest.approx(-21.2, abs=0.5)


def test_a_chain_stays_local_and_the_parts_keep_their_order():
    own = Chain.draw(generator("chain"), shape=(6,))
    x = signal(2, 4, 6)
    other = x.clone()
    other[..., 0] = signal(2, 4, seed=1)
    same = (own(x) == own(other)).all(0).all(0)
    assert same.tolist() == [False, False, True, True, True, True]
    torch.testing.assert_close(own(x), own.parts[2](own.parts[1](own.parts[0](x))))
    assert own.op() is None
    linear = Chain((own.parts[0], PhaseNoise.draw(generator("oscillator"), shape=(4, 6))))
    torch.testing.assert_close(linear.op() @ x, linear(x))


def test_quantiser_rounds_as_a_link_does_and_clips():
    from hhat.decentralized.quantise import MidTread

    link = MidTread(4)
    x = signal(1, 3, 4)
    sent = link.send(x, 3)
    own = Quantiser(link.step(sent.scale).flatten(), 4)
    torch.testing.assert_close(own(x), link.receive(sent))
    full = own.step[0] * 7
    assert float(own(torch.full((1, 1), 99.0 + 0j).cdouble()).real) == pytest.approx(float(full))
    error = own(x) - x
    assert float(torch.view_as_real(error).abs().max()) <= float(own.step[0]) / 2 * (1 + 1e-12)


def test_phase_noise_of_one_oscillator_turns_all_chains_alike():
    own = PhaseNoise.draw(generator("oscillator"), shape=(2000, 3), step_rad=0.1, shared=True)
    x = signal(2000, 3)
    turned = own(x) / x
    torch.testing.assert_close(turned[:, 0], turned[:, 2])
    steps = own.phase_rad.diff(dim=-2)
    assert float(steps.std()) == pytest.approx(0.1, rel=0.05)


def test_fit_finds_the_polynomial_again():
    truth = PRESETS["gan-2ghz-lagging"]
    x = 0.3 * signal(3000)
    y = Amplifier(truth, 1.0)(x[:, None])[:, 0]
    keep = x.abs() < 1  # none is cut
    assert bool(keep.all())
    delays = (*memory(3), (0, 3))
    found = fit(x, y, truth.orders, delays, ridge=0.0)
    # the linear column of (0, 3) is that of (0, 0) again: their sum is what can be known
    wanted = truth.coefficients.clone()
    wanted[0, 0] += wanted[0, 3]
    wanted[0, 3] = 0
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="samples"):
        fit(x[:5], y[:5], truth.orders, delays)


@pytest.mark.parametrize(("name", "train", "test"), [(SHIPPED[0], -31.0, -30.5), (SHIPPED[1], -28.0, -28.0)])
def test_shipped_records_are_fitted_as_well_as_measured(name, train, test):
    own = fitted(shipped(name))
    assert own.train_nmse_db == pytest.approx(train, abs=0.1)
    assert own.test_nmse_db == pytest.approx(test, abs=0.1)
    # an amplifier for signals of unit power, its gain taken out
    x = signal(50, 10, 4)
    y = Amplifier(name)(x)
    assert abs(torch.vdot(x.flatten(), y.flatten()) / energy(x) - 1) < 0.1
    assert float(10 * torch.log10(energy(y - x) / energy(x))) < -15


def test_a_record_says_what_is_wrong_with_it(tmp_path):
    with pytest.raises(ValueError, match=r"spec\.json: no such file"):
        read(tmp_path)
    spec = {"input_signal_fs": 8e8, "bw_main_ch": 2e8, "description": "bench"}
    (tmp_path / "spec.json").write_text(json.dumps(spec | {"bw_main_ch": "wide"}))
    with pytest.raises(ValueError, match="bw_main_ch: expected a frequency"):
        read(tmp_path)
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(ValueError, match=r"train_input\.csv: no such file"):
        read(tmp_path)
    x = signal(300, var=0.1)
    lines = lambda z: "I,Q\n" + "\n".join(f"{v.real:.17g},{v.imag:.17g}" for v in z.tolist())  # noqa: E731
    (tmp_path / "train_input.csv").write_text(lines(x))
    (tmp_path / "train_output.csv").write_text(lines(2 * x[:-1]))
    with pytest.raises(ValueError, match="expected 300 samples"):
        read(tmp_path)
    (tmp_path / "train_output.csv").write_text("I,Q\n1,nan\n" + lines(x).split("\n", 2)[2])
    with pytest.raises(ValueError, match="not finite"):
        read(tmp_path)
    (tmp_path / "train_output.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="first line I,Q"):
        read(tmp_path)
    (tmp_path / "train_output.csv").write_text(lines(2 * x))
    found = read(tmp_path)
    assert isinstance(found, Record) and found.stride == 3
    torch.testing.assert_close(found.clean["train"], x)
    own = fitted(found)
    assert own.gain == pytest.approx(2.0) and math.isnan(own.test_nmse_db)
    torch.testing.assert_close(Amplifier(str(tmp_path))(x[:, None]), x[:, None], rtol=1e-4, atol=1e-4)


def test_drift_is_its_law():
    amplifier = Amplifier("warp")
    law = Drift()
    now, target = law.begin(amplifier, (2, 3)), law.towards(amplifier, (2, 3))
    gains = torch.tensor([1.02, 1.05, 1.10], dtype=torch.float64)
    further = torch.tensor([1.0, 1.02, 1.05], dtype=torch.float64)
    torch.testing.assert_close(now.coefficients[1, 2], amplifier.taps * gains[:, None])
    torch.testing.assert_close(target.coefficients[0, 0], amplifier.taps * (gains * further)[:, None])
    assert now.coupling.unique().tolist() == [0.2239] and target.phase_rad.unique().tolist() == [0.2512]
    # without noise: the distance to theta* falls by 0.995 a slot
    quiet = replace(law, noise=0.0)
    later = now
    for _ in range(3):
        later = quiet.step(later, target, generator("drift"))
    for old, aim, new in zip(now, target, later, strict=True):
        torch.testing.assert_close(new - aim, 0.995**3 * (old - aim))


@pytest.mark.parametrize("kind", ["per_chain", "shared", "none"])
def test_drift_noise_has_its_size_and_its_sharing(kind):
    amplifier = Amplifier("warp")
    law = Drift(rate=0.0, amplifier_noise=kind)
    now = law.begin(amplifier, (4000, 2))
    moved = law.step(now, now, generator("drift", 1))
    step = moved.coefficients - now.coefficients
    size = step.abs().square().mean(0).sqrt()
    wanted = 0.01 * now.coefficients[0].abs().square()
    torch.testing.assert_close(size, torch.zeros_like(size) if kind == "none" else wanted, rtol=0.05, atol=1e-9)
    assert torch.equal(step[:, 0], step[:, 1]) == (kind != "per_chain")
    # coupling walks the same whatever the amplifier does
    assert float((moved.coupling - now.coupling).std()) == pytest.approx(0.01 * 0.2239**2, rel=0.05)
    same = replace(law, amplifier_noise="per_chain").step(now, now, generator("drift", 1))
    assert torch.equal(same.coupling, moved.coupling) and torch.equal(same.phase_rad, moved.phase_rad)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Crosstalk(torch.tensor(0.1)), "coupling"),
        (lambda: Crosstalk.draw(generator("x"), -1.0), "severity"),
        (lambda: Crosstalk(torch.zeros(3))(torch.zeros(2, 4)), "complex tensor"),
        (lambda: Crosstalk(torch.zeros(3))(torch.zeros(2, 4, dtype=torch.complex64)), "pilot, 3"),
        (lambda: IqImbalance(torch.zeros(3), torch.zeros(2)), "one shape"),
        (lambda: PhaseNoise(torch.zeros(3)), "phase_rad"),
        (lambda: PhaseNoise(torch.zeros(3, 1))(torch.zeros(2, 4, dtype=torch.complex64)), "3 symbols"),
        (lambda: Quantiser(torch.tensor([-1.0])), "step"),
        (lambda: Quantiser(torch.ones(1), bits=1), "bits"),
        (lambda: Amplifier("warp", 0.0), "back_off"),
        (lambda: Amplifier("warp", None, torch.zeros(3, 3).cdouble()), "coefficients"),
        (lambda: Polynomial(torch.zeros(1, 1), (0,), memory(1)), "orders"),
        (lambda: Polynomial(torch.zeros(1, 1), (1,), ((0, -1),)), "delays"),
        (lambda: Polynomial(torch.zeros(2, 1), (1,), memory(1)), "coefficients"),
        (lambda: Drift(amplifier_noise="own"), "amplifier_noise"),
        (lambda: Drift(rate=2.0), "rate"),
        (lambda: shipped("none such"), "expected one of"),
    ],
)
def test_what_does_not_fit_is_named(build, words):
    with pytest.raises(ValueError, match=words):
        build()
