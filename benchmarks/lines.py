"""Lines of code, without docstrings, comments and blank lines, by folder: `python benchmarks/lines.py [PACKAGE]`.

The core is what a student reads in an evening: what travels, the frozen backbone, partitions, learners and unlearning.
Reading weights and pre-training do not belong to it, nor do the checks of arguments (`checks.py`).
"""

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

CORE = ("ground", "partitions", "learners", "unlearning", "backbones")
NOT_CORE = ("pretraining", "timm_models", "named", "weights")  # of backbones
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
    core = 0
    for path in sorted(package.rglob("*.py")):
        folder = path.relative_to(package).parts[0].removesuffix(".py")
        counted[folder] += lines_of(path)
        core += lines_of(path) if folder in CORE and path.stem not in NOT_CORE else 0
    for folder, n in counted.items():
        print(f"{folder:20}{n:6}")
    print(f"{'core':20}{core:6}\n{'all':20}{counted.total():6}")


if __name__ == "__main__":
    main()
