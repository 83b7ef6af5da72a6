"""The Qwen3-VL family behind one face: its configuration, and how images become patches and positions.

Nothing outside this folder imports its insides, so that another family can stand beside it::

    Config            the shape of a model, read from its config.json; refused where we could not compute it
    ImageLimits       between how many pixels an image is brought, and how; read from a file of SETTINGS
    check_kind        refuses a config.json of another kind of model: what it is, and what is nearest to it
    check_files       the same by the names of a repository's files
    check_ratio       refuses an image one of whose sides is too long for the other
    grid_of           (width, height, limits) -> (t, h, w) in patches
    image_tokens      grid -> how many places it takes in the prompt
    size_of           grid -> width and height in pixels at which the image is read
    patches           pixels [height, width, 3] -> float32 [patches, 1536] and the grid
    position_ids      spans and grids of a prompt -> int64 [3, tokens], MRoPE, and the position after them
    left_out          checkpoint folder -> what it has that no backend reads, in sentences
    tensor_names      every tensor that a model of this shape is made of
    vision_positions  rows and columns of patches -> the positions that the vision tower computes with
"""

from backends.qwen3vl.config import (
    CHANNELS,
    PATCH_VALUES,
    Config,
    TextConfig,
    VisionConfig,
    left_out,
    tensor_names,
)
from backends.qwen3vl.images import (
    SETTINGS,
    Grid,
    ImageLimits,
    check_ratio,
    grid_of,
    image_tokens,
    patches,
    size_of,
)
from backends.qwen3vl.kinds import EMBEDDING_FILES, check_files, check_kind
from backends.qwen3vl.positions import PositionIds, position_ids
from backends.qwen3vl.tower import VisionPositions, vision_positions

__all__ = [
    "CHANNELS",
    "EMBEDDING_FILES",
    "PATCH_VALUES",
    "SETTINGS",
    "Config",
    "Grid",
    "ImageLimits",
    "PositionIds",
    "TextConfig",
    "VisionConfig",
    "VisionPositions",
    "check_files",
    "check_kind",
    "check_ratio",
    "grid_of",
    "image_tokens",
    "left_out",
    "patches",
    "position_ids",
    "size_of",
    "tensor_names",
    "vision_positions",
]
