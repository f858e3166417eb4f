import json
import os
import resource

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mitfrnet.corpus.clips import Problems
from mitfrnet.corpus.tables import read_table
from mitfrnet.errors import CorpusError


def read(folder, name, content=None, required=("id", "text"), **settings):
    """Return the rows and the errors of a table, written first if there is content."""
    if isinstance(content, str):
        content = content.encode()
    if content is not None:
        (folder / name).write_bytes(content)
    problems = Problems()
    rows = list(read_table(folder / name, problems, required=required, **settings))
    return [(place_in(where), row) for where, row in rows], problems.errors


def place_in(where):
    return int(where.rpartition(":")[2])


def write_parquet(folder, **columns):
    pq.write_table(pa.table(columns), folder / "t.parquet")


def refusal(folder, name, content=None, **settings):
    with pytest.raises(CorpusError) as error:
        read(folder, name, content, **settings)
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(folder), "corpus")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "id,text,more\n007,so good,x\n"),
        ("t.csv", "\ufeffid,text\r\n007,so good\r\n"),
        ("t.csv", '"id","text"\n"007","so good"\n\n'),
        ("t.TSV", "id\ttext\n007\tso good\n"),
        ("t.jsonl", '{"id": "007", "text": "so good", "more": [1]}\n\n'),
        ("t.ndjson", '\ufeff{"text": "so good", "id": "007"}'),
    ],
)
def test_a_table_of_any_kind_gives_its_rows_as_text(tmp_path, name, content):
    ((_, row),), errors = read(tmp_path, name, content)
    assert row == {"id": "007", "text": "so good"}
    assert errors == []


def test_a_row_is_at_the_line_on_which_it_starts(tmp_path):
    """Lines: 1 header, 2-3 the first row, 4 empty, 5 the second, 6 the third."""
    content = 'id,text\n1,"two\nlines"\n\n2,"a ""quote"", and a comma"\r\n3,\U0001f600\n'
    rows, _ = read(tmp_path, "t.csv", content)
    assert rows == [
        (2, {"id": "1", "text": "two\nlines"}),
        (5, {"id": "2", "text": 'a "quote", and a comma'}),
        (6, {"id": "3", "text": "\U0001f600"}),
    ]


def test_a_transcript_of_10_000_characters_is_read_whole(tmp_path):
    ((_, row),), _ = read(tmp_path, "t.csv", f"id,text\n1,{'a' * 10_000}\n")
    assert len(row["text"]) == 10_000


def test_numbers_and_dates_of_parquet_are_written_out_and_null_and_nan_are_empty(tmp_path):
    write_parquet(tmp_path, id=[7, None], text=[float("nan"), 2.5], label=[True, None])
    rows, errors = read(tmp_path, "t.parquet", required=["id", "text", "label"], ids=["id"])
    assert rows == [
        (1, {"id": "7", "text": "", "label": "True"}),
        (2, {"id": "", "text": "2.5", "label": ""}),
    ]
    assert errors == []


def test_a_number_with_a_point_is_no_id(tmp_path):
    write_parquet(tmp_path, id=[7.0, None], text=["x", "y"])
    rows, (error,) = read(tmp_path, "t.parquet", ids=["id"])
    assert "t.parquet:1: id is the number 7.0 (expected text or a whole number" in error
    assert rows == [(2, {"id": "", "text": "y"})]


