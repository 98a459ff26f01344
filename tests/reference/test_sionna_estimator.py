"""`hhat.sionna.ChannelEstimator` against closed forms that are written out here, and against Sionna's estimators."""

import math

import pytest
import torch
from torch import Tensor

import hhat
from hhat.random import complex_normal
from hhat.sionna import ChannelEstimator

ofdm = pytest.importorskip("sionna.phy.ofdm", reason="sionna-no-rt is not installed")

DOUBLE = torch.complex128
SYMBOLS, TONES, ANTENNAS = 6, 12, 3
NO = 0.05


def covariance(size: int, decay: float, phase: float) -> Tensor:
    """Hermitian, positive, and complex, so that a lost conjugate shows."""
    lag = torch.arange(size, dtype=torch.float64)[:, None] - torch.arange(size, dtype=torch.float64)
    return torch.polar(decay ** lag.abs(), phase * lag)


SPACE, TIME, FREQ = covariance(ANTENNAS, 0.7, 1.1), covariance(SYMBOLS, 0.97, 0.2), covariance(TONES, 0.9, -0.5)


def grid_of(
    num_tx: int = 1, streams: int = 1, precision: str = "double", guard: tuple[int, int] = (0, 0), dc: bool = False
):
    return ofdm.ResourceGrid(
        SYMBOLS, TONES + sum(guard) + dc, 30e3, num_tx, streams, num_guard_carriers=guard, dc_null=dc,
        pilot_pattern="kronecker", pilot_ofdm_symbol_indices=[1, 4], precision=precision,
    )  # fmt: skip


def sent(pattern, tx: int, stream: int) -> Tensor:
    """Pilots on the grid (symbol, tone), zero elsewhere."""
    grid = torch.zeros(pattern.mask.shape[2:], dtype=DOUBLE)
    grid[pattern.mask[tx, stream].bool()] = pattern.pilots[tx, stream].to(DOUBLE)
    return grid


def closed_form(y: Tensor, pilots: Tensor, covs: tuple[Tensor, ...], no: Tensor) -> tuple[Tensor, Tensor]:
    """LMMSE as one dense system: y (batch, antenna, symbol, tone), no (antenna,)."""
    cov = torch.kron(torch.kron(covs[0], covs[1]), covs[2])
    p = pilots.expand(y.shape[1:]).flatten()
    seen = p.abs() > 0
    a = torch.diag(p)[seen]
    noise = no[:, None].expand(y.shape[1], pilots.numel()).flatten()[seen]
    gain = cov @ a.mH @ torch.linalg.inv(a @ cov @ a.mH + torch.diag(noise).to(DOUBLE))
    mean = y.flatten(1)[:, seen] @ gain.mT
    var = (cov - gain @ a @ cov).diagonal().real
    return mean.unflatten(1, y.shape[1:]), var.unflatten(0, y.shape[1:])


@pytest.mark.parametrize("noise", ["equal", "per antenna"])
def test_joint_lmmse_is_the_closed_form_for_every_stream(noise: str) -> None:
    grid = grid_of(num_tx=2, streams=2)
    y = complex_normal((2, 1, ANTENNAS, SYMBOLS, TONES), hhat.generator("sionna", noise), DOUBLE)
    no = torch.tensor([[[0.05, 0.05, 0.05]]] if noise == "equal" else [[[0.02, 0.3, 0.08]]], dtype=torch.float64)
    est = ChannelEstimator(grid, cov_mat_time=TIME, cov_mat_freq=FREQ, cov_mat_space=SPACE)
    h_hat, err_var = est(y, no.expand(2, 1, 3))
    assert h_hat.shape == err_var.shape == (2, 1, ANTENNAS, 2, 2, SYMBOLS, TONES)
    for tx in range(2):
        for stream in range(2):
            pilots = sent(grid.pilot_pattern, tx, stream)
            mean, var = closed_form(y[:, 0], pilots, (SPACE, TIME, FREQ), no[0, 0])
            assert torch.allclose(h_hat[:, 0, :, tx, stream], mean, atol=1e-9)
            assert torch.allclose(err_var[:, 0, :, tx, stream], var.expand(2, *var.shape), atol=1e-9)


