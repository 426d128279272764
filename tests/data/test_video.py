"""Clips of frames, and pictures whose Datums hold boxes."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image

from netspec import schema
from netspec.check import check
from netspec.data import feeder
from netspec.errors import DataError, SpecError
from netspec.net.make import make_net

RANDOM = np.random.default_rng(5)
FRAMES = RANDOM.integers(0, 256, (12, 6, 8, 3), dtype=np.uint8)
"""R, G, B; frame 1 first."""
BGR = torch.from_numpy(np.ascontiguousarray(FRAMES[..., ::-1].transpose(0, 3, 1, 2))).float()


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "a clip"
    folder.mkdir()
    for i, pixels in enumerate(FRAMES, 1):
        Image.fromarray(pixels).save(folder / f"{i:06d}.png")
        Image.fromarray(pixels[..., 0]).save(folder / f"flow_x_{i}.png")
        Image.fromarray(pixels[..., 1]).save(folder / f"flow_y_{i}.png")
    (tmp_path / "starts.txt").write_text("a clip 1 3\na clip 4 5\n")
    (tmp_path / "counts.txt").write_text("a clip 12 7\n")
    return tmp_path


def layer(field: str, transform: str = "") -> str:
    return f'layer {{ name: "v" type: "VideoData" top: "data" top: "label" transform_param {{ {transform} }} {field} }}'


def c3d(folder: Path, more: str = "", name: str = "starts") -> str:
    """C3D's files are .jpg; their numbers alone are tested here."""
    for path in (folder / "a clip").glob("[0-9]*.png"):
        path.rename(path.with_suffix(".jpg"))
    fields = f'source: "{folder}/{name}.txt" batch_size: 1 new_length: 3 root_folder: "{folder}/"'
    return f"image_data_param {{ {fields} {more} }}"


def batches(text: str, phase: str = "TEST", count: int = 1) -> list[tuple[torch.Tensor, ...]]:
    with feeder(make_net(text, phase), 1) as data:
        return [data.next() for _ in range(count)]


def test_clips_begin_at_their_frame(clips: Path) -> None:
    (data, label), (later, five) = batches(layer(c3d(clips)), count=2)
    assert data.shape == (1, 3, 3, 6, 8)
    torch.testing.assert_close(data[0], BGR[:3].transpose(0, 1))
    torch.testing.assert_close(later[0], BGR[3:6].transpose(0, 1))
    assert (float(label), float(five)) == (3, 5)


def test_every_other_frame(clips: Path) -> None:
    ((data, _),) = batches(layer(c3d(clips, "sampling_rate: 2")))
    torch.testing.assert_close(data[0], BGR[[0, 2, 4]].transpose(0, 1))


def test_training_begins_anywhere(clips: Path) -> None:
    text = layer(c3d(clips, "use_temporal_jitter: true", "counts"))
    firsts = set()
    for data, _ in batches(text, "TRAIN", 12):
        first = next(i for i in range(10) if torch.equal(data[0, :, 0], BGR[i]))
        torch.testing.assert_close(data[0], BGR[first : first + 3].transpose(0, 1))
        firsts.add(first)
    assert len(firsts) > 3
    assert torch.equal(batches(text)[0][0][0, :, 0], BGR[0])


def test_all_frames_of_a_clip_are_cropped_and_mirrored_alike(clips: Path) -> None:
    text = layer(c3d(clips), "crop_size: 4 mirror: true mean_value: 10")
    seen = set()
    for data, _ in batches(text, "TRAIN", 20)[::2]:
        places = [
            (y, x, flip)
            for y in range(3)
            for x in range(5)
            for flip in (False, True)
            if torch.equal(data[0] + 10, cut(BGR[:3], y, x, flip).transpose(0, 1))
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len({place[2] for place in seen}) == 2
    assert len(seen) > 4


def cut(frames: torch.Tensor, y: int, x: int, flip: bool) -> torch.Tensor:
    frames = frames.flip(3) if flip else frames
    return frames[:, :, y : y + 4, x : x + 4]


def segments(folder: Path, more: str) -> str:
    return layer(f'video_data_param {{ source: "{folder}/counts.txt" root_folder: "{folder}/" {more} }}')


def test_segments_from_their_middle(clips: Path) -> None:
    """Three segments of 4 frames: of 1 frame the second of each (the third of 4 places), of 2 frames from place 1."""
    ((data, label),) = batches(segments(clips, 'num_segments: 3 name_pattern: "%06d.png"'))
    assert data.shape == (1, 9, 6, 8)
    torch.testing.assert_close(data[0], BGR[[2, 6, 10]].flatten(0, 1))
    assert float(label) == 7
    ((data, _),) = batches(segments(clips, 'num_segments: 3 new_length: 2 name_pattern: "%06d.png"'))
    torch.testing.assert_close(data[0], BGR[[1, 2, 5, 6, 9, 10]].flatten(0, 1))


def test_flow_has_two_planes_and_turns_when_mirrored(clips: Path) -> None:
    text = segments(clips, 'num_segments: 1 new_length: 2 modality: FLOW name_pattern: "flow_%c_%d.png"')
    ((data, _),) = batches(text)
    planes = torch.from_numpy(FRAMES[..., :2].transpose(0, 3, 1, 2).copy()).float()
    torch.testing.assert_close(data[0], planes[5:7].flatten(0, 1))
    turned = planes.flip(3)
    turned[:, 0] = 255 - turned[:, 0]
    pictures = [
        data
        for data, _ in batches(text.replace("transform_param { ", "transform_param { mirror: true "), count=8)
    ]
    kinds = {
        torch.equal(data[0], planes[5:7].flatten(0, 1)) or 2 * torch.equal(data[0], turned[5:7].flatten(0, 1))
        for data in pictures
    }
    assert kinds == {True, 2}


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("video_data_param { video_type: WEBCAM }", "cameras and video files are not read"),
        ('image_data_param { source: "LIST" use_image: false }', "video files are not read"),
        ('video_data_param { source: "LIST" name_pattern: "%99999999d" }', "names no frames"),
        ('video_data_param { source: "LIST" name_pattern: "img.png" }', "names no frames"),
        ('video_data_param { source: "LIST" num_segments: 2 new_length: 20 }', "12 frames, 20 are needed"),
        ('video_data_param { source: "LIST" num_segments: 2 }', "no such file"),
        ('video_data_param { source: "LIST" num_segments: 2000000000 }', "takes num_segments up to 65536"),
        ('video_data_param { source: "LIST" new_length: 2000000000 }', "no such file"),
        ('image_data_param { source: "LIST" use_image: true new_length: 2000000000 }', "no such file"),
    ],
)
def test_mistakes(clips: Path, field: str, message: str) -> None:
    with pytest.raises((SpecError, DataError), match=message):
        batches(layer(field.replace("LIST", f"{clips}/counts.txt")))


