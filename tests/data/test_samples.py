"""Datamodules of samples: splits, evaluation rows, own files and mistakes in them."""

import numpy as np
import pytest
import torch

from datamodules import (
    ArrayDataModule,
    DigitsDataModule,
    GaussianDataModule,
    GaussianMixtureDataModule,
    InputError,
)

RING = {"weights": [0.5, 0.5], "means": [[0.0, 1.0], [2.0, -1.0]], "stds": [0.3, 0.2]}


@pytest.mark.parametrize("options", [{}, RING], ids=["line", "plane"])
def test_rows_are_a_function_of_seed_and_split(options):
    first, second, other = (
        GaussianMixtureDataModule(**options, num_samples=500, num_test=50, seed=seed)
        for seed in (3, 3, 4)
    )
    assert torch.equal(first.split("train").x0, second.split("train").x0)
    assert not torch.equal(first.split("train").x0, other.split("train").x0)
    rows = [first.split(split).x0 for split in ("train", "val", "test")]
    assert [len(row) for row in rows] == [500, 5, 50]
    assert len(torch.cat(rows).unique(dim=0)) == 555


def test_evaluation_rows_stand_for_the_law():
    data = GaussianDataModule(num_test=2000)
    test = data.split("test").x0
    # Quantiles of N(3, 4) are closer to it than any sample of that size.
    assert data.law.wasserstein(test) < 0.05 * data.law.wasserstein_noise(2000)
    assert not torch.equal(test, test.sort(0).values)


def test_references():
    data = GaussianDataModule(num_samples=10, num_test=1000)
    assert data.optimum["test/eps_mse"].value == 0
    assert data.optimum["test/wasserstein"].value == pytest.approx(0.0812, abs=1e-3)
    # N(0, 1) against N(3, 4): the distance 3 + z of the quantiles at z changes sign at z = -3.
    z = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    expected = (3 + z).abs().mean().item()
    assert data.baseline["test/wasserstein"].value == pytest.approx(expected, abs=5e-3)


def test_noise_of_the_sliced_distance():
    from lit_models.metrics.samples import SlicedWasserstein

    data = GaussianMixtureDataModule(**RING, num_test=200)
    metric = SlicedWasserstein(2)
    values = []
    for seed in range(400):
        generator = torch.Generator().manual_seed(seed)
        metric.update(data.law.sample(200, generator), data.law.sample(200, generator))
        values.append(metric.compute().item())
        metric.reset()
    expected = data.optimum["test/sliced_wasserstein"].value
    assert expected == pytest.approx(np.mean(values), rel=0.12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [0.5, 0.6]}, "sum to 1"),
        ({"stds": [0.1]}, "one entry per component"),
        ({"stds": [0.1, 0.0]}, "must be positive, got 0"),
        ({"means": [[0.0], [1.0, 2.0]]}, "same number of dimensions"),
        ({"num_test": 3}, "num_test"),
        ({"num_generated": 0}, "num_generated"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(InputError, match=message):
        GaussianMixtureDataModule(**options)


def save(tmp_path, array, name="x.npy"):
    np.save(tmp_path / name, array)
    return str(tmp_path / name)


@pytest.mark.parametrize(
    ("shape", "sample_shape"),
    [((37,), (1,)), ((37, 3), (3,)), ((37, 4, 5), (1, 4, 5)), ((37, 2, 4, 5), (2, 4, 5))],
)
def test_own_arrays(tmp_path, shape, sample_shape):
    array = np.arange(np.prod(shape)).reshape(shape)
    data = ArrayDataModule(save(tmp_path, array))
    assert data.sample_shape == sample_shape
    assert data.num_classes == 0
    rows = torch.cat([data.split(split).x0 for split in ("train", "val", "test")])
    assert rows.shape == (37, *sample_shape)
    order = rows.flatten(1)[:, 0].argsort()
    np.testing.assert_array_equal(rows[order].numpy().ravel(), array.ravel())
    mean, std = data.standardization["x_scaler"]
    assert len(mean) == (sample_shape[0] if len(sample_shape) == 1 else 1)
    scaled = (data.split("train").x0.double() - mean) / std
    assert scaled.mean().item() == pytest.approx(0, abs=1e-9)


def test_own_classes(tmp_path):
    classes = np.arange(40) % 4
    data = ArrayDataModule(
        save(tmp_path, np.arange(40.0)), save(tmp_path, classes, "y.npy"), num_generated=6
    )
    assert data.num_classes == 4
    for split in ("train", "val", "test"):
        batch = data.split(split)
        assert torch.equal(batch.x0[:, 0].long() % 4, batch.y)
        assert set(batch.y.tolist()) == {0, 1, 2, 3}
    assert data.split("predict").y.tolist() == [0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1.0, np.nan, 2.0]), "row 1 is not finite"),
        (np.array(["a", "b"]), "numbers are needed"),
        (np.float64(3.0), "a single value; a row per sample is needed"),
        (np.zeros((2, 2, 2, 2, 2)), "1 to 4 dimensions"),
        (np.zeros((9, 0)), "1 to 4 dimensions"),
    ],
)
def test_wrong_arrays(tmp_path, array, message):
    with pytest.raises(InputError, match=message):
        _ = ArrayDataModule(save(tmp_path, array)).sample_shape