@pytest.mark.parametrize("kind", ["scattered", "boosted"])
def test_patterns_that_are_no_comb(kind: str) -> None:
    mask = torch.zeros(1, 1, SYMBOLS, TONES, dtype=torch.int32)
    mask[0, 0, 1, ::3] = 1
    mask[0, 0, 4, (1 if kind == "scattered" else 0) :: 3] = 1
    gen = hhat.generator("sionna", kind)
    pilots = complex_normal((1, 1, int(mask.sum())), gen, DOUBLE)
    pilots = pilots / pilots.abs() if kind == "scattered" else pilots
    pattern = ofdm.PilotPattern(mask, pilots, precision="double")
    grid = ofdm.ResourceGrid(SYMBOLS, TONES, 30e3, pilot_pattern=pattern, precision="double")
    y = complex_normal((2, 1, ANTENNAS, SYMBOLS, TONES), gen, DOUBLE)
    h_hat, err_var = ChannelEstimator(grid, cov_mat_time=TIME, cov_mat_freq=FREQ, cov_mat_space=SPACE)(y, NO)
    mean, var = closed_form(y[:, 0], sent(pattern, 0, 0), (SPACE, TIME, FREQ), torch.full((ANTENNAS,), NO))
    assert torch.allclose(h_hat[:, 0, :, 0, 0], mean, atol=1e-9)
    assert torch.allclose(err_var[:, 0, :, 0, 0], var.expand(2, *var.shape), atol=1e-9)


def test_nulled_carriers_are_removed_as_sionna_does() -> None:
    grid = grid_of(guard=(2, 1), dc=True)
    y = complex_normal((1, 1, ANTENNAS, SYMBOLS, TONES + 4), hhat.generator("sionna", "null"), DOUBLE)
    h_hat, _ = ChannelEstimator(grid, cov_mat_time=TIME, cov_mat_freq=FREQ)(y, NO)
    plain = ofdm.RemoveNulledSubcarriers(grid, precision="double")(y)
    independent = torch.eye(ANTENNAS, dtype=DOUBLE)
    mean, _ = closed_form(plain[:, 0], sent(grid.pilot_pattern, 0, 0), (independent, TIME, FREQ), torch.full((3,), NO))
    assert torch.allclose(h_hat[:, 0, :, 0, 0], mean, atol=1e-9)


@pytest.mark.parametrize("order", ["t-f-s", "f-t-s", "s-t-f", "s-f-t"])
def test_joint_lmmse_is_never_worse_than_the_sequential_filter(order: str) -> None:
    """Same covariances, same draws of h and noise. The gap is proved positive, so the paired mean must be."""
    grid = grid_of(num_tx=2, precision="single")
    gen = hhat.generator("sionna", "sequential", order)
    count = 150
    roots = [torch.linalg.cholesky(c) for c in (SPACE, TIME, FREQ)]
    theirs = ofdm.LMMSEChannelEstimator(grid, TIME, FREQ, SPACE, order=order)
    ours = ChannelEstimator(grid, cov_mat_time=TIME, cov_mat_freq=FREQ, cov_mat_space=SPACE)
    for no in (1.0, 0.1, 0.01):
        white = complex_normal((count, 2, ANTENNAS, SYMBOLS, TONES), gen, DOUBLE)
        h = torch.einsum("as,ut,gf,bxstf->baxug", *roots, white).to(torch.complex64)
        x = torch.stack([sent(grid.pilot_pattern, tx, 0) for tx in range(2)]).to(torch.complex64)
        noise = complex_normal((count, ANTENNAS, SYMBOLS, TONES), gen, var=no)
        y = ((h * x).sum(2) + noise)[:, None]
        error = {}
        for name, est in (("theirs", theirs), ("ours", ours)):
            h_hat, err_var = est(y, torch.tensor(no))
            error[name] = (h_hat[:, 0, :, :, 0] - h).abs().square().mean((1, 2, 3, 4))
            if name == "ours":  # 150 draws of some 10 degrees of freedom each: 3 % standard error
                assert float(error["ours"].mean() / err_var.mean()) == pytest.approx(1, abs=0.1)
        gain = (error["theirs"] - error["ours"]).double()
        assert float(gain.mean()) > -2 * float(gain.std()) / math.sqrt(count)
        assert float(error["ours"].mean()) <= 1.001 * float(error["theirs"].mean())