def test_a_line_that_is_none(clips: Path) -> None:
    (clips / "starts.txt").write_text("a clip 1 3\nclip x 3\n")
    with pytest.raises(DataError, match=r"starts.txt:2: expected a folder, a number and a class"):
        batches(layer(c3d(clips)))


def test_shapes_without_the_list(tmp_path: Path) -> None:
    text = layer('video_data_param { source: "nowhere" num_segments: 7 }', "crop_size: 224")
    path = tmp_path / "v.prototxt"
    path.write_text(
        text + ' layer { name: "s" type: "Pooling" bottom: "data" top: "y" pooling_param { kernel_size: 2 } }'
    )
    checked = check(path)
    assert checked.phases["TRAIN"]["assumed"]["data"] == [1, 21, 224, 224], str(checked)


# Boxes


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 20) as base, base.begin(write=True) as write:
        for i in range(2):
            datum = schema.Datum(channels=3, height=6, width=8, data=BGR[i].byte().numpy().tobytes())
            datum.float_data.extend([2, 0, 0.4, 0.2, 0.5, 0.3] + ([4, 1, 0.9, 0.95, 0.1, 0.1] if i else []))
            write.put(f"{i:08d}".encode(), datum.SerializeToString())
    return tmp_path / "db"


def box_layer(path: Path, more: str = "", tops: str = "label") -> str:
    names = " ".join(f'top: "{top}"' for top in tops.split())
    return f"""layer {{ name: "b" type: "BoxData" top: "data" {names} transform_param {{ {more} }}
        data_param {{ source: "{path}" backend: LMDB batch_size: 2 side: 3 {"side: 2" if " " in tops else ""} }} }}"""


def test_boxes_become_cells(boxes: Path) -> None:
    ((data, label, small),) = batches(box_layer(boxes, tops="label small"))
    torch.testing.assert_close(data, BGR[:2])
    assert label.shape == (2, 63)
    assert small.shape == (2, 28)
    for image, cells in (
        (0, {1: [2, 0, 0.4, 0.2, 0.5, 0.3]}),
        (1, {1: [2, 0, 0.4, 0.2, 0.5, 0.3], 8: [4, 1, 0.9, 0.95, 0.1, 0.1]}),
    ):
        row = label[image]
        for cell in range(9):
            kind, difficult, *box = cells.get(cell, [-1, 0, 0, 0, 0, 0])
            torch.testing.assert_close(
                row[[cell, 9 + cell, 18 + cell]],
                torch.tensor([difficult, float(cell in cells), kind]).float(),
            )
            torch.testing.assert_close(row[27 + 4 * cell : 31 + 4 * cell], torch.tensor(box).float())


def test_boxes_are_mirrored_with_their_picture(boxes: Path) -> None:
    seen = set()
    for data, label in batches(box_layer(boxes, "mirror: true"), "TRAIN", 6):
        for image in range(2):
            flipped = torch.equal(data[image], BGR[image].flip(2))
            assert flipped or torch.equal(data[image], BGR[image])
            middle = 0.6 if flipped else 0.4
            assert torch.isclose(label[image, 27:].view(9, 4)[1, 0], torch.tensor(middle))
            seen.add(flipped)
    assert seen == {True, False}


def test_a_record_that_is_none(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 20) as base, base.begin(write=True) as write:
        write.put(
            b"0",
            schema.Datum(channels=1, height=1, width=1, data=b"a", float_data=[1, 2]).SerializeToString(),
        )
    with pytest.raises(DataError, match="2 numbers of boxes, no multiple of 6"):
        batches(box_layer(tmp_path / "db"))


def test_a_box_that_lies_nowhere(tmp_path: Path) -> None:
    datum = schema.Datum(channels=1, height=1, width=1, data=b"a", float_data=[1, 0, float("nan"), 0, 1, 1])
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 20) as base, base.begin(write=True) as write:
        write.put(b"0", datum.SerializeToString())
    with pytest.raises(DataError, match="record '0': a box of numbers that are not finite"):
        batches(box_layer(tmp_path / "db"))


@pytest.mark.parametrize("kind", ["ImageGtData", "DetectionData", "EvalData"])
def test_shaped_sources_say_that_they_are_not_read(kind: str) -> None:
    with pytest.raises(DataError, match=r"not made here|many sizes"):
        make_net(f'layer {{ name: "d" type: "{kind}" top: "data" top: "label" }}', "TRAIN")