def test_wrong_files(tmp_path):
    with pytest.raises(InputError, match="no file"):
        _ = ArrayDataModule(str(tmp_path / "none.npy")).sample_shape
    (tmp_path / "text.npy").write_text("x,y\n1,2\n")
    with pytest.raises(InputError, match=r"numpy\.save"):
        _ = ArrayDataModule(str(tmp_path / "text.npy")).sample_shape
    objects = np.array([{"a": 1}], dtype=object)
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    with pytest.raises(InputError, match=r"numpy\.save"):
        _ = ArrayDataModule(str(tmp_path / "objects.npy")).sample_shape
    path = save(tmp_path, np.arange(5.0))
    with pytest.raises(InputError, match="one for each"):
        _ = ArrayDataModule(path, save(tmp_path, np.arange(4), "y.npy")).num_classes
    with pytest.raises(InputError, match="whole numbers or words"):
        _ = ArrayDataModule(path, save(tmp_path, np.arange(5) / 2, "y.npy")).num_classes
    with pytest.raises(InputError, match="val_fraction"):
        ArrayDataModule(path, val_fraction=0.6, test_fraction=0.4)


def test_digits():
    data = DigitsDataModule()
    sizes = [len(data.split(split).x0) for split in ("train", "val", "test")]
    assert sum(sizes) == 1797
    assert data.split("train").x0.shape[1:] == (1, 8, 8)
    assert data.split("test").y.unique().tolist() == list(range(10))
    assert DigitsDataModule(conditional=False).split("val").y is None


