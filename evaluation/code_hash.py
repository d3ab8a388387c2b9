"""Which code measured a figure: a hash that changes with what the code does, not with what it says of itself."""

import ast
import hashlib
import inspect
import io
import tokenize
from functools import cache
from types import ModuleType


def code_hash(*modules: ModuleType) -> str:
    """First twelve hex digits of the sha256 of modules, without their comments, docstrings and white space.

    Args:
        modules: Those that a figure depends on; their order does not matter.
    """
    parts = sorted(f"{module.__name__} {_essence(inspect.getsource(module))}" for module in modules)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


@cache
def _essence(source: str) -> str:
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)  # type: ignore[operator]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, column = token.start
        if token.type == tokenize.COMMENT and lines[row - 1]:
            lines[row - 1] = lines[row - 1][:column]
    return "\n".join(" ".join(line.split()) for line in lines if line.strip())
