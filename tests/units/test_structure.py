"""Imports run one way, nothing global or unsafe hides in the library, and every registered name exists."""

import ast
from pathlib import Path

import pytest

from hhat import registry

SOURCE = Path(__file__).parents[2] / "src" / "hhat"
ORDER = (
    ["types", "random", "registry", "settings"],
    ["ops"],
    ["impairments", "nr"],
    ["nets"],
    ["priors"],
    ["methods"],
    ["tracking", "distortion", "sensing", "extrapolation", "decentralized", "sionna"],
    ["scenarios", "train", "io"],
    ["bench"],
    ["experiments"],
    ["cli", "demo"],
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
FILES = sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree: ast.AST, top_only: bool):
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_run_one_way(path):
    here = room(path)
    if here == "__init__":
        return
    for module in imported(ast.parse(path.read_text()), top_only=False):
        if module.startswith("hhat."):
            there = module.split(".")[1]
            assert RANK[there] <= RANK[here], f"{path.relative_to(SOURCE)} imports hhat.{there}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_file_is_one_idea_without_traps(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 500
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.args.kwarg:
            assert path.name == "__init__.py" and room(path) == "__init__", "**kwargs outside the four factories"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, "a bare except swallows everything"
    heavy = {"sionna", "plotly", "ray", "onnx", "csiread", "matplotlib"}
    for module in imported(tree, top_only=True):
        if module.split(".")[0] in heavy:
            assert path.name == "figures.py", f"{module} is imported at the top of {path.name}"
    assert "pickle" not in set(imported(tree, top_only=False))
    for call in ("allow_pickle=True", "torch.load(", "np.random.seed(", "torch.manual_seed("):
        assert call not in text, call


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_registered_name_exists(kind):
    for name in registry.KINDS[kind]:
        assert registry.load(kind, name) is not None
