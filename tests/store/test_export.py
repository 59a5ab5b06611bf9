"""Tables leave the store in formats that other programs read."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from raysp.errors import UserError
from raysp.store import write_table

TABLE = pa.table({"labels": ['never × "fails", ok', None], "components": [[0, 1], [2]], "value": [1.5, np.nan], "mask": [b"\xf0", b"\x01"]})


def written(form, table=TABLE):
    stream = io.BytesIO()
    write_table(table, form, stream)
    return stream.getvalue()


def test_json_is_a_list_of_objects():
    assert json.loads(written("json")) == [
        {"labels": 'never × "fails", ok', "components": [0, 1], "value": 1.5, "mask": "f0"},
        {"labels": None, "components": [2], "value": None, "mask": "01"},
    ]


def test_csv_round_trips():
    rows = list(csv.reader(io.StringIO(written("csv").decode())))
    assert rows == [["labels", "components", "value", "mask"], ['never × "fails", ok', "[0, 1]", "1.5", "f0"], ["", "[2]", "", "01"]]


def test_parquet_round_trips():
    assert parquet.read_table(io.BytesIO(written("parquet"))).to_pylist()[0] == TABLE.to_pylist()[0]


def test_another_format_is_refused():
    with pytest.raises(UserError, match="choose one of table, csv, json, parquet"):
        written("xlsx")
