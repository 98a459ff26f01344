"""`amplifier`: gain, memory over symbols and compression of a receive chain's amplifier."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hhat.impairments.base import Impairment, check_errors, check_signal
from hhat.impairments.polynomial import Polynomial, evaluate
from hhat.impairments.presets import preset
from hhat.random import complex_normal


@dataclass(frozen=True, eq=False)
class Amplifier(Impairment):
    """a_pn = sum_{t,k} c_kt u_{p - s_t, n} |u_{p - e_t, n}|^(k-1),   u the input, cut to max_amplitude

    model:         what gives orders k and delays (s, e), in symbols: a `Polynomial`, or the name of one
                   (`hhat.impairments.presets.preset`)
    back_off:      rms, on the model's scale, of an input of unit power; smaller: more linear. None: the model's own
    coefficients:  c, complex, for inputs of unit power: (order, term) of all chains, or (*batch, rx_ant, order, term).
                   None: the model's at this back-off
    clean:         (*batch, pilot, rx_ant), complex
    A common phase passes, f(e^{ja} u) = e^{ja} f(u); with more than order 1 nothing else of linearity does, and memory
    keeps order 1 from being an operator over rx_ant: `op()` is None.
    Raises ValueError for shapes that do not fit. Source: Morgan et al. 2006, eq. (8), as far as it does not look ahead.
    """

    model: str | Polynomial = "warp"
    back_off: float | int | None = None
    coefficients: Tensor | None = None

    def __post_init__(self):
        model = preset(self.model) if isinstance(self.model, str) else self.model
        back_off = model.back_off if self.back_off is None else float(self.back_off)
        check_errors("amplifier", {"back_off": back_off})
        if not back_off:
            raise ValueError("amplifier: back_off: expected a number > 0, got 0")
        c = model.scaled(back_off) if self.coefficients is None else self.coefficients
        wanted = (len(model.orders), len(model.delays))
        if tuple(c.shape[-2:]) != wanted or not c.is_complex():
            have = f"{c.dtype} {tuple(c.shape)}"
            raise ValueError(
                f"amplifier: coefficients: expected complex (*chains, {wanted[0]}, {wanted[1]}), got {have}"
            )
        for name, value in (("model", model), ("back_off", back_off), ("coefficients", c)):
            object.__setattr__(self, name, value)

    @property
    def polynomial(self) -> Polynomial:
        assert isinstance(self.model, Polynomial)
        return self.model

    @property
    def taps(self) -> Tensor:
        assert self.coefficients is not None
        return self.coefficients

    @property
    def max_amplitude(self) -> float:
        """Of the input, before the back-off."""
        assert self.back_off
        return self.polynomial.max_amplitude / self.back_off

    def __call__(self, clean: Tensor) -> Tensor:
        check_signal("amplifier", clean, self.taps.shape[-3] if self.taps.ndim > 2 else None)
        model = self.polynomial
        return evaluate(clean, self.taps, model.orders, model.delays, self.max_amplitude)

    def linear_part(self) -> "Amplifier":
        """Order 1 alone, nothing cut: the limit of small inputs."""
        first = torch.tensor([k == 1 for k in self.polynomial.orders])
        model = replace(self.polynomial, max_amplitude=math.inf)
        return replace(self, model=model, coefficients=self.taps * first[:, None])

    def at_severity(self, severity: float | int) -> "Amplifier":
        """1 + severity (c - 1): at 0 exactly the identity. Amplitudes are cut at max_amplitude / severity."""
        check_errors("amplifier", {"severity": severity})
        identity = self.polynomial.identity()
        cut = math.inf if severity == 0 else self.polynomial.max_amplitude / severity
        model = replace(self.polynomial, max_amplitude=cut)
        return replace(self, model=model, coefficients=identity + severity * (self.taps - identity))

    @classmethod
    def draw(
        cls,
        gen: torch.Generator,
        severity: float | int = 1.0,
        shape: tuple[int, ...] = (8,),
        model: str | Polynomial = "warp",
        back_off: float | int | None = None,
        deviation: float | int = 0.02,
    ) -> "Amplifier":
        """Chains of `shape` (*batch, rx_ant) around a model:  c (1 + deviation CN(0, 1)), `at_severity`."""
        check_errors("amplifier", {"severity": severity, "deviation": deviation})
        own = cls(model, back_off)
        size = (*shape, len(own.polynomial.orders), len(own.polynomial.delays))
        c = own.taps * (1 + deviation * complex_normal(size, gen, torch.complex128))
        return replace(own, coefficients=c).at_severity(severity)

    @classmethod
    def example(cls, gen: torch.Generator, severity: float | int = 1.0) -> tuple["Amplifier", Tensor]:
        return cls.draw(gen, severity, shape=(4,), model="gan-2ghz-lagging"), complex_normal((5, 6, 4), gen)
