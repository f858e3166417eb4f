import pytest

from mitfrnet.inspection.inspect import inspect
from tests.helpers.inspected_project import UTTERANCE, run_pipeline


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """Return the folder of a finished run."""
    folder = tmp_path_factory.mktemp("inspected")
    run_pipeline(folder)
    return folder


@pytest.fixture(scope="session")
def view(project):
    return inspect(f"mine/{UTTERANCE}", root=project)
