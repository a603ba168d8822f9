"""A user's table: what is read, and what is refused with one clear line."""

import re

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch

from datamodules import CSVTabularDataModule, InputError
from datamodules.files import notes
from lit_models import LitMCDropoutMLPClassifier, LitMLPClassifier


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "size": rng.normal(50, 10, 60),
            "color": rng.choice(["red", "green", "blue"], 60),
            "grade": rng.integers(1, 4, 60),
            "price": rng.normal(1000, 50, 60),
            "kind": np.repeat(["cat", "dog", "owl"], 20),
        }
    )
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    return path, frame


def write(tmp_path, text):
    path = tmp_path / "wrong.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_classification(table):
    path, frame = table
    data = CSVTabularDataModule(str(path), "kind", drop=["price"])
    assert (data.in_features, data.num_classes, data.class_names) == (5, 3, ["cat", "dog", "owl"])
    splits = [data.split(s) for s in ("train", "val", "test")]
    assert sum(len(s.x) for s in splits) == 60
    for split in splits:
        assert split.y.bincount(minlength=3).min() >= 1
    rows = data._rows
    assert len(np.unique(np.concatenate(list(rows.values())))) == 60
    test = data.one_hot(splits[2])
    np.testing.assert_allclose(test.x[:, 0], frame["size"].iloc[rows["test"]], rtol=1e-6)
    colors = np.array(["blue", "green", "red"])[test.x[:, 1:4].argmax(1)]
    np.testing.assert_array_equal(colors, frame["color"].iloc[rows["test"]])


def test_categorical_numbers_become_indicators(table):
    path, _ = table
    data = CSVTabularDataModule(str(path), "kind", categorical=["grade"], drop=["price"])
    assert data.in_features == 1 + 3 + 3


def test_scale_comes_from_the_training_rows(table):
    path, frame = table
    data = CSVTabularDataModule(str(path), "price", task="regression", drop=["kind", "color"])
    train = frame.iloc[data._rows["train"]]
    mean, std = data.standardization["x_scaler"]
    np.testing.assert_allclose(mean[0], train["size"].mean(), rtol=1e-5)
    np.testing.assert_allclose(std[0], train["size"].std(ddof=0), rtol=1e-5)
    mean, std = data.standardization["y_scaler"]
    np.testing.assert_allclose(mean[0], train["price"].mean(), rtol=1e-5)
    assert data.out_features == 1


def test_given_test_rows(table, tmp_path):
    path, _ = table
    rows = tmp_path / "rows.txt"
    rows.write_text("0 1 2\n5 30 59\n")
    data = CSVTabularDataModule(str(path), "kind", test_rows=str(rows), split=1)
    assert list(data._rows["test"]) == [5, 30, 59]
    with pytest.raises(InputError, match="2 splits; split 2 is none"):
        _ = CSVTabularDataModule(str(path), "kind", test_rows=str(rows), split=2).num_train
    rows.write_text("0 99\n")
    with pytest.raises(InputError, match=r"\[0, 59\]"):
        _ = CSVTabularDataModule(str(path), "kind", test_rows=str(rows)).num_train


def test_predictions_carry_rows_and_names(table):
    path, frame = table
    data = CSVTabularDataModule(str(path), "kind")
    test = data.split("test")
    outputs = {"class": test.y, "probability": torch.eye(3)[test.y], "target": test.y}
    table_out = data.prediction_frame(outputs)
    assert list(table_out.columns[:3]) == ["row", "class", "target"]
    assert list(table_out["class"]) == list(frame["kind"].iloc[table_out["row"]])
    assert (table_out["probability_owl"] == (table_out["class"] == "owl")).all()


