import pytest

from tests.helpers.inspected_project import run_pipeline


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """Return the folder of a finished run."""
    folder = tmp_path_factory.mktemp("inspected")
    run_pipeline(folder)
    return folder
