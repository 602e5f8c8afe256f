"""Lines of code, without docstrings, comments and blank lines, by folder: `python benchmarks/lines.py [PACKAGE]`.

The core is what a student reads in an evening; it has to stay below 1,500 lines.
"""

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

CORE = ("ground", "partitions", "backbones", "learners", "unlearning")
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of(path: Path) -> int:
    """Lines of a file that hold code."""
    text = path.read_text()
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            docstrings |= set(range(body[0].lineno, body[0].end_lineno + 1))
    code = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings)


def main() -> None:
    """Print the table."""
    package = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "lmeraser_kit")
    counted: Counter = Counter()
    for path in sorted(package.rglob("*.py")):
        counted[path.relative_to(package).parts[0].removesuffix(".py")] += lines_of(path)
    for folder, n in counted.items():
        print(f"{folder:20}{n:6}")
    core = sum(counted[name] for name in CORE)
    print(f"{'core':20}{core:6}\n{'all':20}{counted.total():6}")


if __name__ == "__main__":
    main()
