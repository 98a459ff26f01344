"""hhat: received pilots in, channel estimates with their variance out.

Names are looked up on first use, so that importing `hhat` (and `hhat --help`) does not import torch.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "Gaussian": "hhat.types",
    "Message": "hhat.types",
    "Observation": "hhat.types",
    "Estimate": "hhat.types",
    "Slot": "hhat.types",
    "Status": "hhat.types",
    "generator": "hhat.random",
    "posterior": "hhat.ops",
    "solve": "hhat.methods.solve",
    "track": "hhat.methods.solve",
    "save_state": "hhat.methods.state",
    "load_state": "hhat.methods.state",
    "read": "hhat.io",
    "write": "hhat.io",
    "calibrate": "hhat.sensing.calibrator",
    "follow": "hhat.sensing.calibrator",
    "nmse_db": "hhat.bench.metrics",
}
_FACTORIES = ["calibrator", "impairment", "m_step", "method", "prior", "scenario"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'hhat' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*_WHERE, *_FACTORIES])


def method(name: str, **settings: Any) -> Any:
    """A registered method with its settings, e.g. `method("oamp", prior=prior("bernoulli-gauss"))`."""
    return _build("methods", name, settings)


def prior(name: str, **settings: Any) -> Any:
    """A registered prior with its settings, e.g. `prior("gauss", var=2.0)`."""
    return _build("priors", name, settings)


def m_step(name: str, **settings: Any) -> Any:
    """A registered M-step with its settings, e.g. `method("sbl", m_step=m_step("pattern-coupled", coupling=0.5))`."""
    return _build("m-steps", name, settings)


def scenario(name: str, **settings: Any) -> Any:
    """A registered scenario with its settings, e.g. `scenario("cdl", profile="C")`."""
    return _build("scenarios", name, settings)


def impairment(name: str, **settings: Any) -> Any:
    """A registered impairment with its settings."""
    return _build("impairments", name, settings)


def calibrator(name: str, **settings: Any) -> Any:
    """A registered calibrator with its settings, e.g. `calibrator("gradient", batch=512)`."""
    return _build("calibrators", name, settings)


def _build(kind: str, name: str, settings: dict[str, Any]) -> Any:
    from hhat import registry

    return registry.build(kind, name, settings)
