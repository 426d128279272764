"""Pictures of one's own: folders, lists, arrays and databases, and what is said of those that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netspec.data.files.idx import write as write_idx
from netspec.data.files.images import decode, encode
from netspec.data.pictures import open_pictures
from netspec.data.pictures.arrays import of_arrays
from netspec.data.writing.convert import Example
from netspec.data.writing.databases import write_database
from netspec.errors import DataError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 1, 5, 4), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 3, 5, 4), dtype=np.uint8)
"""In the order B, G, R."""


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(image, path.suffix[1:], str(path)))
    return path


def folder(tmp_path: Path, images: np.ndarray) -> Path:
    for i, image in enumerate(images):
        save(tmp_path / "pets" / ("dog" if i % 2 else "cat") / f"{i}.png", image)
    (tmp_path / "pets" / "dog" / "notes.txt").write_text("not a picture")
    return tmp_path / "pets"


@pytest.mark.parametrize("images", [GREY, COLOUR])
def test_a_folder_has_a_class_a_sub_folder(tmp_path: Path, images: np.ndarray) -> None:
    pictures = open_pictures(folder(tmp_path, images))
    assert pictures.class_names == ("cat", "dog")
    assert pictures.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert pictures.shape == images.shape[1:]
    np.testing.assert_array_equal(pictures.block(range(6)), images[[0, 2, 4, 1, 3, 5]])


def test_classes_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    for name in ("10", "9", "2"):
        save(tmp_path / name / "a.png", GREY[0])
    assert open_pictures(tmp_path).class_names == ("2", "9", "10")


def test_known_classes_keep_their_numbers(tmp_path: Path) -> None:
    pictures = open_pictures(folder(tmp_path, GREY), classes=("bird", "cat"))
    np.testing.assert_array_equal(pictures.labels, [1, 1, 1, np.nan, np.nan, np.nan])
    assert "'dog' is none of the classes (bird, cat)" in pictures.notes[0]


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    save(tmp_path / "b.png", GREY[1])
    save(tmp_path / "a.jpg", GREY[0])
    pictures = open_pictures(tmp_path)
    assert [Path(name).name for name in pictures.names] == ["a.jpg", "b.png"]
    assert np.isnan(pictures.labels).all()


def test_sizes_and_colours_become_one(tmp_path: Path) -> None:
    save(tmp_path / "a.png", GREY[0])
    save(tmp_path / "b.png", RNG.integers(0, 256, (3, 10, 8), dtype=np.uint8))
    pictures = open_pictures(tmp_path)
    assert pictures.block([0, 1]).shape == (2, 1, 5, 4)
    assert "resized to 5x4" in pictures.notes[0]
    assert open_pictures(tmp_path, size=(3, 3), color=True).block([0, 1]).shape == (2, 3, 3, 3)


def test_lists(tmp_path: Path) -> None:
    save(tmp_path / "a one.png", GREY[0])
    save(tmp_path / "b.png", GREY[1])
    (tmp_path / "list.txt").write_text("a one.png dog\n\nb.png cat\n")
    pictures = open_pictures(tmp_path / "list.txt")
    assert (pictures.class_names, pictures.labels.tolist()) == (("cat", "dog"), [1, 0])
    (tmp_path / "list.txt").write_text("a one.png\nb.png\n")
    assert np.isnan(open_pictures(tmp_path / "list.txt").labels).all()
    (tmp_path / "list.txt").write_text("a one.png dog\nnonsense\n")
    with pytest.raises(DataError, match=r"list\.txt:2: expected a picture's path"):
        open_pictures(tmp_path / "list.txt")


@pytest.mark.parametrize("order", ["NHW", "NCHW", "NHWC", "RGB"])
def test_arrays_in_any_order_of_axes(tmp_path: Path, order: str) -> None:
    images = COLOUR if order in ("RGB", "NCHW") else GREY
    lying = {"NHW": GREY[:, 0], "NCHW": COLOUR[:, ::-1], "NHWC": GREY.transpose(0, 2, 3, 1),
             "RGB": COLOUR[:, ::-1].transpose(0, 2, 3, 1)}[order]  # fmt: skip
    np.savez(tmp_path / "a.npz", images=lying, labels=np.arange(6))
    pictures = open_pictures(tmp_path / "a.npz")
    np.testing.assert_array_equal(pictures.block(range(6)), images)
    assert pictures.labels.tolist() == list(range(6))
    np.save(tmp_path / "a.npy", lying)
    np.testing.assert_array_equal(open_pictures(tmp_path / "a.npy").block(range(6)), images)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64, np.float16, bool])
def test_arrays_of_any_type(dtype: type) -> None:
    images = (GREY > 127) if dtype is bool else GREY
    expected = 255.0 * images if dtype is bool else GREY.astype(np.float32)
    np.testing.assert_allclose(of_arrays("x", images.astype(dtype), None, []).block(range(6)), expected)
    scaled = of_arrays("x", GREY / 255, None, [])
    np.testing.assert_allclose(scaled.block(range(6)), GREY, atol=1e-3)
    assert "grey levels over 255" in scaled.notes[0]


def test_missing_pixels_and_names_of_classes_in_arrays() -> None:
    images = GREY.astype(np.float32)
    images[0, 0, 0, 0] = np.nan
    pictures = of_arrays("x", images, np.array(["b", "a", "b", "a", "b", "a"]), [])
    assert np.isnan(pictures.block([0])).sum() == 1
    assert (pictures.class_names, pictures.labels.tolist()) == (("a", "b"), [1, 0, 1, 0, 1, 0])


def test_idx_hdf5_and_databases(tmp_path: Path) -> None:
    write_idx(tmp_path / "x-images-idx3-ubyte.gz", GREY[:, 0])
    write_idx(tmp_path / "x-labels-idx1-ubyte.gz", np.arange(6, dtype=np.uint8))
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data"], file["label"] = GREY, np.arange(6)
    pytest.importorskip("lmdb")
    write_database((Example(f"{i}", GREY[i], i) for i in range(6)), tmp_path / "x_lmdb")
    for name in ("x-images-idx3-ubyte.gz", "x.h5", "x_lmdb"):
        pictures = open_pictures(tmp_path / name)
        np.testing.assert_array_equal(pictures.block(range(6)), GREY)
        assert pictures.labels.tolist() == list(range(6))


def test_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    save(tmp_path / "mixed" / "a.png", GREY[0])
    save(tmp_path / "mixed" / "dog" / "a.png", GREY[0])
    (tmp_path / "bad.png").write_bytes(b"no picture")
    np.savez(tmp_path / "flat.npz", x=np.zeros((4, 3)))
    np.savez(tmp_path / "short.npz", images=GREY, labels=np.array(["a", "b"]))
    np.savez(tmp_path / "objects.npz", images=np.array([None, 1], object))
    np.savez(tmp_path / "inf.npz", images=np.full((1, 2, 2), np.inf))
    (tmp_path / "bytes.bin").write_bytes(b"\xff\xfe\x00\x80")
    for name, words in (
        ("empty", "holds no pictures"),
        ("mixed", "beside sub-folders of pictures"),
        ("none", "no such file or folder"),
        ("bad.png", "not a picture in a known format"),
        ("flat.npz", "holds no images"),
        ("objects.npz", "objects.npz"),
        ("inf.npz", "infinite values"),
        ("bytes.bin", "neither a picture nor a list"),
    ):
        with pytest.raises(DataError) as caught:
            open_pictures(tmp_path / name).image(0)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    pictures = open_pictures(tmp_path / "short.npz")
    assert np.isnan(pictures.labels).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_of_a_turned_camera_are_upright(tmp_path: Path, orientation: int) -> None:
    """As Pillow's exif_transpose turns them; layers of Caffe's go on to ignore the tag, as OpenCV 2.4 does."""
    from PIL import Image, ImageOps

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8))
    tags = image.getexif()
    tags[0x0112] = orientation
    image.save(tmp_path / "photo.png", exif=tags)
    with Image.open(tmp_path / "photo.png") as read:
        expected = np.asarray(ImageOps.exif_transpose(read).convert("RGB"))[:, :, ::-1].transpose(2, 0, 1)
    assert np.array_equal(open_pictures(tmp_path / "photo.png").block([0])[0], expected)
    as_it_lies = decode(tmp_path / "photo.png", True, "")
    assert np.array_equal(as_it_lies, np.asarray(image)[:, :, ::-1].transpose(2, 0, 1))


def test_a_gif_is_its_first_frame(tmp_path: Path) -> None:
    from PIL import Image

    frames = [Image.fromarray(np.full((4, 5), level, np.uint8)) for level in (40, 200)]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    assert np.unique(open_pictures(tmp_path / "two.gif").block([0])).tolist() == [40]
    with pytest.raises(DataError, match="known format"):
        decode(tmp_path / "two.gif", None, "two.gif")
