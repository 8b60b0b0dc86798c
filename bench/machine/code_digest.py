"""Digest Python source code, so that comments, docstrings and formatting do not count."""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any


def code_digest(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of the code in Python files, in the given order, as 64 hexadecimal digits.

    The digest is the same for every Python version. A file of another kind counts with all its bytes.
    """
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(_of_code(content) if path.suffix == ".py" else hashlib.sha256(content).digest())
    return digest.hexdigest()


@cache
def _of_code(content: bytes) -> bytes:
    return hashlib.sha256(repr(_without_docstrings(ast.parse(content))).encode()).digest()


def _without_docstrings(node: Any) -> Any:
    """Return a syntax tree as nested tuples, without docstrings and positions.

    `ast.dump` prints absent parts differently in different Python versions, so they are left out here.
    """
    if isinstance(node, list):
        return tuple(_without_docstrings(entry) for entry in node)
    if not isinstance(node, ast.AST):
        return node
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        # A string that stands alone as a statement does nothing: a docstring, or the description of an attribute.
        fields["body"] = [entry for entry in node.body if not _is_text(entry)]
    present = ((name, value) for name, value in fields.items() if value is not None and value != [])
    return type(node).__name__, *((name, _without_docstrings(value)) for name, value in present)


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
