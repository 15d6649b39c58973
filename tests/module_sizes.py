"""A module past 600 lines, or a function past 70, is asking to be two.  Exit status 1 names them."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

MODULE_LINES = 600
FUNCTION_LINES = 70


def main() -> int:
    root = Path(__file__).parent.parent
    wrong = []
    for path in sorted([*root.glob("livemail/**/*.py"), *root.glob("bench/**/*.py"), *root.glob("tests/**/*.py")]):
        source = path.read_text()
        lines = source.count("\n")
        name = path.relative_to(root)
        if lines > MODULE_LINES:
            wrong.append(f"{name}: {lines} lines, at most {MODULE_LINES}")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or 0) - node.lineno
                if size > FUNCTION_LINES:
                    wrong.append(f"{name}:{node.lineno} {node.name}: {size} lines, at most {FUNCTION_LINES}")
    sys.stdout.writelines(line + "\n" for line in wrong)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
