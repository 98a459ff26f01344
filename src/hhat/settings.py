"""Settings as a user writes them (`--set key=value`) to the types that a constructor declares."""

import inspect
from collections.abc import Mapping
from typing import Any

WORDS = {"true": True, "false": False, "none": None}


def typed(target: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Text values as the type of the parameter of `target` (class or function) that they name.

    "0.5" -> 0.5, "true" -> True, "none" -> None, "rx_ant,tx_ant" -> ("rx_ant", "tx_ant"), as the annotation allows.
    Values that are no text, and names that `target` does not have, pass as they are.
    Raises ValueError naming the setting, what was expected and what came.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    parameters = inspect.signature(target).parameters
    found = dict(settings)
    for name, text in settings.items():
        if not isinstance(text, str) or name not in parameters:
            continue
        annotation = parameters[name].annotation
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
        guess = _guess(text)
        # most telling reading first: a number, then the text itself, then a tuple of one
        for value in (guess, text, (guess,)):
            try:
                found[name] = adapter.validate_python(value)
                break
            except ValidationError:
                continue
        else:
            raise ValueError(f"{name}: expected {_spelled(annotation)}, got '{text}'")
    return found


def pairs(texts: list[str]) -> dict[str, str]:
    """["strength=0.5", ...] as a dict; ValueError for one without '=' or given twice."""
    found: dict[str, str] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        key = key.strip().replace("-", "_")
        if not sign or not key.isidentifier():
            raise ValueError(f"--set: expected key=value, got '{text}'")
        if key in found:
            raise ValueError(f"--set: '{key}' is given twice")
        found[key] = value.strip()
    return found


def _guess(text: str) -> Any:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if "," in text:
        return tuple(_guess(part.strip()) for part in text.strip("()[]").split(",") if part.strip())
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _spelled(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
