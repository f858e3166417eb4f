"""The whole pipeline, stage by stage, on ten clips of the sample corpus."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard

from mitfrnet.data.tensors import read_tensors, write_tensors
from mitfrnet.files import sha256_of
from mitfrnet.plan.code import source_digest, source_digest_of_text
from tests.helpers.paths import ROOT
from tests.helpers.running import (
    STAGES,
    TAKEN,
    copy_of_sample,
    imported,
    run_stage,
    sections,
    write_params,
)

pytestmark = pytest.mark.slow

CELL = {"corpus": "sample", "model": "mitfrnet", "missing_rate": 0.3, "seed": 1}
ITEMS = [
    ("plan", {}),
    ("ingest", {"corpus": "sample"}),
    *(("extract", {"corpus": "sample", "modality": m}) for m in ("text", "acoustic", "visual")),
    ("tensors", {"corpus": "sample"}),
    ("mask", {"corpus": "sample", "missing_rate": 0.3}),
    ("train", CELL),
    ("evaluate", CELL),
    ("cards", {}),
    ("inspect", {"corpus": "sample"}),
    ("report", {}),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a finished run, and each stage's process."""
    folder = tmp_path_factory.mktemp("run")
    copy_of_sample(folder / "raw" / "sample")
    write_params(folder, train__max_epochs=2, run__workers=2)
    processes = []
    for stage, item in ITEMS:
        process = run_stage(folder, stage, spy=True, **item)
        assert process.returncode == 0, process.stderr[-3000:]
        processes.append((stage, item, process))
    return folder, processes


def test_every_stage_writes_its_outs(finished):
    folder, _ = finished
    for stage, item in ITEMS:
        outs = [*STAGES[stage].get("outs", []), *STAGES[stage].get("metrics", [])]
        for out in outs:
            path = next(iter(out)) if isinstance(out, dict) else out
            for key, value in item.items():
                path = path.replace("${item." + key + "}", str(value))
            assert (folder / path).exists(), path
    assert not [p for p in folder.rglob("*.tmp")]
    assert not [p for p in folder.rglob("*") if p.suffix in {".pkl", ".ckpt", ".pt", ".bin"}]


def test_a_plan_names_what_its_stage_really_imports(finished):
    folder, processes = finished
    for stage, item, process in processes:
        if stage == "plan":
            continue
        plan = STAGES[stage]["deps"][0]
        for key, value in item.items():
            plan = plan.replace("${item." + key + "}", str(value))
        content = json.loads((folder / plan).read_text())
        code = content["code"]
        if "architectures" in content:  # in place of the registry, of which it is one entry
            assert "mitfrnet/models/registry.py" not in code
            code["mitfrnet/models/registry.py"] = ""
        for module in imported(process):
            path = Path(*module.split("."))
            file = next(f for f in (path.with_suffix(".py"), path / "__init__.py")
                        if (ROOT / f).exists())  # fmt: skip
            empty = source_digest(ROOT / file) == source_digest_of_text("")
            assert empty or file.as_posix() in code, (stage, file)


def test_a_stage_lists_the_sections_of_params_it_really_reads(finished):
    for stage, item, process in finished[1]:
        listed = set(STAGES[stage].get("params", []))
        listed -= {"model.${item.model}"}  # arrives through the plan, resolved
        for key, value in item.items():
            listed = {s.replace("${item." + key + "}", str(value)) for s in listed}
        if stage == "plan":
            continue  # depends on the whole file
        read = sections(process) - {"run"}  # how the work is done is tracked by no stage
        uncovered = {s for s in read if not any(s == p or s.startswith(f"{p}.") for p in listed)}
        assert not uncovered, stage
        idle = {p for p in listed if not any(s == p or s.startswith(f"{p}.") for s in read)}
        assert not idle, stage


def test_the_test_split_is_predicted_and_scored(finished):
    folder, _ = finished
    scores = json.loads((folder / "metrics/sample/mitfrnet/0.3/1.json").read_text())
    table = pq.read_table(folder / "predictions/sample/mitfrnet/0.3/1.parquet")
    assert scores["n"] == len(table) == TAKEN["test"]
    assert "acc2_non0" in scores


