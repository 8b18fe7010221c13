#!/usr/bin/env python3
"""A file has at most 600 lines and a function at most 100: more is more than one idea.

C functions are found by the brace in the first column that the formatter puts there;
Python functions by the syntax tree.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

from _repository import files, read, report

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 100
NAME = re.compile(r"(\w+)\(")


def main() -> int:
    complaints = []
    for name in files("*.c", "*.h", "*.py", "*.pyi", "*.sh"):
        text = read(name)
        lines = text.count("\n")
        if lines > FILE_LINES_MAX:
            complaints.append(f"{name}: {lines} lines, at most {FILE_LINES_MAX}")
        for function, first, length in _functions(name, text):
            if length > FUNCTION_LINES_MAX:
                complaints.append(
                    f"{name}:{first}: {function} has {length} lines, at most "
                    f"{FUNCTION_LINES_MAX}"
                )
    return report(complaints)


def _functions(name: str, text: str) -> Iterator[tuple[str, int, int]]:
    if name.endswith((".c", ".h")):
        return _c_functions(text.splitlines())
    if name.endswith((".py", ".pyi")):
        return _python_functions(ast.parse(text, name))
    return iter(())


def _c_functions(lines: list[str]) -> Iterator[tuple[str, int, int]]:
    begin = None
    for at, line in enumerate(lines):
        if line == "{":
            begin = at
        elif line == "}" and begin is not None:
            yield _c_name(lines, begin), begin + 1, at - begin + 1
            begin = None


def _c_name(lines: list[str], begin: int) -> str:
    """The name stands at the start of a line above the brace."""
    for line in reversed(lines[max(0, begin - 12) : begin]):
        match = NAME.match(line)
        if match is not None:
            return match[1]
    return "a function"


def _python_functions(tree: ast.AST) -> Iterator[tuple[str, int, int]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            last = node.end_lineno or node.lineno
            yield node.name, node.lineno, last - node.lineno + 1


if __name__ == "__main__":
    sys.exit(main())
