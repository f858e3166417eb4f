import os
from dataclasses import replace

import pytest

from mitfrnet.inspection.masking import ShownMasks
from mitfrnet.inspection.pages import write_pages
from mitfrnet.missing import MaskParams
from mitfrnet.params import load_params
from mitfrnet.plan.stages import plans
from mitfrnet.report.worst import WorstClip, page_name
from tests.helpers.inspected_project import MODEL, UTTERANCE
from tests.helpers.paths import ROOT


def test_the_stage_depends_on_no_code_that_extracts_or_describes_models():
    code = plans({"mitfrnet": {"architecture": "mitfrnet"}}, ROOT)["inspect"]["code"]
    assert "mitfrnet/inspection/page.py" in code
    others = ("mitfrnet/predict/", "mitfrnet/features/extract.py", "mitfrnet/trained/card.py")
    assert not [file for file in code if file.startswith(others)]


class Breaks:
    """Ends the process that unpickles it, as a crash of a decoder does."""

    def __reduce__(self):
        return os._exit, (1,)


@pytest.mark.slow
def test_a_clip_that_breaks_its_process_costs_its_page_alone(project, tmp_path, capfd):
    clip, other = (WorstClip("mine", i, "0.00", "1.00") for i in (UTTERANCE, "quiet/01"))
    shown = ShownMasks([0.3], load_params(MaskParams, section="mask"))
    written = write_pages(
        [replace(clip, page=Breaks()), other], [project / MODEL], tmp_path,
        shown=shown, timeout_s=60, root=project,
    )  # fmt: skip
    assert written == {other.utterance_id}
    assert [path.name for path in tmp_path.iterdir()] == [page_name(other.utterance_id)]
    assert f"warning: mine/{clip.utterance_id}: no page (worker_crashed)" in capfd.readouterr().err