@pytest.mark.parametrize("name", ["ls", "rls", "lmmse", "lasso", "omp", "gamp", "oamp", "sbl", "auto"])
def test_any_method_stands_behind_it(name: str) -> None:
    """Better than taking the channel as zero, on a channel of its model class, with a finite variance."""
    grid = grid_of(precision="single")
    gen = hhat.generator("sionna", "methods")
    h = complex_normal((8, 1, ANTENNAS, 1, 1), gen).expand(8, 1, ANTENNAS, SYMBOLS, TONES)
    x = sent(grid.pilot_pattern, 0, 0).to(torch.complex64)
    y = h * x + complex_normal((8, 1, ANTENNAS, SYMBOLS, TONES), gen, var=0.01)
    # a flat channel is one mode per antenna; omp's default of a quarter of the unknowns is too few for so few modes
    method = hhat.method("omp", max_atoms=ANTENNAS) if name == "omp" else name
    h_hat, err_var = ChannelEstimator(grid, method=method)(y, 0.01)
    error = (h_hat[:, :, :, 0, 0] - h).abs().square().mean() / h.abs().square().mean()
    assert float(error) < 0.1
    assert bool(torch.isfinite(err_var).all()) and bool((err_var >= 0).all())


def test_gaussian_methods_agree_under_the_same_prior() -> None:
    grid = grid_of(precision="single")
    y = complex_normal((2, 1, ANTENNAS, SYMBOLS, TONES), hhat.generator("sionna", "agree"))
    known = {"cov_mat_time": TIME, "cov_mat_freq": FREQ, "cov_mat_space": SPACE}
    reference, _ = ChannelEstimator(grid, **known)(y, NO)
    h_hat, _ = ChannelEstimator(grid, method="oamp", **known)(y, NO)
    assert (h_hat - reference).abs().max() <= 1e-3 * reference.abs().max()
    prior = hhat.prior("covariance", factors=(SPACE, TIME, FREQ))
    for est in (ChannelEstimator(grid, prior=prior), ChannelEstimator(grid, hhat.method("lmmse", prior=prior))):
        assert torch.allclose(est(y, NO)[0], reference, atol=1e-5)


def test_batch_is_its_loop_and_scale_is_exact() -> None:
    grid = grid_of(precision="single")
    gen = hhat.generator("sionna", "loop")
    flat = complex_normal((5, 2, ANTENNAS, 1, 1), gen)
    y = flat * torch.linspace(0.5, 2, 5).reshape(5, 1, 1, 1, 1) + complex_normal(
        (5, 2, ANTENNAS, SYMBOLS, TONES), gen, var=0.1
    )
    no = torch.rand(5, 2, generator=gen) * 0.1 + 0.05
    est = ChannelEstimator(grid)
    h_hat, err_var = est(y, no)
    for item in range(5):
        for rx in range(2):
            one, var = est(y[item : item + 1, rx : rx + 1], no[item, rx])
            assert torch.allclose(h_hat[item, rx], one[0, 0], atol=1e-5)
            assert torch.allclose(err_var[item, rx], var[0, 0], rtol=1e-3, atol=1e-7)
    scaled, scaled_var = est(30 * y, 900 * no)
    assert torch.allclose(scaled, 30 * h_hat, rtol=1e-3, atol=1e-3)
    assert torch.allclose(scaled_var, 900 * err_var, rtol=1e-3)


def test_learned_covariance_is_better_than_one_that_ignores_the_array_and_knows_its_error() -> None:
    """A channel of the model's own class, its parameters unknown: exponential delays, Jakes' Doppler, line array.
    Against it, the joint LMMSE that knows delays and Doppler exactly and takes the antennas as independent."""
    symbols, tones, ants, count, no = 14, 48, 16, 40, 0.1
    grid = ofdm.ResourceGrid(symbols, tones, 30e3, pilot_pattern="kronecker", pilot_ofdm_symbol_indices=[2, 11])
    gen = hhat.generator("sionna", "learned")
    lag = torch.arange(tones, dtype=torch.float64)[:, None] - torch.arange(tones)
    freq = 1 / (1 + 2j * math.pi * 0.013 * lag)
    steps = torch.arange(symbols, dtype=torch.float64)
    time = torch.special.bessel_j0(2 * math.pi * 0.005 * (steps[:, None] - steps)).to(DOUBLE)
    roots = []
    for cov in (time, freq):
        values, vectors = torch.linalg.eigh(cov)
        roots.append(vectors * values.clamp_min(0).sqrt())
    # a few directions per draw: the spatial spectrum differs from item to item
    u = torch.rand(count, 1, 2, generator=gen, dtype=torch.float64) * 2 - 1
    steering = torch.polar(torch.ones(()).double(), math.pi * torch.arange(ants).double()[:, None] * u) / math.sqrt(2)
    white = complex_normal((count, 2, symbols, tones), gen, DOUBLE)
    h = torch.einsum("bas,bstf->batf", steering, roots[0] @ white @ roots[1].mT).to(torch.complex64)
    y = (h * sent(grid.pilot_pattern, 0, 0).to(h.dtype) + complex_normal(tuple(h.shape), gen, var=no))[:, None]
    h_hat, err_var = ChannelEstimator(grid)(y, no)
    learned = (h_hat[:, 0, :, 0, 0] - h).abs().square().mean()
    known, _ = ChannelEstimator(grid, cov_mat_time=time, cov_mat_freq=freq)(y, no)

    assert learned < 0.85 * (known[:, 0, :, 0, 0] - h).abs().square().mean()
    assert float(learned / err_var.mean()) == pytest.approx(1, abs=0.25)


