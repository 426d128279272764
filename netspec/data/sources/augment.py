"""SSD's augmentations of a picture with boxes: colours distorted, canvas expanded, a constrained part
cropped.

A picture is (3, H, W) in the order B, G, R; boxes are (K, 4) xmin, ymin, xmax, ymax in shares of its sides.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np

from netspec.data.files.idx import Array
from netspec.data.files.images import resize

Generator = np.random.Generator


def distorted(image: Array, param: Any, generator: Generator) -> Array:
    """Brightness, contrast, saturation and hue changed, each with its own probability (a
    DistortionParameter).
    """
    out = image.astype(np.float32)

    def brightness(x: Array) -> Array:
        if generator.random() < param.brightness_prob:
            x = x + generator.uniform(-param.brightness_delta, param.brightness_delta)
        return whole(x)

    def contrast(x: Array) -> Array:
        if generator.random() < param.contrast_prob:
            x = x * generator.uniform(param.contrast_lower, param.contrast_upper)
        return whole(x)

    def saturation(x: Array) -> Array:
        if generator.random() < param.saturation_prob:
            factor = generator.uniform(param.saturation_lower, param.saturation_upper)
            x = in_hsv(x, lambda h, s: (h, (s * factor).clip(0, 1)))
        return whole(x)

    def hue(x: Array) -> Array:
        if generator.random() < param.hue_prob:
            turn = generator.uniform(-param.hue_delta, param.hue_delta) / 180
            x = in_hsv(x, lambda h, s: ((h + turn) % 1, s))
        return whole(x)

    late = generator.random() > 0.5
    for step in (brightness, contrast, saturation, hue) if late else (brightness, saturation, hue, contrast):
        out = step(out)
    if generator.random() < param.random_order_prob:
        out = out[generator.permutation(3)]
    return out.astype(np.uint8)


def whole(x: Array) -> Array:
    """Rounded to 0..255."""
    rounded: Array = np.rint(x).clip(0, 255).astype(np.float32)
    return rounded


def in_hsv(image: Array, change: Callable[[Array, Array], tuple[Array, Array]]) -> Array:
    """The picture with its hue (0..1) and saturation (0..1) changed, its value kept."""
    blue, green, red = image
    value = image.max(0)
    spread = value - image.min(0)
    safe = np.where(spread == 0, 1, spread)
    hue = np.where(
        value == red,
        (green - blue) / safe,
        np.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    saturation = np.where(value == 0, 0, spread / np.where(value == 0, 1, value))
    hue, saturation = change((hue / 6) % 1, saturation)
    # Channel n of R, G, B (n = 5, 3, 1) is v - v s max(0, min(k, 4 - k, 1)), k = (n + 6 h) mod 6.
    channels = []
    for n in (1, 3, 5):
        k = (n + 6 * hue) % 6
        channels.append(value - value * saturation * np.minimum(np.minimum(k, 4 - k), 1).clip(0))
    return np.stack(channels)


def expanded(
    image: Array, boxes: Array, param: Any, fill: Array, generator: Generator
) -> tuple[Array, Array]:
    """The picture somewhere on a mean-filled canvas up to max_expand_ratio as large; boxes follow."""
    if generator.random() > param.prob or param.max_expand_ratio <= 1:
        return image, boxes
    ratio = generator.uniform(1, param.max_expand_ratio)
    channels, height, width = image.shape
    new_height, new_width = int(height * ratio), int(width * ratio)
    y, x = int(generator.uniform(0, new_height - height)), int(generator.uniform(0, new_width - width))
    out = np.empty((channels, new_height, new_width), image.dtype)
    out[:] = fill.reshape(-1, 1, 1).astype(image.dtype)
    out[:, y : y + height, x : x + width] = image
    size = np.array([width, height, width, height])
    return out, (boxes * size + [x, y, x, y]) / [new_width, new_height, new_width, new_height]


def padded(image: Array, boxes: Array, param: Any) -> tuple[Array, Array]:
    """The picture as large as it fits into param.height x param.width with its aspect kept, in the middle; boxes
    follow.

    The rest is filled as `pad_mode` says: with `pad_value` (one, or one a channel), with mirrored pixels, or with
    the nearest one. Source: SSD, im_transforms.cpp (AspectKeepingResizeAndPad).
    """
    channels, height, width = image.shape
    tall, wide = int(param.height), int(param.width)
    if width * tall > wide * height:
        size = (max(int(wide * height / width), 1), wide)
    else:
        size = (tall, max(int(tall * width / height), 1))
    y, x = (tall - size[0]) // 2, (wide - size[1]) // 2
    margins = ((0, 0), (y, tall - size[0] - y), (x, wide - size[1] - x))
    small = resize(image, *size)
    if param.pad_mode == param.CONSTANT:
        fill = np.array(list(param.pad_value) or [0.0], np.float32).reshape(-1, 1, 1)
        out = np.broadcast_to(fill, (channels, tall, wide)).astype(image.dtype)
        out[:, y : y + size[0], x : x + size[1]] = small
    else:
        out = np.pad(small, margins, mode="reflect" if param.pad_mode == param.MIRRORED else "edge")
    sides = np.array([size[1], size[0], size[1], size[0]])
    return out, (boxes * sides + [x, y, x, y]) / [wide, tall, wide, tall]


def sampled(boxes: Array, samplers: Any, generator: Generator) -> Array | None:
    """A random one of the parts (4,) of the unit square that the batch samplers accept; None when they accept none."""
    parts = []
    for sampler in samplers:
        if not sampler.use_original_image:
            continue
        kept = 0
        for _ in range(min(sampler.max_trials, 10_000)):
            if sampler.HasField("max_sample") and kept >= sampler.max_sample:
                break
            part = draw_part(sampler.sampler, generator)
            if satisfies(part, boxes, sampler.sample_constraint):
                parts.append(part)
                kept += 1
    return parts[generator.integers(len(parts))] if parts else None


def draw_part(sampler: Any, generator: Generator) -> Array:
    """A part of random area (scale^2), aspect ratio and place."""
    scale = generator.uniform(sampler.min_scale, sampler.max_scale)
    low, high = max(sampler.min_aspect_ratio, scale**2), min(sampler.max_aspect_ratio, scale**-2)
    ratio = generator.uniform(low, high) if low < high else high
    width, height = min(scale * sqrt(ratio), 1), min(scale / sqrt(ratio), 1)
    x, y = generator.uniform(0, 1 - width), generator.uniform(0, 1 - height)
    return np.array([x, y, x + width, y + height])


def area(boxes: Array) -> Array:
    sizes: Array = (boxes[..., 2:] - boxes[..., :2]).clip(0).prod(-1)
    return sizes


def shared(part: Array, boxes: Array) -> Array:
    """Area that each box shares with the part."""
    return area(np.concatenate([np.maximum(part[:2], boxes[:, :2]), np.minimum(part[2:], boxes[:, 2:])], 1))


def satisfies(part: Array, boxes: Array, constraint: Any) -> bool:
    """Whether some box meets all bounds of the constraint: on overlap, and on the share of the part and of the box."""
    bounds = {field.name for field, _ in constraint.ListFields()}
    if not bounds:
        return True
    common = shared(part, boxes)
    measures = {
        "jaccard_overlap": common / np.maximum(area(part) + area(boxes) - common, 1e-12),
        "sample_coverage": common / max(float(area(part)), 1e-12),
        "object_coverage": common / np.maximum(area(boxes), 1e-12),
    }
    good = np.ones(len(boxes), bool)
    for name, values in measures.items():
        if f"min_{name}" in bounds:
            good &= values >= getattr(constraint, f"min_{name}")
        if f"max_{name}" in bounds:
            good &= values <= getattr(constraint, f"max_{name}")
    return bool(good.any())


def projected(part: Array, boxes: Array, emit: Any) -> tuple[Array, Array]:
    """Boxes in shares of the part, clipped to it, and which of them stay (by an EmitConstraint, or by any
    overlap).
    """
    keep = shared(part, boxes) > 0
    if emit is not None:
        if emit.emit_type == emit.MIN_OVERLAP:
            keep &= shared(part, boxes) > emit.emit_overlap * area(boxes)
        else:
            centres = (boxes[:, :2] + boxes[:, 2:]) / 2
            keep &= ((centres >= part[:2]) & (centres <= part[2:])).all(1)
    size = part[2:] - part[:2]
    inside = (boxes - np.tile(part[:2], 2)) / np.tile(size, 2)
    return inside.clip(0, 1), keep
