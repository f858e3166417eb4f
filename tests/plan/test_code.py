import hashlib
from pathlib import Path

import pytest

from mitfrnet.errors import ParamsError
from mitfrnet.plan.code import code_digests, source_digest_of_text

SOURCE = '''"""What the module does."""

import math  # of numbers


class Circle:
    """A round thing."""

    def area(self):
        """Return it.

        In square metres.
        """
        # Archimedes
        return math.pi  # roughly
'''
CODE = """import math
class Circle:
    def area(self):
        return math.pi"""


def digest(code):
    return hashlib.sha256(code.encode()).hexdigest()


def test_comments_docstrings_and_blank_lines_do_not_count():
    """The digest is that of the text that is left, so it is the same on every Python."""
    assert source_digest_of_text(SOURCE) == digest(CODE)


@pytest.mark.parametrize(
    "text",
    [
        'x = "# no comment"',
        "x = '''one\n\n  # no comment\ntwo  \n'''",
        "x = f'''one\n\n{1}  # no comment\n'''",
        "x = 1\n'''no docstring'''",
        "def f():\n    x = 1\n    'no docstring'",
    ],
)
def test_what_stands_in_a_string_counts(text):
    assert source_digest_of_text(text) == digest(text)


@pytest.mark.parametrize("text", ["x = '''\n'''  # why", "x = f'''\n{1}'''  # why"])
def test_a_comment_behind_a_string_of_many_lines_does_not_count(text):
    assert source_digest_of_text(text) == digest(text.removesuffix("  # why"))


def test_only_line_ends_end_a_line():
    """Other characters that `str.splitlines` splits at would shift the rows of comments."""
    text = "x = 'a\x0cb'\ny = 1"
    assert source_digest_of_text(f"{text}  # why\nz = 2") == digest(f"{text}\nz = 2")


def test_a_docstring_beside_code_is_left_alone():
    text = "def f(): 'docstring'; return 1"
    assert source_digest_of_text(text) == digest(text)


def test_indentation_counts():
    nested = "if a:\n    b()\n    c()"
    assert source_digest_of_text(nested) != source_digest_of_text(nested.replace("    c", "c"))


@pytest.fixture
def write(tmp_path):
    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/")
            path = path if path.suffix else path.with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def reached(root, script="run.py", **named):
    return set(code_digests(Path(script), named, root))


@pytest.mark.parametrize(
    "statement",
    [
        "import ours.other",
        "import ours.other as o",
        "from ours import other",
        "from ours.other import name",
        "def f():\n    from ours import other",
        "try:\n    import ours.other\nexcept ImportError:\n    pass",
    ],
)
def test_an_import_is_followed_wherever_it_stands(tmp_path, write, statement):
    write(run=statement, ours__other="import numpy\nimport ours.deep", ours__deep="X = 1")
    assert reached(tmp_path) == {"run.py", "ours/other.py", "ours/deep.py"}


def test_an_import_for_types_alone_is_not_followed(tmp_path, write):
    write(
        run="import typing\nif typing.TYPE_CHECKING:\n    import a\nelse:\n    import b",
        a="X = 1",
        b="X = 1",
    )
    assert reached(tmp_path) == {"run.py", "b.py"}


def test_packages_run_before_their_modules(tmp_path, write):
    write(run="import ours.other", ours__other="X = 1", extra="X = 1")
    (tmp_path / "ours" / "__init__.py").write_text("import extra")
    assert reached(tmp_path) == {"run.py", "ours/other.py", "ours/__init__.py", "extra.py"}
    (tmp_path / "ours" / "__init__.py").write_text('"""Only words."""')
    assert reached(tmp_path) == {"run.py", "ours/other.py"}


def test_a_relative_import_is_followed(tmp_path, write):
    write(run="import ours.sub.one", ours__sub__one="from . import two\nfrom ..up import x",
          ours__sub__two="X = 1", ours__up="X = 1")  # fmt: skip
    expected = {"run.py", "ours/sub/one.py", "ours/sub/two.py", "ours/up.py"}
    assert reached(tmp_path) == expected


def test_what_is_imported_by_name_is_told(tmp_path, write):
    write(run="from importlib import import_module", a="import b", b="X = 1")
    assert reached(tmp_path, **{"run.py": ["a"]}) == {"run.py", "a.py", "b.py"}


def test_a_circle_ends(tmp_path, write):
    write(run="import a", a="import b", b="import a")
    assert reached(tmp_path) == {"run.py", "a.py", "b.py"}


def test_files_that_are_not_python_count_where_they_are_named(tmp_path, write):
    write(
        run="import ours.page",
        ours__page='PAGE = "page.html.jinja"',
        **{"ours__page.html.jinja": '{% include "page.css" %}{% include "shared.css" %}'},
        **{"ours__page.css": "a", "ours__other.css": "b", "page.css": "c", "shared.css": "d"},
    )
    assert reached(tmp_path) == {
        "run.py", "ours/page.py", "ours/page.html.jinja", "ours/page.css", "shared.css",
    }  # fmt: skip
    before = code_digests(Path("run.py"), {}, tmp_path)
    (tmp_path / "ours" / "page.css").write_text("a ")
    after = code_digests(Path("run.py"), {}, tmp_path)
    assert {name for name in after if after[name] != before[name]} == {"ours/page.css"}


def test_a_file_that_is_not_python_code_is_refused(tmp_path, write):
    write(run="import a", a="def")
    with pytest.raises(ParamsError, match=r"a\.py: not valid Python"):
        reached(tmp_path)