def test_new_rows_to_predict(table, tmp_path):
    path, frame = table
    new = tmp_path / "new.csv"
    frame.drop(columns="kind").head(3).to_csv(new, index=False)
    data = CSVTabularDataModule(str(path), "kind", predict_path=str(new))
    data.setup("predict")
    assert len(data.split("predict").x) == 3
    frame.assign(color="pink").to_csv(new, index=False)
    data = CSVTabularDataModule(str(path), "kind", predict_path=str(new))
    with pytest.raises(
        InputError, match="row 2: 'color' is 'pink', a category no training row has"
    ):
        data.setup("predict")


WRONG = {
    "no file": (None, "no file 'nothing.csv'"),
    "empty": ("", "is empty"),
    "binary": (b"\x89PNG\xff\xfe\x00\x01\n", "not UTF-8 text"),
    "no such target": ("a,b\n" + "1,2\n" * 9, "no column 'y'; it has a, b"),
    "duplicate column": ("a,a,y\n" + "1,2,3\n" * 9, "2 columns named 'a'"),
    "unnamed column": ("a,,y\n" + "1,2,3\n" * 9, "column 2 has no name"),
    "missing target": ("a,y\n" + "1,u\n2,v\n" * 9 + "3,\n", "row 20: no value in column 'y'"),
    "missing feature": ("a,y\n1,u\n,v\n" + "1,u\n2,v\n" * 9, "row 3: no value in column 'a'"),
    "infinite feature": ("a,y\ninf,u\n" + "1,u\n2,v\n" * 9, "not a finite number"),
    "one class": ("a,y\n" + "1,u\n" * 9, "single class 'u'"),
    "rare class": ("a,y\n1,w\n" + "1,u\n2,v\n" * 9, "class"),
    "too few rows": ("a,y\n1,u\n2,v\n", "at least 4"),
    "target alone": ("y\n" + "u\nv\n" * 9, "no column beside the target"),
    "ragged row": ("a,y\n1,u\n2,v,3\n" + "1,u\n2,v\n" * 9, "row 3 has 3 cells and the header 2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files(tmp_path, name):
    text, message = WRONG[name]
    path = "nothing.csv" if text is None else write(tmp_path, text)
    data = CSVTabularDataModule(path, "y")
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        data.setup("fit")
    assert "\n" not in str(caught.value)


def test_wrong_task_is_named(table):
    path, _ = table
    with pytest.raises(InputError, match="task=regression"):
        _ = CSVTabularDataModule(str(path), "price", task="regression").num_classes
    with pytest.raises(InputError, match="task=classification"):
        _ = CSVTabularDataModule(str(path), "kind").out_features
    with pytest.raises(InputError, match=r"use --data\.task regression"):
        _ = CSVTabularDataModule(str(path), "price").num_classes
    path.write_text("a,y\n" + "1,5\n2,5\n" * 9)
    with pytest.raises(InputError, match="'y' is 5 in all training rows"):
        CSVTabularDataModule(str(path), "y", task="regression").setup("fit")


def odd_table(tmp_path, rows=120):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "zone": rng.choice(["01", "02", "A4"], rows),
            "size": [f"{value:.3f}" for value in 1e9 + rng.normal(0, 3, rows)],
            "country": [*rng.choice(["NA", "DE"], rows - 1), "XX"],
            "day": pd.date_range("2020-01-01", periods=rows).strftime("%d/%m/%Y"),
            "kind": rng.choice(["01", "02", "NA"], rows),
        }
    )
    frame.loc[3, "size"] = "?"
    path = tmp_path / "odd.csv"
    frame.to_csv(path, index=False)
    return path, frame