def test_a_model_is_saved_with_the_card_of_its_evaluation(finished, tmp_path):
    from mitfrnet.predict.predictor import load_model

    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    model = folder / "models/sample/mitfrnet/0.3/1"
    card = (folder / "report/cards/sample/mitfrnet/0.3/1.md").read_text()
    scores = json.loads((folder / "metrics/sample/mitfrnet/0.3/1.json").read_text())
    results = {r.metric_type: r.metric_value for r in ModelCard(card).data.eval_results}
    assert results["mae"] == scores["mae"]
    assert f"On the test split, {TAKEN['test']} clips" in card
    digest = sha256_of(folder / "data/sample/tensors/train.safetensors")
    assert f"SHA-256 of `train.safetensors`, which holds them: `{digest}`" in card

    assert "| 0.3 | 1 |" in card

    load_model(model).save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "README.md").read_text() == card
    load_model(tmp_path / "saved").save_pretrained(tmp_path / "saved")  # where it is
    assert (tmp_path / "saved" / "README.md").read_text() == card

    # Trained again on other labels, and not evaluated yet.
    train = read_tensors(folder / "data/sample/tensors", ["train"])["train"]
    other = {"train": replace(train, label=-train.label)}
    write_tensors(other, folder / "data/sample/tensors")
    shutil.rmtree(model)
    assert run_stage(folder, "train", **CELL).returncode == 0
    load_model(model).save_pretrained(tmp_path / "again")
    again = (tmp_path / "again" / "README.md").read_text()
    assert "saved without its scores" in again
    assert digest not in again


def test_a_rerun_of_a_cell_gives_the_same_bytes(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "again", symlinks=True)
    for name in ("models", "predictions", "metrics/sample/mitfrnet", "report"):
        shutil.rmtree(tmp_path / "again" / name)
    timings = "timings/sample/mitfrnet/0.3/1.json"  # of a run, not of its result
    for stage, item in ITEMS[-5:]:
        assert run_stage(tmp_path / "again", stage, **item).returncode == 0
        shutil.copy(folder / timings, tmp_path / "again" / timings)
    for name in ("models", "predictions", "metrics/sample/mitfrnet", "report"):
        files = [p for p in (folder / name).rglob("*") if p.is_file()]
        assert files
        for path in files:
            again = tmp_path / "again" / path.relative_to(folder)
            assert again.read_bytes() == path.read_bytes(), path


def test_class_labels_and_a_protocol_go_through_every_stage(finished, tmp_path):
    """Emotions in place of scores, a rate per clip and epoch, and a baseline beside the model."""
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    table = folder / "raw" / "sample" / "label.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {"label": "joy" if float(row["label"]) > 0 else "anger", "label_T": ""}
        row |= {"label_A": "", "label_V": ""}
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    corpus = {"layout": "mmsa", "language": "en", "task": "classification"}
    write_params(
        folder,
        corpora__sample=corpus | {"classes": ["anger", "joy"]},
        grid__missing_rates=["random_train"],
        grid__models=["mitfrnet", "tfn"],
        evaluate__protocol_rates=[0.0, 0.5],
        evaluate__mask_seeds=[1, 2],
        train__max_epochs=2,
    )
    cell = CELL | {"missing_rate": "random_train"}
    baseline = cell | {"model": "tfn"}
    for stage, item in [
        *ITEMS[:2], *ITEMS[5:6], ("mask", cell), ("train", cell), ("evaluate", cell),
        ("train", baseline), ("evaluate", baseline), *ITEMS[-3:],
    ]:  # fmt: skip
        process = run_stage(folder, stage, **item)
        assert process.returncode == 0, process.stderr[-3000:]
    scores = json.loads((folder / "metrics/sample/tfn/random_train/1.json").read_text())
    for rate in ("0.0", "0.5"):
        for seed in ("1", "2"):
            found = scores["by_rate"][rate]["by_mask_seed"][seed]
            assert found["n"] == TAKEN["test"]
            assert 0 <= found["f1_macro"] <= 1
    shown = (folder / "report" / "scores.txt").read_text()
    assert "TFN" in shown
    assert "trained at a random missing rate per clip, tested at 0.5" in shown


