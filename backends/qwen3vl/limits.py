"""How a model wants its images: the settings of its image processor, read from a folder as transformers does.

Defaults are those of transformers' Qwen2VLImageProcessorPil, which is Qwen3-VL's too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from backends.base import BackendError, RequestError
from backends.qwen3vl.config import CHANNELS, MERGE, PATCH, TEMPORAL_PATCH
from backends.store import Fields

# transformers from 5.3 on saves the first, before it saved the second; where both are, the first is read
SETTINGS = ("processor_config.json", "preprocessor_config.json")

Colours: TypeAlias = tuple[float, ...]  # a number for red, green and blue


@dataclass(frozen=True)
class ImageLimits:
    """Between how many pixels an image is brought before it is cut into patches, by what, to which values."""

    min_pixels: int
    max_pixels: int
    resample: int = Image.Resampling.BICUBIC  # one of Pillow's filters
    rescale_factor: float = 1 / 255
    mean: Colours = (0.5,) * CHANNELS  # is taken off what was rescaled
    std: Colours = (0.5,) * CHANNELS  # divides what is left

    def __post_init__(self) -> None:
        if not 0 < self.min_pixels <= self.max_pixels:
            raise RequestError(
                f"min_pixels must be above 0 and at most {self.max_pixels}, got {self.min_pixels}",
                param="min_pixels",
            )

    @classmethod
    def read(cls, folder: Path) -> ImageLimits:
        """Read the folder's settings; refuse a preprocessing that `patches` does not do.

        BackendError ``model_invalid``, naming the file and the field.
        """
        fields = _settings(folder)
        _check(fields)
        least, most = _pixels(fields)
        factor, mean, std = 1.0, (0.0,) * CHANNELS, (1.0,) * CHANNELS
        if fields.values.get("do_rescale", True):
            factor = _number(fields, "rescale_factor", 1 / 255)
        if fields.values.get("do_normalize", True):
            mean, std = _colours(fields, "image_mean", _CLIP_MEAN), _colours(fields, "image_std", _CLIP_STD)
        if 0 in std:
            raise fields.bad("image_std", "other than 0", 0)
        return cls(least, most, _resample(fields), factor, mean, std)


_PROCESSORS = (None, *(f"Qwen2VLImageProcessor{kind}" for kind in ("", "Fast", "Pil", "PilFast")))
_MEASURES = {  # what the tower was made for, and what transformers takes where nothing is said
    "patch_size": (PATCH, 14),
    "temporal_patch_size": (TEMPORAL_PATCH, 2),
    "merge_size": (MERGE, 2),
}
_EDGES = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def _settings(folder: Path) -> Fields:
    newer, older = (folder / name for name in SETTINGS)
    if newer.is_file():
        fields = Fields.read(newer)
        if fields.values.get("image_processor") is not None:
            return fields.section("image_processor")
    if not older.is_file():
        raise BackendError(
            f"{folder} has no image settings; copy {SETTINGS[1]} or {SETTINGS[0]} from the checkpoint",
            code="model_invalid",
        )
    return Fields.read(older)


def _check(fields: Fields) -> None:
    """Refuse another image processor than Qwen3-VL's, and patches that its tower cannot read."""
    kind = fields.values.get("image_processor_type")
    if kind not in _PROCESSORS:
        raise fields.bad("image_processor_type", f"{_PROCESSORS[1]}, which is Qwen3-VL's too", kind)
    for name, (needed, default) in _MEASURES.items():
        value = fields.values.get(name, default)
        if type(value) is not int or value != needed:
            where = "" if name in fields.values else f" (left out, it is {default} to transformers)"
            raise fields.bad(name, f"{needed}{where}", value)
    if not fields.values.get("do_resize", True):
        raise fields.bad("do_resize", "true", fields.values["do_resize"])


def _pixels(fields: Fields) -> tuple[int, int]:
    """Fewest and most pixels. Where a file has both spellings, transformers goes by the older."""
    named = fields.values.get("size") is not None
    size = Fields(
        fields.path, dict(fields.section("size").values if named else _EDGES), f"{fields.prefix}size."
    )
    spelled = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
    older = {name for name in spelled if fields.values.get(name) is not None}
    kept = {name: value for name, value in size.values.items() if name not in older}
    if unknown := kept.keys() - _EDGES.keys():
        raise fields.bad("size", "an object of shortest_edge and longest_edge alone", sorted(unknown))
    least, most = (
        _whole(fields, name) if name in older else _whole(size, edge) for name, edge in spelled.items()
    )
    if least > most:
        raise fields.bad("size.shortest_edge", f"at most size.longest_edge, {most}", least)
    return least, most


def _whole(fields: Fields, name: str) -> int:
    """A whole number, which may be written as a float."""
    value = fields.values.get(name)
    if isinstance(value, float) and value.is_integer():
        fields = Fields(fields.path, {name: int(value)}, fields.prefix)
    return fields.whole(name)


def _resample(fields: Fields) -> int:
    value = fields.values.get("resample", Image.Resampling.BICUBIC)
    if value is None or (isinstance(value, int) and value not in list(Image.Resampling)):
        raise fields.bad("resample", f"one of Pillow's filters, 0 to {max(Image.Resampling)}", value)
    # transformers takes whatever is no number, a filter's name too, for a bilinear filter
    return int(value) if isinstance(value, int) else Image.Resampling.BILINEAR


def _colours(fields: Fields, name: str, default: Colours) -> Colours:
    """Three numbers, or one for all three."""
    value = fields.values.get(name, list(default))
    values = value if isinstance(value, list) else [value] * CHANNELS
    if len(values) != CHANNELS:
        raise fields.bad(name, f"{CHANNELS} numbers", value)
    return tuple(_finite(fields, name, number) for number in values)


def _number(fields: Fields, name: str, default: float) -> float:
    return _finite(fields, name, fields.values.get(name, default))


def _finite(fields: Fields, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise fields.bad(name, "a number, or one for each colour", value)
    return float(value)