def test_a_checkpoint_reads_new_rows_without_the_training_file(tmp_path):
    path, frame = odd_table(tmp_path)
    data = CSVTabularDataModule(str(path), "kind", missing="fill", rare=True)
    assert data.class_names == ["01", "02", "NA"]
    expected = data.one_hot(data.split("test"))
    state = data.state_dict()
    rows = data._rows["test"]
    new = tmp_path / "new.csv"
    frame.iloc[rows].drop(columns="kind").to_csv(new, index=False)
    path.unlink()
    known = CSVTabularDataModule("gone", "kind", missing="fill", rare=True, predict_path=str(new))
    known.load_state_dict(state)
    torch.testing.assert_close(known.one_hot(known.split("predict")).x, expected.x)
    assert known.class_names == data.class_names
    frame.assign(zone="01").iloc[:2].drop(columns="kind").to_csv(new, index=False)
    known = CSVTabularDataModule("gone", "kind", missing="fill", rare=True, predict_path=str(new))
    known.load_state_dict(state)
    assert len(known.split("predict").x) == 2


def test_rows_of_training_are_known_again(tmp_path):
    path, frame = odd_table(tmp_path)
    options = {"missing": "fill", "rare": True}
    state = CSVTabularDataModule(str(path), "kind", **options).state_dict()
    same = CSVTabularDataModule(str(path), "kind", **options)
    same.load_state_dict(state)
    assert same.other_rows("test") is None
    frame.iloc[1:].to_csv(path, index=False)
    other = CSVTabularDataModule(str(path), "kind", **options)
    other.load_state_dict(state)
    assert "rows it was trained on" in other.other_rows("test")


def test_numbers_stay_in_double_precision(tmp_path):
    path, frame = odd_table(tmp_path)
    data = CSVTabularDataModule(
        str(path), "size", task="regression", missing="fill", rare=True, drop=["day"]
    )
    truth = frame["size"].iloc[data._rows["test"]].astype(float)
    np.testing.assert_array_equal(data.split("test").y[:, 0], truth)
    assert data.baseline["test/mse"].value == pytest.approx(9, rel=0.7)


@pytest.mark.parametrize("options", [{"group": "country"}, {"time": "day"}])
def test_groups_and_times_do_not_leak(tmp_path, options):
    path, frame = odd_table(tmp_path)
    frame["country"] = [f"c{i % 12}" for i in range(len(frame))]
    frame.to_csv(path, index=False)
    data = CSVTabularDataModule(str(path), "kind", missing="fill", rare=True, **options)
    rows = data._rows
    if "group" in options:
        groups = [set(frame["country"].iloc[r]) for r in rows.values()]
        assert sum(map(len, groups)) == len(set().union(*groups))
    else:
        assert rows["train"].max() < rows["val"].min() <= rows["val"].max() < rows["test"].min()


def test_the_task_is_inferred_and_the_target_is_no_dropped_column(tmp_path):
    path, _ = odd_table(tmp_path)
    options = {"task": "auto", "missing": "fill", "rare": True}
    assert CSVTabularDataModule(str(path), "kind", **options).task == "classification"
    assert CSVTabularDataModule(str(path), "size", **options).task == "regression"
    with pytest.raises(InputError, match="the target 'y' cannot be dropped"):
        CSVTabularDataModule(str(path), "y", drop=["y"])


def test_folds_are_the_test_in_turn(table):
    path, frame = table
    tests = []
    for fold in range(3):
        data = CSVTabularDataModule(str(path), "kind", folds=3, fold=fold)
        rows = data._rows
        assert len(np.unique(np.concatenate(list(rows.values())))) == 60
        assert set(frame["kind"].iloc[rows["test"]]) == {"cat", "dog", "owl"}
        tests.append(rows["test"])
    assert sorted(np.concatenate(tests)) == list(range(60))
    grouped = [
        CSVTabularDataModule(
            str(path), "price", "regression", group="color", folds=3, fold=fold
        )._rows["test"]
        for fold in range(3)
    ]
    assert [
        set(frame["color"].iloc[rows]) & set(frame["color"].iloc[grouped[0]]) == set()
        for rows in grouped[1:]
    ] == [True, True]
    for wrong, message in (
        ({"folds": 1}, "at least 2"),
        ({"folds": 3, "fold": 3}, "below it"),
        ({"folds": 3, "time": "size"}, "mix the times"),
        ({"folds": 3, "test_path": "t.csv"}, "make the test rows"),
    ):
        with pytest.raises(InputError, match=message):
            CSVTabularDataModule(str(path), "kind", **wrong)


