"""The source of VideoData: clips of numbered pictures, as C3D and temporal segment networks read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from netspec.data.draws import derive, integers
from netspec.data.files.idx import Array
from netspec.data.files.images import decode, resize
from netspec.data.source import Order, Stream, failure, mistake
from netspec.data.sources.lists import integer, list_words
from netspec.data.transform import Transformer, near
from netspec.errors import DataError
from netspec.schema.spec import TRAIN, LayerSpec

MOST_SEGMENTS = 1 << 16


@dataclass(frozen=True)
class Clips:
    """What a layer says of its clips, in either message."""

    field: str
    source: str
    batch: int
    length: int
    segments: int
    """0: one run of frames."""
    flow: bool
    pattern: str
    size: tuple[int, int]
    root: str
    shuffle: bool
    rate: int
    whole: bool
    """The list gives the number of frames, and TRAIN begins anywhere."""

    @classmethod
    def of(cls, spec: LayerSpec) -> Clips:
        """Read from video_data_param, where it is there, else from image_data_param."""
        video, image = spec.message.video_data_param, spec.message.image_data_param
        if spec.message.HasField("video_data_param"):
            flow = video.modality == video.FLOW
            pattern = video.name_pattern or ("flow_%c_%04d.jpg" if flow else "image_%04d.jpg")
            return cls(
                "video_data_param", video.source, int(video.batch_size), int(video.new_length),
                int(video.num_segments), flow, pattern, (int(video.new_height), int(video.new_width)),
                video.root_folder, bool(video.shuffle), 1, False,
            )  # fmt: skip
        return cls(
            "image_data_param", image.source, int(image.batch_size), int(image.new_length), 0, False, "%06d.jpg",
            (int(image.new_height), int(image.new_width)), image.root_folder, bool(image.shuffle),
            int(image.sampling_rate), bool(image.use_temporal_jitter),
        )  # fmt: skip

    def stacked(self, height: int, width: int) -> tuple[int, ...]:
        """The shape of a clip."""
        channels = 2 if self.flow else 3
        if self.segments:
            return (self.segments * channels * self.length, height, width)
        return (channels, self.length, height, width)


class VideoSource(Stream):
    """data, label from lines `<folder> <number> <class>`."""

    def __init__(self, spec: LayerSpec, phase: str, seed: int):
        self.clips = clips = Clips.of(spec)
        super().__init__(clips.batch)
        self.spec, self.seed, self.phase = spec, seed, phase
        image = spec.message.image_data_param
        if clips.field == "image_data_param" and not image.use_image:
            raise mistake(
                spec, "video files are not read; give frames (use_image: true)", clips.field, "use_image"
            )
        if not clips.source:
            text = "needs a source: a list of folders of frames (cameras and video files are not read)"
            raise mistake(spec, text, clips.field)
        for name, value in (
            ("batch_size", clips.batch),
            ("new_length", clips.length),
            ("sampling_rate", clips.rate),
        ):
            if value < 1:
                raise mistake(spec, f"needs {name} > 0", clips.field, name)
        if clips.segments > MOST_SEGMENTS:
            raise mistake(spec, f"takes num_segments up to {MOST_SEGMENTS}", clips.field, "num_segments")
        if (
            not re.fullmatch(r"[^%]*(%c[^%]*)?%0?[0-9]?d[^%]*", clips.pattern)
            or ("%c" in clips.pattern) != clips.flow
        ):
            text = f"{clips.pattern!r} names no frames; write such as 'img_%05d.jpg', for flow 'flow_%c_%05d.jpg'"
            raise mistake(spec, text, clips.field, "name_pattern")
        self.rows = [self.row(place, words) for place, words in list_words(spec, clips.field, clips.source)]
        self.samples = len(self.rows)
        self.order = Order(self.samples, clips.shuffle, seed)
        self.transform = Transformer(spec, phase, seed)
        self.mirror, self.transform.mirror = self.transform.mirror, False
        shape = self.clip(0, int(self.order(np.zeros(1, np.int64))[0])).shape
        self.shapes = [(clips.batch, *shape), (clips.batch,)][: len(spec.tops)]

    def row(self, place: str, words: list[str]) -> tuple[str, int, int]:
        numbers = [integer(word) for word in words[-2:]]
        if len(words) < 3 or None in numbers:
            raise failure(
                self.spec, f"{place}: expected a folder, a number and a class, found {' '.join(words)!r}",
                self.clips.field, "source",
            )  # fmt: skip
        return " ".join(words[:-2]), int(numbers[0] or 0), int(numbers[1] or 0)

    def frames(self, position: int, number: int, name: str) -> Iterator[int]:
        """The numbers, from 1, of the frames of a clip."""
        clips, train = self.clips, self.phase == TRAIN
        key = np.array([position])
        if clips.segments:
            each = number // clips.segments
            room = each - clips.length + 1
            if number < clips.length:
                raise DataError(f"{name}: {number} frames, {clips.length} are needed")
            draws = integers(derive(self.seed, "segments"), key, clips.segments, max(room, 1))[0]
            for i in range(clips.segments):
                shift = (int(draws[i]) if train else room // 2) if room > 0 else 0
                start = i * each + shift if room > 0 else 0
                yield from range(1 + start, 1 + start + clips.length)
            return
        first = number
        if clips.whole:
            room = number - clips.length * clips.rate + 1
            if room < 1:
                raise DataError(f"{name}: {number} frames, {clips.length * clips.rate} are needed")
            first = 1 + (int(integers(derive(self.seed, "clip"), key, 1, room)[0, 0]) if train else 0)
        yield from range(first, first + clips.length * clips.rate, clips.rate)

    def clip(self, position: int, line: int) -> Array:
        """One transformed clip."""
        folder, number, _ = self.rows[line]
        clips = self.clips
        flip = bool(self.mirror and integers(derive(self.seed, "mirror"), np.array([position]), 1, 2)[0, 0])
        pictures = []
        for frame in self.frames(position, number, folder):
            planes = []
            for axis in ("x", "y") if clips.flow else ("",):
                name = clips.pattern.replace("%c", axis) % frame
                path = near(self.spec, clips.root + str(Path(folder) / name))
                image = decode(path, not clips.flow, str(self.spec.problem(str(path), clips.field, "source")))
                image = resize(image, *clips.size) if all(clips.size) else image
                if flip:
                    image = image[:, :, ::-1]
                    image = 255 - image if axis == "x" else image
                planes.append(image)
            pictures.append(np.concatenate(planes))
        if len({picture.shape for picture in pictures}) > 1:
            raise failure(self.spec, f"{folder}: frames differ in size", clips.field, "source")
        # All frames share the crop: the key is the clip's.
        out = np.stack([self.transform(picture[None], np.array([position]), True)[0] for picture in pictures])
        return out.reshape(-1, *out.shape[2:]) if clips.segments else out.transpose(1, 0, 2, 3)

    def make(self, positions: Array) -> tuple[Tensor, ...]:
        lines = [int(line) for line in self.order(positions)]
        clips = [self.clip(int(p), line) for p, line in zip(positions, lines, strict=True)]
        if {clip.shape for clip in clips} != {tuple(self.shapes[0][1:])}:
            text = f"clips differ in size from the first, {self.shapes[0][1:]}; set new_height and new_width"
            raise failure(self.spec, text, self.clips.field, "source")
        label = np.array([self.rows[line][2] for line in lines], np.float32)
        return (torch.from_numpy(np.ascontiguousarray(np.stack(clips))), torch.from_numpy(label))[
            : len(self.shapes)
        ]