def test_wrong_calls_say_what_was_expected() -> None:
    grid = grid_of()
    y = torch.zeros(1, 1, ANTENNAS, SYMBOLS, TONES, dtype=DOUBLE)
    prior = hhat.prior("covariance", factors=(SPACE, TIME, FREQ))
    with pytest.raises(ValueError, match="one of prior, covariances"):
        ChannelEstimator(grid, prior=prior, cov_mat_time=TIME, cov_mat_freq=FREQ)
    with pytest.raises(ValueError, match="together"):
        ChannelEstimator(grid, cov_mat_time=TIME)
    with pytest.raises(ValueError, match=r"cov_mat_freq: expected shape \(12, 12\), got \(6, 6\)"):
        ChannelEstimator(grid, cov_mat_time=TIME, cov_mat_freq=TIME)
    with pytest.raises(ValueError, match="takes no prior"):
        ChannelEstimator(grid, method="ls", prior=prior)
    with pytest.raises(ValueError, match=r"cov_mat_space: expected \(3, 3\)"):
        ChannelEstimator(grid, cov_mat_time=TIME, cov_mat_freq=FREQ, cov_mat_space=TIME)(y, NO)
    with pytest.raises(ValueError, match="y: expected complex"):
        ChannelEstimator(grid)(y[..., :-1], NO)
    with pytest.raises(ValueError, match="no: expected the first axes"):
        ChannelEstimator(grid)(y, torch.ones(2, 1))
    mask = torch.ones(2, 1, SYMBOLS, TONES, dtype=torch.int32)
    both = ofdm.PilotPattern(mask, torch.ones(2, 1, SYMBOLS * TONES, dtype=DOUBLE), precision="double")
    with pytest.raises(ValueError, match="2 streams share symbol 0, subcarrier 0"):
        ChannelEstimator(ofdm.ResourceGrid(SYMBOLS, TONES, 30e3, 2, pilot_pattern=both, precision="double"))


@pytest.mark.parametrize("no", [0.0, 0.1])
def test_silence_gives_zero_and_no_noise_gives_the_channel(no: float) -> None:
    grid = grid_of(precision="single")
    flat = complex_normal((2, 1, ANTENNAS, 1, 1), hhat.generator("sionna", "silence"))
    flat[1] = 0
    x = sent(grid.pilot_pattern, 0, 0).to(torch.complex64)
    for method, tolerance in (("lmmse", 1e-3), ("ls", 1e-2)):  # ls leaves out modes of 1e-4 of the power
        h_hat, err_var = ChannelEstimator(grid, method)(flat * x, no)
        assert bool((h_hat[1] == 0).all()) and bool(torch.isfinite(err_var).all())
        if no == 0:
            assert (h_hat[0, :, :, 0, 0] - flat[0]).abs().max() <= tolerance * flat[0].abs().max()


def test_an_item_that_is_not_finite_is_said_and_stays_alone() -> None:
    grid = grid_of(precision="single")
    y = complex_normal((2, 1, ANTENNAS, SYMBOLS, TONES), hhat.generator("sionna", "nan"))
    y[1, 0, 0, 1, 0] = torch.nan
    known = {"cov_mat_time": TIME, "cov_mat_freq": FREQ}
    for est in (ChannelEstimator(grid), ChannelEstimator(grid, **known)):
        with pytest.warns(RuntimeWarning, match="1 items"):
            h_hat, _ = est(y, NO)
        alone, _ = est(y[:1], NO)
        assert torch.allclose(h_hat[:1], alone, atol=1e-5)
        assert bool(torch.isfinite(h_hat).all())
        assert [int(s) for s in est.estimate(y, NO)[0][0].status[:, 0]] == [hhat.Status.OK, hhat.Status.NONFINITE]
