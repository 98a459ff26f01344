"""The battery must catch mistakes: each test plants one in the library and expects a contract to fail. That the slow
ones among the contracts hold without it is what their own tests say."""

import pytest
import torch

from hhat.methods import base as methods_base
from hhat.methods import oamp
from hhat.ops import Dense, structured
from hhat.priors import Mixture
from hhat.types import Gaussian
from tests.contracts import test_operators, test_priors
from tests.statistical import test_calibration, test_limits
from tests.units import test_operators as operator_matrices


def test_missing_conjugate(monkeypatch):
    def adjoint(self, y):
        return self._times(self.matrix.mT, y, self.out_shape, self.in_shape)

    test_operators.test_adjoint_identity("Dense", torch.complex128)
    monkeypatch.setattr(Dense, "adjoint", adjoint)
    with pytest.raises(AssertionError):
        test_operators.test_adjoint_identity("Dense", torch.complex128)


def test_kronecker_convention(monkeypatch):
    def wrong(left, right, x):
        """Y = left X conj(right)^T: the vec() of another convention."""
        return structured_both(left, Dense(right.dense(torch.complex128).conj()), x)

    structured_both = structured._both
    operator_matrices.check_kron_is_torch_kron()
    monkeypatch.setattr(structured, "_both", wrong)
    with pytest.raises(AssertionError):
        operator_matrices.check_kron_is_torch_kron()


def test_kronecker_order(monkeypatch):
    both = structured._both
    operator_matrices.check_kron_is_torch_kron(3, 3)
    monkeypatch.setattr(structured, "_both", lambda left, right, x: both(right, left, x))
    with pytest.raises(AssertionError):
        operator_matrices.check_kron_is_torch_kron(3, 3)


def test_variance_per_real_dimension(monkeypatch):
    components = Mixture._components
    prior = test_priors.build("bernoulli-gauss")
    test_priors.test_reported_variance_is_the_error(prior, 1.0)
    monkeypatch.setattr(Mixture, "_components", lambda self, r: components(self, Gaussian(r.mean, r.var / 2)))
    with pytest.raises(AssertionError):
        test_priors.test_reported_variance_is_the_error(prior, 1.0)


def test_missing_extrinsic(monkeypatch):
    test_limits.check_gaussian_limit("oamp", max_steps=300)
    monkeypatch.setattr(oamp, "extrinsic", lambda after, before: after)
    with pytest.raises(AssertionError):
        test_limits.check_gaussian_limit("oamp", max_steps=300)


@pytest.mark.parametrize("module", ["oamp", pytest.param("amp", marks=pytest.mark.slow)])
def test_doubled_noise(monkeypatch, module):
    import importlib

    case = {"oamp": "oamp known", "amp": "gamp known"}[module]
    annealed = methods_base.annealed_noise
    target = importlib.import_module(f"hhat.methods.{module}")
    monkeypatch.setattr(target, "annealed_noise", lambda state, obs: 2 * annealed(state, obs))
    with pytest.raises(AssertionError):
        test_calibration.check_calibration(case)
