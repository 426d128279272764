"""Rows of a table, asked in the table's units, against the model's own answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

import netspec
from netspec.model.rows import TableModel
from netspec.serve.app import application
from netspec.serve.rows import TableSubject
from tests.model.own_data import table_text, train
from tests.serve.test_endpoints import infer, outputs, tensor


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> TableSubject:
    folder = tmp_path_factory.mktemp("table")
    (folder / "animals.csv").write_text(table_text())
    data = f'type: "Table" table_param {{ source: "{folder}/animals.csv" batch_size: 80 target: "kind" ' \
           'leave_out: "name" one_hot: false split { test: 0.2 } }'  # fmt: skip
    return TableSubject(netspec.load(train(folder, data, iterations=20)), "animals")


@pytest.fixture(scope="module")
def client(subject: TableSubject) -> Any:
    with TestClient(application([subject], "0"), base_url="http://localhost") as made:
        yield made


def test_metadata_and_page(client: TestClient, subject: TableSubject) -> None:
    about = client.get("/page/models").json()[0]
    assert about["kind"] == "table"
    assert [column["name"] for column in about["columns"]] == ["weight", "legs", "colour", "born"]
    assert about["columns"][2]["values"] == list(subject.layout.inputs[2].values)
    assert about["class_names"] == list(subject.layout.classes)
    metadata = client.get("/v2/models/animals").json()
    assert metadata["inputs"][0] == {"name": "data", "datatype": "FP32", "shape": [-1, 4]}
    assert metadata["inputs"][1] == {"name": "observed", "datatype": "BOOL", "shape": [-1, 4]}
    row = client.get("/page/models/animals/example?row=3").json()
    assert len(row["values"]) == 4


def test_units_are_those_of_the_table(subject: TableSubject) -> None:
    values = np.array([[4000, 8, 1, np.nan], [np.nan, np.nan, np.nan, 18000]], np.float32)
    np.testing.assert_allclose(subject.values_of(subject.blob_of(values, None)), values, rtol=1e-5)
    observed = np.array([[True, False, True, True], [True] * 4])
    hidden = subject.values_of(subject.blob_of(values, observed))
    assert np.isnan(hidden[0, 1])


def test_answers_are_those_of_the_model(client: TestClient, subject: TableSubject) -> None:
    values = np.array([[4000, np.nan, np.nan, np.nan], [20000, 3, 2, np.nan]], np.float32)
    got = outputs(infer(client, "animals", inputs=[tensor("data", values)]))
    x = subject.blob_of(values, None)
    np.testing.assert_allclose(got["posterior"], subject.model.posterior(x).numpy(), rtol=1e-4)
    np.testing.assert_allclose(got["log_likelihood"], TableModel(subject.model).log_likelihood(x), rtol=1e-4)
    np.testing.assert_allclose(got["expected"][~np.isnan(values)], values[~np.isnan(values)], rtol=1e-4)
    assert np.isnan(got["deviation"][:, 2]).all()  # of a category
    assert got["deviation"][0, 1] > 0
    assert got["deviation"][1, 0] == 0
    best = TableModel(subject.model).categories(x[:1], None, 2, 3).argmax(1)
    assert got["expected"][0, 2] == float(best[0])
    assert got["sample"].shape == (2, 4)
    assert got["sample"][0, 2] in (0, 1, 2)


def test_a_density_changes_with_the_unit_of_a_column(subject: TableSubject) -> None:
    x = subject.blob_of(np.array([[4000, np.nan, np.nan, np.nan]], np.float32), None)
    inner = subject.model.log_likelihood(x)
    weight = next(column for column in subject.layout.inputs if column.name == "weight")
    outer = subject.log_likelihood(x, subject.model.class_log_likelihood(x))
    torch.testing.assert_close(outer, inner - np.log(weight.deviation), rtol=1e-4, atol=1e-4)


def test_categories_are_numbers_of_theirs(client: TestClient) -> None:
    for wrong in (3.0, -1.0, 0.5):
        values = np.array([[4000, 8, wrong, 15000]], np.float32)
        answer = infer(client, "animals", inputs=[tensor("data", values)])
        assert answer.status_code == 400
        assert "column 'colour' holds categories: whole numbers from 0 to 2" in answer.json()["error"]
    narrow = infer(client, "animals", inputs=[tensor("data", np.zeros((1, 3), np.float32))])
    assert "the net takes [N, 4]" in narrow.json()["error"]