@pytest.mark.parametrize(
    ("shape", "sample_shape"),
    [
        ((12, 8, 12, 3), (3, 8, 12)),
        ((12, 7, 9, 1), (1, 7, 9)),
        ((12, 3, 8, 12), (3, 8, 12)),
        ((12, 3, 12, 3), (3, 12, 3)),  # both could be channels: as the docs say
        ((12, 2, 8, 12), (2, 8, 12)),
    ],
)
def test_channels_are_noticed_where_they_stand(tmp_path, capsys, shape, sample_shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = ArrayDataModule(save(tmp_path, array))
    assert data.sample_shape == sample_shape
    last = sample_shape[0] == shape[3] and sample_shape[0] != shape[1]
    said = capsys.readouterr().err
    assert ("which stand last" in said) == last
    doubtful = (shape[1] in (1, 3, 4)) == (shape[3] in (1, 3, 4))
    assert ("which stand first" in said) == doubtful
    picture = data.read_rows(np.array([3]))[0].numpy()
    np.testing.assert_array_equal(picture, np.moveaxis(array[3], -1, 0) if last else array[3])
    other = ArrayDataModule(str(tmp_path / "x.npy"), channels="first")
    assert other.sample_shape == shape[1:]


@pytest.mark.parametrize("names", [[1, 2, 9], ["cat", "dog", "ox"], [-3, 0, 2**40]])
def test_classes_of_any_name(tmp_path, names):
    labels = np.array([names[i % 3] for i in range(60)])
    x = save(tmp_path, np.arange(60.0))
    data = ArrayDataModule(x, save(tmp_path, labels, "y.npy"), num_generated=7)
    assert (data.num_classes, list(data.class_names)) == (3, names)
    batch = data.split("train")
    assert [names[code] for code in batch.y] == labels[batch.x0[:, 0].long()].tolist()
    assert data.split("predict").y.tolist() == [0, 1, 2, 0, 1, 2, 0]
    one = ArrayDataModule(x, labels, num_generated=4, generated_class=names[2])
    assert one.split("predict").y.tolist() == [2] * 4
    with pytest.raises(InputError, match="was never seen"):
        ArrayDataModule(x, labels, generated_class="horse").setup("predict")
    outputs = {"sample": torch.zeros(3, 1), "class": torch.tensor([2, 0, 2])}
    data.write_predictions(outputs, tmp_path)
    assert np.load(tmp_path / "classes.npy").tolist() == [names[2], names[0], names[2]]


def test_classes_in_memory_are_read_as_those_of_a_file():
    rows = np.arange(30.0)
    for words in (np.array([b"x", b"y"] * 15), np.array(["x", "y"] * 15, dtype=object)):
        assert list(ArrayDataModule(rows, words).class_names) == ["x", "y"]
    for wrong in (np.arange(30) / 2, np.array(["x", None] * 15, dtype=object)):
        with pytest.raises(InputError, match="whole numbers or words"):
            _ = ArrayDataModule(rows, wrong).num_classes


def test_batches_are_read_late_and_hold_what_the_file_holds(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (40, 5, 6), dtype=np.uint8)
    data = ArrayDataModule(save(tmp_path, array), batch_size=7, eval_batch_size=3)
    assert isinstance(data._stored.rows, np.memmap)
    rows = data._rows
    assert sorted(np.concatenate(list(rows.values()))) == list(range(40))
    seen = torch.cat([batch.x0 for batch in data.test_dataloader()])
    np.testing.assert_array_equal(seen[:, 0].numpy(), array[rows["test"]])
    assert seen.dtype == torch.float32
    mean, std = data.standardization["x_scaler"]
    train = array[rows["train"]]
    assert mean.item() == pytest.approx(train.mean(), rel=1e-12)
    assert std.item() == pytest.approx(train.std(), rel=1e-12)


def test_numbers_that_single_precision_rounds_stay_whole(tmp_path):
    array = 1e9 + np.arange(30.0)[:, None]
    data = ArrayDataModule(save(tmp_path, array))
    rows = data.split("train").x0
    assert rows.dtype == torch.float64
    assert set(rows[:, 0].tolist()) <= set(array[:, 0])


def test_standardization_in_blocks(tmp_path, monkeypatch):
    array = np.random.default_rng(0).normal(5.0, 3.0, (50, 4))
    data = ArrayDataModule(save(tmp_path, array))
    whole = data.standardization["x_scaler"]
    monkeypatch.setattr("datamodules.own.stored_samples._BLOCK", 12)
    assert len(list(data.training_blocks())) > 5
    for one, other in zip(whole, data.standardization["x_scaler"], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


def test_half_of_the_pictures_are_mirrored_anew_each_epoch(tmp_path):
    array = np.zeros((60, 2, 2), dtype=np.uint8)
    array[:, :, 0] = 255
    data = ArrayDataModule(save(tmp_path, array), flip=True, batch_size=14)
    loader = data.train_dataloader()
    epochs = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        epochs.append(torch.cat([batch.x0[:, 0, 0, 0] for batch in loader]) == 0)
    assert 0.2 < epochs[0].float().mean() < 0.8
    assert not torch.equal(*epochs)
    assert (data.val_dataloader().fetch(torch.arange(6), 0).x0[:, 0, 0, 0] == 255).all()


def test_a_run_knows_its_samples_without_the_file(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (30, 6, 5, 3), dtype=np.uint8)
    labels = np.array(["a", "b", "c"] * 10)
    data = ArrayDataModule(save(tmp_path, array), labels)
    state = data.state_dict()
    later = ArrayDataModule(str(tmp_path / "gone.npy"), str(tmp_path / "gone_too.npy"))
    later.load_state_dict(state)
    later.setup("predict")
    assert later.sample_shape == (3, 6, 5)
    assert later.num_classes == 3
    outputs = {"sample": torch.full((4, 3, 6, 5), 300.2), "class": torch.tensor([0, 1, 2, 0])}
    (tmp_path / "run").mkdir()
    path = later.write_predictions(outputs, tmp_path / "run")
    assert (tmp_path / "run" / "samples" / "c" / "2.png").is_file()
    assert (tmp_path / "run" / "samples.png").is_file()
    assert np.load(path).dtype == np.uint8
    assert np.load(path).max() == 255
    same = ArrayDataModule(str(tmp_path / "x.npy"), labels)
    same.load_state_dict(state)
    assert same.other_rows("test") is None
    other = ArrayDataModule(array[5:], labels[5:])
    other.load_state_dict(state)
    assert "of the 5 test rows" in other.other_rows("test")
    wrong = ArrayDataModule(array[:, :5])
    wrong.load_state_dict(state)
    with pytest.raises(InputError, match="the run was trained on"):
        wrong.setup("fit")
    unseen = ArrayDataModule(array, np.array(["a", "b", "x"] * 10))
    unseen.load_state_dict(state)
    with pytest.raises(InputError, match="'x', which the run was not trained on"):
        unseen.setup("fit")
