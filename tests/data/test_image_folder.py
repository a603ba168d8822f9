"""A user's pictures: classes by folder, sizes, colours, broken files."""

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import ArrayDataModule, ImageFolderDataModule, InputError


def picture(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Twelve colour pictures of 6 x 8 in two folders."""
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture(tmp_path / "set" / ("cat" if i < 6 else "no dog") / f"{i:02}.png", pixels)
    return tmp_path / "set"


def test_pictures_and_their_classes(folder):
    data = ImageFolderDataModule(str(folder))
    data.setup("fit")
    assert data.sample_shape == (3, 6, 8)
    assert list(data.class_names) == ["cat", "no dog"]
    rows = data._rows["train"]
    batch = data.split("train")
    for row, x0, y in zip(rows, batch.x0, batch.y, strict=True):
        path = folder / data.class_names[y] / f"{row:02}.png"
        np.testing.assert_array_equal(x0.numpy(), np.asarray(Image.open(path)).transpose(2, 0, 1))


def test_scaled_and_cut_at_the_centre(tmp_path):
    pixels = np.zeros((8, 24), dtype=np.uint8)
    pixels[:, 8:16] = 200  # the middle third
    for i in range(5):
        picture(tmp_path / f"{i}.jpg", pixels, quality=100)
    data = ImageFolderDataModule(str(tmp_path), image_size=4)
    assert data.sample_shape == (1, 4, 4)
    assert data.split("train").x0[..., 1:3].min() > 190
    wide = ImageFolderDataModule(str(tmp_path), image_size=(4, 12), color="rgb")
    assert wide.sample_shape == (3, 4, 12)
    assert wide.split("train").x0[..., 0].max() < 20


def test_grey_and_colour_together_are_colour(tmp_path):
    for i in range(4):
        picture(tmp_path / f"{i}.png", np.full((5, 5), 10 * i, dtype=np.uint8))
    picture(tmp_path / "4.png", np.full((5, 5, 3), 77, dtype=np.uint8))
    data = ImageFolderDataModule(str(tmp_path))
    assert data.sample_shape == (3, 5, 5)
    assert data.read_rows(np.arange(5))[:, 2, 0, 0].tolist() == [0, 10, 20, 30, 77]
    grey = ImageFolderDataModule(str(tmp_path), color="grey")
    assert grey.sample_shape == (1, 5, 5)


def test_sixteen_bits_keep_their_shades(tmp_path):
    for i in range(5):
        picture(tmp_path / f"{i}.png", np.full((4, 4), 257 * 40 * i, dtype=np.uint16))
    data = ImageFolderDataModule(str(tmp_path))
    assert data.read_rows(np.arange(5))[:, 0, 0, 0].tolist() == [0, 40, 80, 120, 160]


def test_five_pictures_are_enough_with_a_word(tmp_path, capsys):
    for i in range(5):
        picture(tmp_path / f"{i}.png", np.full((4, 4), i, dtype=np.uint8))
    data = ImageFolderDataModule(str(tmp_path))
    data.setup("fit")
    assert [len(data._rows[name]) for name in ("train", "val", "test")] == [3, 1, 1]
    assert "holds 5 samples" in capsys.readouterr().err
    assert len(next(iter(data.train_dataloader())).x0) == 3


def test_rare_classes_are_split_with_a_word(tmp_path, capsys):
    for i in range(7):
        picture(tmp_path / str(i % 4) / f"{i}.png", np.full((4, 4), i, dtype=np.uint8))
    data = ImageFolderDataModule(str(tmp_path))
    data.setup("fit")
    assert data.num_classes == 4
    assert "too few to split by class" in capsys.readouterr().err


def spoil(folder, what):
    if what == "cut off":
        path = folder / "cat" / "01.png"
        path.write_bytes(path.read_bytes()[:60])
    elif what == "no picture":
        (folder / "cat" / "01.png").write_text("hello")
    elif what == "size":
        picture(folder / "cat" / "01.png", np.zeros((5, 5, 3), dtype=np.uint8))
    elif what == "stray":
        picture(folder / "z.png", np.zeros((6, 8, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("cut off", "01.png is no whole picture"),
        ("no picture", "01.png is no whole picture"),
        ("size", "11 of the first 12 are 8 x 6; give --data.image_size"),
        ("stray", "z.png lies beside folders"),
    ],
)
def test_broken_folders(folder, what, message):
    spoil(folder, what)
    with pytest.raises(InputError, match=message):
        ImageFolderDataModule(str(folder)).setup("fit")


def test_wrong_arguments(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        ImageFolderDataModule(str(tmp_path / "none")).setup("fit")
    with pytest.raises(InputError, match="holds no picture"):
        ImageFolderDataModule(str(tmp_path)).setup("fit")
    with pytest.raises(InputError, match="image_size"):
        ImageFolderDataModule(str(tmp_path), image_size=0)
    with pytest.raises(InputError, match="num_test_samples"):
        ImageFolderDataModule(str(tmp_path), num_test_samples=0)


def test_pictures_come_back_as_files(folder, tmp_path):
    data = ImageFolderDataModule(str(folder))
    pixels = torch.arange(2 * 3 * 6 * 8, dtype=torch.float32).reshape(2, 3, 6, 8) % 256
    data.write_predictions({"sample": pixels, "class": torch.tensor([1, 0])}, tmp_path)
    read = np.asarray(Image.open(tmp_path / "samples" / "no dog" / "0.png"))
    np.testing.assert_array_equal(read, pixels[0].permute(1, 2, 0).numpy())
    grid = np.asarray(Image.open(tmp_path / "samples.png"))
    np.testing.assert_array_equal(grid[2:8, 12:20], pixels[1].permute(1, 2, 0).numpy())


def test_files_that_are_not_the_users_are_no_pictures(folder):
    """Copies that a notebook or an archive leaves are neither rows nor classes."""
    for place in (".ipynb_checkpoints", "cat/.cache", "__MACOSX/cat"):
        picture(folder / place / "00.png", np.zeros((6, 8, 3), dtype=np.uint8))
    data = ImageFolderDataModule(str(folder))
    assert list(data.class_names) == ["cat", "no dog"]
    assert len(data._stored.rows) == 12


@pytest.mark.parametrize("channels", [2, 4])
def test_transparent_pixels_stand_on_white(tmp_path, capsys, channels):
    """What an editor left behind them is seen by nobody."""
    pixels = np.full((4, 4, channels), 90, dtype=np.uint8)
    pixels[..., -1] = 255
    picture(tmp_path / "0.png", pixels)
    pixels[:2, :, -1] = 0
    for i in range(1, 5):
        picture(tmp_path / f"{i}.png", pixels)
    data = ImageFolderDataModule(str(tmp_path))
    assert data.sample_shape == ((1, 4, 4) if channels == 2 else (3, 4, 4))
    rows = data.read_rows(np.arange(5))[:, 0, :, 0]
    assert rows.tolist() == [[90] * 4, *[[255, 255, 90, 90]] * 4]
    assert capsys.readouterr().err.count("transparent pixels stand on white") == 1


def test_a_class_is_never_a_path(tmp_path):
    names = ["../up", "a/b", "", "x" * 300]
    images = np.zeros((40, 1, 4, 4), dtype=np.uint8)
    data = ArrayDataModule(images, np.array(names)[np.arange(40) % 4])
    outputs = {"sample": torch.zeros(8, 1, 4, 4), "class": torch.arange(8) % 4}
    folder = tmp_path / "run"
    folder.mkdir()
    data.write_predictions(outputs, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    depths = {len(path.relative_to(folder).parts) for path in folder.rglob("*.png")}
    assert depths == {1, 3}  # the grid; samples/<class>/<number>.png
    assert sorted(np.unique(np.load(folder / "classes.npy"))) == sorted(names)