def test_only_the_columns_asked_for_are_read(tmp_path):
    write_parquet(tmp_path, id=["1"], text=["x"], vector=[[1.0, 2.0]])
    rows, _ = read(tmp_path, "t.parquet", required=["id"], optional=["text", "none"])
    assert rows == [(1, {"id": "1", "text": "x"})]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "id,text\n1,so, good\n2,x\n", "t.csv:2: 3 values (expected 2, as in the header"),
        ("t.csv", 'id,text\n"1\n1"\n2,x\n', "t.csv:2: 1 values (expected 2"),
        (
            "t.jsonl",
            '[1, 2]\n{"id": 2, "text": "x"}',
            "t.jsonl:1: not an object (expected one p",
        ),
        ("t.jsonl", '{"id": \n{"id": 2, "text": "x"}', "t.jsonl:1: cannot be read as JSON"),
        ("t.jsonl", "[" * 10**5 + '\n{"id": 2, "text": "x"}', "t.jsonl:1: cannot be read as JSON"),
        ("t.jsonl", '{"id": 1}\n{"id": 2, "text": "x"}', "t.jsonl:1: missing column text"),
        ("t.jsonl", '{"id": 1, "text": [1]}\n{"id": 2, "text": "x"}', "text is not a single value"),
        ("t.jsonl", '{"id": 1, "text": {}}\n{"id": 2, "text": "x"}', "text is not a single value"),
        ("t.jsonl", '{"id": 1, "text": "\\ud83d"}\n{"id": 2, "text": "x"}', "half a character"),
        (
            "t.jsonl",
            '{"id": 1, "id": 1, "text": ""}\n{"id": 2, "text": "x"}',
            "t.jsonl:1: column 'id' appears twice (expected once)",
        ),
        (
            "t.jsonl",
            json.dumps({"id": 1, "text": "a" * 131_073}) + '\n{"id": 2, "text": "x"}',
            "t.jsonl:1: text has 131,073 characters (expected at most 131,072)",
        ),
    ],
)
def test_a_row_that_cannot_be_read_is_noted_and_the_next_is_read(tmp_path, name, content, message):
    rows, (error,) = read(tmp_path, name, content)
    assert message in error
    assert "\n" not in error
    assert [row for _, row in rows] == [{"id": "2", "text": "x"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", None, "corpus/t.csv: No such file or directory (expected the table of labels)"),
        ("t.csv", "", "corpus/t.csv: missing column id, text (found: none; required: id, text)"),
        ("t.csv", "id;text\n1;x\n", "missing column id, text (found: id;text; required: id, text)"),
        ("t.csv", "id,text\n", "corpus/t.csv: no rows (expected one per clip)"),
        ("t.csv", "id,text,id\n1,x,2\n", "corpus/t.csv: column 'id' appears twice (expected on"),
        ("t.csv", 'id,text\n1,x\n2,"open\n3,x\n', "corpus/t.csv:3: not a CSV row (unexpected end"),
        ("t.csv", 'id,text\n1,"a"b\n', "corpus/t.csv:2: not a CSV row"),
        (
            "t.csv",
            f'id,text\n1,x\n2,"{"a" * 131_073}"\n',
            "corpus/t.csv:3: not a CSV row (field larger than field limit (131072)",
        ),
        ("t.xlsx", "x", "corpus/t.xlsx: unknown kind of table (expected .csv, .tsv, .parquet, "),
        ("t.parquet", "no", "corpus/t.parquet: not a valid Parquet file"),
        ("t.jsonl", "\n", "corpus/t.jsonl: no rows"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error(tmp_path, name, content, message):
    assert message in refusal(tmp_path, name, content)


def test_the_byte_that_is_of_another_encoding_is_named_with_its_line(tmp_path):
    content = "id,text\n1,ok\n2,caf\u00e9\n".encode("latin-1")
    assert refusal(tmp_path, "t.csv", content) == (
        "corpus/t.csv:3: byte 0xe9 is not utf-8 "
        "(save the file as UTF-8, or set `encoding` of the corpus, e.g. cp1252)"
    )
    rows, _ = read(tmp_path, "t.csv", encoding="latin-1")
    assert rows[1][1]["text"] == "caf\u00e9"


@pytest.mark.parametrize("encoding", ["utf-16", "gb18030", "UTF8"])
def test_another_encoding_is_read(tmp_path, encoding):
    ((_, row),), _ = read(
        tmp_path, "t.csv", "id,text\n1,\u597d\n".encode(encoding), encoding=encoding
    )
    assert row == {"id": "1", "text": "\u597d"}


def test_a_truncated_parquet_file_is_an_error(tmp_path):
    write_parquet(tmp_path, id=[str(i) for i in range(5000)], text=["x"] * 5000)
    path = tmp_path / "t.parquet"
    path.write_bytes(path.read_bytes()[:-10])
    assert "not a valid Parquet file" in refusal(tmp_path, "t.parquet")


def test_a_parquet_file_with_damaged_pages_is_an_error(tmp_path):
    write_parquet(tmp_path, id=[str(i) for i in range(5000)], text=["x"] * 5000)
    path = tmp_path / "t.parquet"
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)
    path.write_bytes(content)
    assert "not a valid Parquet file" in refusal(tmp_path, "t.parquet")


def test_a_parquet_file_that_claims_more_rows_than_any_corpus_is_not_read(tmp_path):
    pq.write_table(pa.table({"id": pa.nulls(2_000_001), "text": pa.nulls(2_000_001)}),
                   tmp_path / "t.parquet")  # fmt: skip
    assert (tmp_path / "t.parquet").stat().st_size < 10_000
    assert "2,000,001 rows (expected one per clip, at most 2,000,000)" in refusal(
        tmp_path, "t.parquet"
    )


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.jsonl"])
def test_what_is_no_regular_file_is_not_opened(tmp_path, name):
    (tmp_path / name).mkdir()
    assert refusal(tmp_path, name) == f"corpus/{name}: a folder (expected the table of labels)"
    (tmp_path / name).rmdir()
    os.mkfifo(tmp_path / name)
    assert "not a regular file (expected the table of labels)" in refusal(tmp_path, name)


def test_a_sparse_file_of_1_gib_is_not_read(tmp_path):
    with (tmp_path / "t.csv").open("wb") as file:
        file.truncate(2**30)
    assert "1024 MiB (expected the table of labels, at most 512 MiB)" in refusal(tmp_path, "t.csv")


def test_a_long_text_repeated_by_a_dictionary_is_not_spread_out(tmp_path):
    """A file of some hundred bytes that would be 4 GiB of rows."""
    path = tmp_path / "bomb.parquet"
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 1024, pa.int32()), ["x" * 2**22])
    pq.write_table(pa.table({"id": text}), path, compression="zstd")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CorpusError, match="id has a text of 4,194,304 bytes"):
        list(read_table(path, Problems(), required=["id"]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
