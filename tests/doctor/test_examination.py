import ast

import pytest

from mitfrnet.doctor.examination import CHECKS, run
from mitfrnet.doctor.findings import ERROR
from tests.helpers.paths import ROOT


def test_every_check_of_the_project_is_run():
    tree = ast.parse((ROOT / "mitfrnet/doctor/project.py").read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {name for name in functions if not name.startswith("_")} == set(CHECKS)


@pytest.mark.parametrize(
    ("code", "found", "advice"),
    [
        ("import os; os.abort()", "crashed: Aborted", "force-reinstall"),
        ("import os; os._exit(3)", "crashed: exit status 3", "force-reinstall"),
        ("import time; time.sleep(60)", "crashed: timeout", "force-reinstall"),
        ("raise SystemExit('no')", "SystemExit: no", "-c constraints.txt broken"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines", "force-reinstall"),
        ("import absent", "No module named 'absent'", "make install"),
        (
            "raise ImportError('libGL.so.1: cannot open shared object file: No such file')",
            "ImportError: libGL.so.1: cannot open shared object file",
            "apt-get install libgl1 libglib2.0-0",
        ),
        (
            "raise OSError('libsndfile.so: cannot open shared object file: No such file')",
            "OSError: libsndfile.so: cannot",
            "install the system package that holds libsndfile.so",
        ),
    ],
)
def test_a_broken_import_is_a_finding_and_the_rest_is_still_checked(packages, code, found, advice):
    packages({"good": "print('chatter')", "broken": code, "other": "raise ValueError('x')"})
    finding, *others = run(["good", "broken", "other"], timeout_s=60 if "sleep" not in code else 6)
    assert (finding.name, finding.level) == ("broken", ERROR)
    assert found in finding.found
    assert advice in finding.advice
    assert [other.name for other in others] == ["timeout" if "sleep" in code else "other"]


def test_what_a_check_needs_may_break(packages):
    packages({"dvc": "import os; os.abort()", "torch": "raise ImportError('no torch')"})
    stages, gpu = run(["stages", "gpu"])
    assert stages.found.startswith("crashed: Aborted")
    assert gpu.found == "ImportError: no torch"