def test_several_targets_are_columns_of_numbers(table):
    path, frame = table
    data = CSVTabularDataModule(str(path), ["price", "size"], task="auto", drop=["kind", "color"])
    assert (data.task, data.out_features, data.in_features) == ("regression", 2, 1)
    rows = data._rows["test"]
    np.testing.assert_array_equal(data.split("test").y, frame[["price", "size"]].iloc[rows])
    assert len(data.standardization["y_scaler"][0]) == 2
    errors = data.split("test").y - data.split("train").y.mean(0)
    assert data.baseline["test/mse"].value == pytest.approx(errors.square().mean().item())
    assert set(data.rivals["test/mse"]) == {
        "ridge regression",
        "gradient boosting (HistGradientBoosting)",
    }
    out = data.prediction_frame({"prediction": errors, "target": data.split("test").y})
    assert list(out.columns) == [
        "row",
        "prediction_price",
        "prediction_size",
        "target_price",
        "target_size",
    ]
    with pytest.raises(InputError, match="several targets are numbers"):
        CSVTabularDataModule(str(path), ["kind", "color"])


def test_rows_and_classes_weigh_as_they_are_told(tmp_path):
    rng = np.random.default_rng(0)
    y = np.where(rng.random(300) < 0.1, "rare", "often")
    frame = pd.DataFrame({"a": rng.normal(size=300), "w": rng.uniform(0, 3, 300), "y": y})
    data = CSVTabularDataModule(frame, "y", weight="w", class_weight="balanced")
    assert data.in_features == 1
    train = data.split("train")
    rows = data._rows["train"]
    w = frame["w"].to_numpy()[rows]
    share = np.bincount(train.y)
    np.testing.assert_allclose(train.weight, w / w.mean() * share.sum() / (2 * share[train.y]))
    assert data.split("test").weight is None
    model = LitMLPClassifier(1, 2, batch_norm=False, dropout=0.0)
    model.take_scale(data)
    output = model.step(train)
    losses = torch.nn.functional.cross_entropy(model(train.x), train.y, reduction="none")
    torch.testing.assert_close(output.loss, (losses * train.weight).sum().float() / w_sum(train))
    torch.testing.assert_close(output.num_targets, w_sum(train))
    with pytest.raises(InputError, match="a weight is not negative"):
        CSVTabularDataModule(frame.assign(w=-1.0), "y", weight="w").split("train")
    with pytest.raises(InputError, match="class_weight needs classes"):
        CSVTabularDataModule(frame, "w", "regression", class_weight="balanced").split("train")


def w_sum(batch):
    return batch.weight.float().sum()


def test_a_model_that_ignores_weights_is_refused(tmp_path):
    frame = pd.DataFrame({"a": range(60), "w": 1.0, "y": ["u", "v"] * 30})
    data = CSVTabularDataModule(frame, "y", weight="w")
    trainer = L.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with pytest.raises(InputError, match="does not weigh rows"):
        trainer.fit(LitMCDropoutMLPClassifier(1, 2, 42), datamodule=data)


def test_rare_and_unseen_categories_are_counted(tmp_path, capsys):
    notes._SAID.clear()
    path, frame = odd_table(tmp_path)
    data = CSVTabularDataModule(str(path), "kind", missing="fill", rare=True, drop=["day"])
    data.setup("fit")
    assert "1 cells in 1 columns hold rare or unseen categories" in capsys.readouterr().err
    new = CSVTabularDataModule(
        "gone", "kind", missing="fill", rare=True, predict_path=frame.assign(zone="B7").head(5)
    )
    new.adopt(data.knowledge())
    new.setup("predict")
    assert "5 cells in 1 columns hold rare or unseen" in capsys.readouterr().err