@pytest.mark.parametrize("modality", ["text", "acoustic", "visual"])
def test_one_worker_gives_the_bytes_of_several(finished, tmp_path, modality):
    folder, _ = finished
    shutil.copytree(folder / "raw", tmp_path / "raw")
    (tmp_path / "data" / "sample").mkdir(parents=True)
    shutil.copy(folder / "data/sample/manifest.parquet", tmp_path / "data/sample")
    write_params(tmp_path, run__workers=1)
    process = run_stage(tmp_path, "extract", corpus="sample", modality=modality)
    assert process.returncode == 0, process.stderr
    shards = sorted((folder / "data/sample/features" / modality).glob("*.parquet"))
    assert len(shards) == 8
    for path in shards:
        assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes()


def outputs(folder):
    files = [p for name in ("data", "metrics", "models") for p in (folder / name).rglob("*")]
    return {p: p.read_bytes() for p in files if p.is_file() and p.suffix != ".lock"}


@pytest.mark.parametrize(
    ("stage", "item", "change", "message"),
    [
        ("ingest", {"corpus": "sample"}, {"ingest__max_bad_fractoin": 1}, "unknown key"),
        ("ingest", {"corpus": "mosi"}, {}, "corpora.mosi: no such section (found: sample)"),
        ("ingest", {"corpus": "../up"}, {}, "expected a name of a-z, 0-9, _, -"),
        (
            "extract",
            {"corpus": "sample", "modality": "text"},
            {"extract__text__encoders": {"en": "nobody/nothing"}},
            "text encoder 'nobody/nothing'",
        ),
        ("mask", {"corpus": "sample", "missing_rate": 1.5}, {}, "expected a number in [0, 1]"),
        ("mask", {"corpus": "sample", "missing_rate": 0.5}, {"mask__sed": 1}, "(expected: seed)"),
        ("mask", {"corpus": "sample", "missing_rate": "half"}, {}, "missing rate is half"),
        ("mask", {"corpus": "sample", "missing_rate": "random"}, {}, "complete_train, fixed_train"),
        (
            "mask",
            {"corpus": "sample", "missing_rate": 0.9},
            {"mask__pattern": "modality_random"},
            "missing rate is 0.9 (expected at most 0.",
        ),
        ("mask", {"corpus": "sample", "missing_rate": 0.5}, {"mask__pattern": "blok"}, "blok"),
        (
            "plan",
            {},
            {"grid__models": ["mitfnet"]},
            "(did you mean mitfrnet?)",
        ),
        ("plan", {}, {"model__mitfrnet__architecture": "x"}, "unknown model 'x'"),
        ("train", CELL | {"model": "mitfnet"}, {}, "run stage plan"),
        ("train", CELL | {"seed": -1}, {}, "grid.seeds: -1 (expected a whole number"),
        ("train", CELL | {"missing_rate": 0.9}, {}, "run the mask stage"),
        ("evaluate", CELL | {"seed": 9}, {}, "run train"),
    ],
)
def test_bad_input_gives_one_line_and_status_1(finished, tmp_path, stage, item, change, message):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    write_params(folder, **change)
    before = outputs(folder)
    process = run_stage(folder, stage, **item)
    assert process.returncode == 1
    lines = process.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert message in lines[-1]
    assert "Traceback" not in process.stderr
    assert outputs(folder) == before


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("video_id,clip_id,label\nv,1,1\n", "label.csv: missing column text"),
        ("video_id,clip_id,text,label\nv,1,x,1\nv,1,x,1\n", "label.csv:3: duplicate id 'v/1'"),
        ("video_id,clip_id,text,label\nv,1,x,7\n", "label.csv:2: label is 7, out of scale"),
        ("video_id,clip_id,text,label\n..,1,x,1\n", "label.csv:2: video_id is '..'"),
        ("video_id,clip_id,text,label,mode\nv,1,x,1,train\n", "split 'valid' is empty"),
        ("video_id,clip_id,text,label\na,1,x,1\nb,1,x,1\nc,1,x,1\n", "3 of 3 clips cannot be"),
    ],
)
def test_a_corpus_that_cannot_be_used_stops_the_stage_in_one_line(tmp_path, table, message):
    (tmp_path / "raw" / "sample").mkdir(parents=True)
    (tmp_path / "raw" / "sample" / "label.csv").write_text(table)
    write_params(tmp_path)
    process = run_stage(tmp_path, "ingest", corpus="sample")
    assert process.returncode == 1
    assert message in process.stderr.strip().splitlines()[-1]
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "metrics").exists()
