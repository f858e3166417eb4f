"""A model goes to a hub and back over real connections, with faults on the way."""

import json
import pickle

import pytest
import yaml

from mitfrnet.errors import FeatureError
from mitfrnet.predict.hub import model_folder
from mitfrnet.predict.predictor import Predictor
from mitfrnet.trained.card import fingerprint, model_card
from tests.helpers.hub_server import TOKEN, running_hub
from tests.helpers.made_model import make_model
from tests.helpers.predicting import SPOKEN, run_predict
from tests.helpers.running import run_python

MODEL = "me/name"
TEXT = "The band was excellent."
PUSH = """
from mitfrnet import load_model
from mitfrnet.errors import reporting_errors
with reporting_errors():
    print(load_model({folder!r}).push_to_hub({model!r}, token={token!r}))
"""
LOAD = """
from mitfrnet import load_model
print(repr(load_model({model!r}).predict({clip!r}, text={text!r}).score))
"""


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Return a model folder of a project in which the stages have run up to `cards`."""
    project = tmp_path_factory.mktemp("project")
    folder = project / "models/sample/mitfrnet/0.3/1"
    trained = make_model()
    trained.save(folder)
    own = fingerprint(trained.config, folder)
    scores = {0.3: {1: {"mae": 0.5, "n": 4}}}
    card = model_card(trained.config, fingerprint=own, scores=scores, corpus="mine")
    path = project / "report/cards/sample/mitfrnet/0.3/1.md"
    path.parent.mkdir(parents=True)
    path.write_text(card)
    return folder


@pytest.fixture(scope="module")
def pushed(evaluated, tmp_path_factory):
    """Return a hub that a process pushed the model to."""
    with running_hub() as hub:
        home = tmp_path_factory.mktemp("home")
        code = PUSH.format(folder=str(evaluated), model=MODEL, token=TOKEN)
        process = run_python("-c", code, cwd=home, **hub.environment(home))
        assert process.returncode == 0, process.stderr
        assert process.stdout.strip() == f"{hub.url}/{MODEL}/commit/{hub.commit_of(MODEL)}"
        yield hub


@pytest.fixture
def hub(pushed):
    """Return the hub as it is after the push, to be spoilt."""
    files = dict(pushed.files[MODEL])
    pushed.asked.clear()
    yield pushed
    pushed.files = {MODEL: files}
    pushed.refused.clear()
    pushed.drops.clear()


@pytest.fixture(scope="module")
def score(evaluated):
    """Return the score before the trip; another process may have another last bit."""
    return pytest.approx(Predictor(evaluated).predict(SPOKEN, text=TEXT).score, abs=1e-5)


def predict(hub, home, **environment):
    """Run `mitfrnet predict` elsewhere, with the cache in `home`."""
    environment = hub.environment(home) | environment
    return run_predict(SPOKEN, "--model", MODEL, "--text", TEXT, "--json", cwd=home, **environment)


def score_in(process):
    assert process.returncode == 0, process.stderr
    (record,) = json.loads(process.stdout)
    return record["score"]


def only_line(process):
    """Return the line that a failed command says, without the hub's address."""
    assert process.returncode == 1
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    return line


@pytest.mark.parametrize("name", ["gone", "/gone/model", "./owner/name", "a/b/c", "../x"])
def test_what_is_neither_folder_nor_hub_name_is_not_asked_for_on_the_hub(name):
    with pytest.raises(FeatureError, match=r"no such folder \(expected one with model"):
        model_folder(name)


@pytest.mark.slow
def test_a_model_scores_the_same_after_the_trip(hub, score, tmp_path):
    process = predict(hub, tmp_path)
    assert score_in(process) == score
    assert process.stderr == ""  # no progress bar where nobody looks
    (tmp_path / "other").mkdir()
    code = LOAD.format(model=MODEL, clip=str(SPOKEN), text=TEXT)
    process = run_python("-c", code, cwd=tmp_path, **hub.environment(tmp_path / "other"))
    assert process.returncode == 0, process.stderr
    assert float(process.stdout) == score


