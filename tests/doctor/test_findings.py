import json

from mitfrnet.doctor.findings import REMARK, Finding, to_json


def test_a_finding_is_a_line_and_its_advice_another():
    assert str(Finding("disk", REMARK, "full")) == "remark  disk: full"
    assert str(Finding("disk", REMARK, "full", "empty it")).splitlines()[1] == "        -> empty it"


def test_a_bug_report_names_no_one(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setenv("MY_REGISTRY_TOKEN", "s3cr3t-value")
    texts = {
        "3.11 of /home/ada/.venv": "3.11 of ~/.venv",
        "/data/ada/mosi: not a folder": "/data/<user>/mosi: not a folder",
        "adapter of /data/ada_2": "adapter of /data/ada_2",
        "https://ada:pw@host/x failed": "https://***@host/x failed",
        "sent s3cr3t-value": "sent ***",
        "Bearer hf_abcdefghijklmnopqrst": "Bearer ***",
    }
    rows = json.loads(to_json([Finding("x", REMARK, text, text) for text in texts]))["findings"]
    assert [row["found"] for row in rows] == list(texts.values())
    assert [row["advice"] for row in rows] == list(texts.values())
