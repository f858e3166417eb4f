"""Which files a script runs through, and a digest of the code in each.

DVC does not follow Python imports. Here they are followed file by file, so that a stage runs again
after a change to its own code, and after no other.
"""

import ast
import hashlib
import io
import token
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from mitfrnet.errors import ParamsError
from mitfrnet.files import sha256_of

# What a file imports by names that are made while it runs: its path, and the modules.
NamedImports = Mapping[str, Iterable[str]]


def code_digests(script: Path, named: NamedImports, root: Path = Path()) -> dict[str, str]:
    """Return the digest of every file that a script runs through, by its path below `root`.

    Imports inside functions count; those under `if TYPE_CHECKING` do not. Files that are not
    Python, such as templates and style sheets, count where the name of the file is written in a
    file that counts.

    Args:
        script: the file that is run, below `root`.
        named: the modules that some files import by names made while they run, by the path of
            the file.
        root: the folder that holds the packages; modules outside it are not followed.

    Raises:
        ParamsError: a file is not valid Python.
    """
    reached: set[Path] = set()
    waiting = [script, *_packages(script, root)]
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            by_name = named.get(path.as_posix(), ())
            with _refusing(root / path):
                text = (root / path).read_text(encoding="utf-8")
                imported = _imports(text, ".".join(path.parent.parts))
            for module in [*imported, *by_name]:
                waiting += _files_of(module, root)
    digests = {p.as_posix(): source_digest(root / p) for p in reached}
    digests |= {p.as_posix(): sha256_of(root / p) for p in _data_files(reached, root)}
    empty = source_digest_of_text("")
    return {path: digests[path] for path in sorted(digests) if digests[path] != empty}


def source_digest(path: Path) -> str:
    """Return the SHA-256 of a Python file without comments, docstrings and blank lines.

    It is the same for every version of Python.

    Raises:
        ParamsError: the file is not valid Python.
    """
    with _refusing(path):
        return source_digest_of_text(path.read_text(encoding="utf-8"))


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn what a file that is not Python raises into a `ParamsError`."""
    try:
        yield
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
        raise ParamsError(f"{path}: not valid Python ({error})") from error


def source_digest_of_text(text: str) -> str:
    """Return what `source_digest` returns for a file with this text."""
    return hashlib.sha256(_without_remarks(text).encode()).hexdigest()


@cache
def _without_remarks(text: str) -> str:
    """Return source code without comments, docstrings and blank lines."""
    # Text is cut by its position: what `ast` and `tokenize` make of it differs between versions.
    lines = text.split("\n")
    kept_whole: set[int] = set()  # rows inside strings, where blanks matter
    for kind, start, end in _strings_and_comments(text):
        if kind == token.COMMENT:
            lines[start[0] - 1] = lines[start[0] - 1][: start[1]].rstrip()
        else:
            kept_whole.update(range(start[0] - 1, end[0]))
    for first, last in _docstrings(text):
        lines[first:last] = [""] * (last - first)
        kept_whole -= set(range(first, last))
    code = (x if row in kept_whole else x.rstrip() for row, x in enumerate(lines))
    return "\n".join(x for row, x in enumerate(code) if x or row in kept_whole)


def _strings_and_comments(
    text: str,
) -> Iterator[tuple[int, tuple[int, int], tuple[int, int]]]:
    """Yield kind, start and end, (row from 1, column), of comments and strings of many lines."""
    # From Python 3.12 on, an f-string is several tokens between these two.
    opening, closing = getattr(token, "FSTRING_START", -1), getattr(token, "FSTRING_END", -1)
    opened: list[tuple[int, int]] = []
    for part in tokenize.generate_tokens(io.StringIO(text).readline):
        if part.type == opening:
            opened.append(part.start)
        elif part.type == closing:
            start = opened.pop()
            if start[0] < part.end[0]:
                yield token.STRING, start, part.end
        elif part.type == token.COMMENT or (
            part.type == token.STRING and part.start[0] < part.end[0]
        ):
            yield part.type, part.start, part.end


def _docstrings(text: str) -> Iterator[tuple[int, int]]:
    """Yield the rows [first, last), from 0, of each docstring without code on its lines."""
    lines = text.encode().split(b"\n")  # columns of `ast` count bytes
    for node in ast.walk(_parsed(text)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is None:
            continue
        docstring = node.body[0]
        first, last = docstring.lineno - 1, docstring.end_lineno or docstring.lineno
        behind = lines[last - 1][docstring.end_col_offset or 0 :].strip()
        if not lines[first][: docstring.col_offset].strip() and behind[:1] in (b"", b"#"):
            yield first, last


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


@cache
def _imports(text: str, package: str) -> tuple[str, ...]:
    """Return the names that code in a package imports: modules, and whatever it takes from them."""
    names: list[str] = []
    waiting: list[ast.AST] = [_parsed(text)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and _names_type_checking(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        waiting += ast.iter_child_nodes(node)
    return tuple(names)


def _names_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def _packages(path: Path, root: Path) -> list[Path]:
    """Return the `__init__.py` of a file's packages, which run before it."""
    files = [folder / "__init__.py" for folder in path.parents if folder != Path()]
    return [file for file in files if (root / file).is_file()]


def _files_of(module: str, root: Path) -> tuple[Path, ...]:
    """Return the file of a module and the `__init__.py` of its packages; none if not of ours."""
    path = Path(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if (root / file).is_file():
            return (file, *_packages(file, root))
    return ()


def _data_files(reached: set[Path], root: Path) -> set[Path]:
    """Return the files other than Python that the reached files name.

    A name stands for the file in the same folder, or else in another reached folder.
    """
    folders = sorted({path.parent for path in reached})
    candidates: dict[Path, set[str]] = {
        folder: {
            p.name for p in (root / folder).iterdir() if p.is_file() and p.suffix not in _PYTHON
        }
        for folder in folders
    }
    named: set[Path] = set()
    waiting = sorted(reached)
    while waiting:
        path = waiting.pop()
        text = (root / path).read_text(encoding="utf-8")
        if path.suffix == ".py":
            text = _without_remarks(text)
        for folder in [path.parent, *folders]:
            for name in sorted(candidates[folder]):
                file = folder / name
                own = folder == path.parent or name not in candidates[path.parent]
                if own and file not in named and f'"{name}"' in text:
                    named.add(file)
                    if file.suffix in _TEXT:
                        waiting.append(file)
    return named


_PYTHON = {".py", ".pyc"}
_TEXT = {".jinja", ".css", ".js"}