@pytest.mark.slow
def test_what_is_published_is_the_folder_and_the_card_with_scores(hub, evaluated):
    files = hub.files[MODEL]
    own = {p.name: p.read_bytes() for p in evaluated.iterdir()}
    card = evaluated.parents[4] / "report/cards/sample/mitfrnet/0.3/1.md"
    assert files == own | {"README.md": card.read_bytes()}
    header = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    (result,) = header["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "mae", "name": "mae", "value": 0.5}]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (401, "127.0.0.1 answers 401 Unauthorized"),
        (403, "127.0.0.1 answers 403 Forbidden"),
        (404, "127.0.0.1 answers 404 Not Found"),
        (500, "127.0.0.1 answers 500 Internal Server Error"),
        (200, "Expecting value"),  # an empty page, as of a login to some network
    ],
)
def test_a_hub_that_refuses_is_reported_in_one_line(hub, tmp_path, status, answer):
    hub.refused["."] = status
    line = only_line(predict(hub, tmp_path))
    failed = "no such folder, and the download from the Hugging Face hub failed"
    assert line.startswith(f"error: {MODEL}: {failed} ({answer}")
    assert line.endswith("check the name, the network and `hf auth login`")


@pytest.mark.slow
def test_a_repository_that_is_not_there_is_reported_in_one_line(hub, tmp_path):
    hub.files.clear()
    assert "(127.0.0.1 answers 404 Not Found); check the name" in only_line(predict(hub, tmp_path))


@pytest.mark.slow
def test_a_model_in_the_cache_needs_no_hub(hub, score, tmp_path):
    assert "offline mode is enabled" in only_line(predict(hub, tmp_path, HF_HUB_OFFLINE="1"))
    assert score_in(predict(hub, tmp_path)) == score
    hub.asked.clear()
    assert score_in(predict(hub, tmp_path, HF_HUB_OFFLINE="1")) == score
    assert hub.asked == []
    hub.refused["."] = 500
    assert score_in(predict(hub, tmp_path)) == score


@pytest.mark.slow
def test_a_broken_download_goes_on_where_it_was(hub, score, tmp_path):
    hub.drops["model.safetensors"] = 1
    process = predict(hub, tmp_path)
    assert score_in(process) == score
    assert "Trying to resume download" in process.stderr
    assert sum(line.startswith("GET") and "model.saf" in line for line in hub.asked) == 2


@pytest.mark.slow
def test_a_download_that_breaks_again_and_again_is_no_model(hub, score, tmp_path):
    hub.drops["model.safetensors"] = -1
    process = predict(hub, tmp_path)
    assert process.returncode == 1
    assert process.stdout == ""
    last = process.stderr.splitlines()[-1]  # before it, the client's own warnings
    assert last.startswith(f"error: {MODEL}: no such folder, and the download")
    assert "peer closed connection" in last
    assert "Traceback" not in process.stderr
    hub.drops.clear()
    assert score_in(predict(hub, tmp_path)) == score  # nothing half is left


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "scaling.safetensors", "config.json"])
def test_a_repository_that_lacks_a_file_is_reported_in_one_line(hub, tmp_path, name):
    del hub.files[MODEL][name]
    line = only_line(predict(hub, tmp_path))
    assert line.startswith(f"error: {MODEL}: no {name} in this repository of the Hugging Face hub")


class _Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.slow
def test_pickles_and_code_in_a_repository_are_not_even_fetched(hub, score, tmp_path):
    ran = tmp_path / "ran"
    pickled = pickle.dumps(_Touch(ran))
    code = f"open({str(ran)!r}, 'w')".encode()
    hostile = {
        "pytorch_model.bin": pickled,
        "model.pkl": pickled,
        "modeling.py": code,
        "mitfrnet.py": code,
        "text_encoder/pytorch_model.bin": pickled,
        "text_encoder/modeling.py": code,
    }
    hub.files[MODEL] |= hostile
    assert score_in(predict(hub, tmp_path)) == score
    assert not [request for request in hub.asked for name in hostile if request.endswith(name)]
    assert not ran.exists()
    del hub.files[MODEL]["model.safetensors"]  # so that a pickle is all there is
    assert "no model.safetensors in this repository" in only_line(predict(hub, tmp_path))
    assert not ran.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("token", "refused", "answer"),
    [
        ("hf_of_nobody", {}, "127.0.0.1 answers 401 Unauthorized"),
        (TOKEN, {"commit": 500}, "127.0.0.1 answers 500 Internal Server Error"),
        (TOKEN, {"PUT": 403}, "127.0.0.1 answers 403 Forbidden"),
    ],
)
def test_an_upload_that_is_refused_is_reported_in_one_line(
    hub, evaluated, tmp_path, token, refused, answer
):
    hub.files.clear()
    hub.stored.clear()
    hub.refused |= refused
    code = PUSH.format(folder=str(evaluated), model=MODEL, token=token)
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    line = only_line(run_python("-c", code, cwd=tmp_path, **hub.environment(tmp_path), **quiet))
    assert line == (
        f"error: {MODEL}: the upload to the Hugging Face hub failed ({answer}); check the name, "
        "the network and `hf auth login`"
    )
    assert not hub.files.get(MODEL)
