"""A model folder on disk: what it holds, whether it is whole, and how it is written, locked and read.

A checkpoint has ``config.json`` and safetensors; an export has graphs, their data, and a manifest of both::

    Fields       a JSON object of the folder, read so that an error names the file and the field
    Weights      a model's tensors, one at a time as float32; packed codes of a few bits
    Recipe       how a checkpoint becomes an export; Scheme: how one matrix is rounded
    Manifest     manifest.json: the recipe, each matrix's error, the size and sha256 of every file
    checks       whether a checkpoint is whole, its small files too, and an export what its manifest says
    folder       written aside and renamed into place: whole, or not there at all
    lock         one writer at a time, released by a process's death
"""

from backends.store.checks import (
    COMPANIONS,
    OLDER_TOKENIZER,
    SMALL,
    Damage,
    check_checkpoint,
    check_folder,
    check_sizes,
    companions,
    lacking,
    remember,
    verify_folder,
)
from backends.store.fields import Fields
from backends.store.folder import check_space, remove_folder, remove_leftovers, write_folder
from backends.store.lock import locked
from backends.store.manifest import EXPORTER, MANIFEST, FileRecord, Manifest, Source, recipe_fields, sha256
from backends.store.recipe import (
    SEARCH,
    SHORTLIST,
    MatrixError,
    Precision,
    PrefillPrecision,
    Recipe,
    RecipeName,
    Scheme,
    VisionPrecision,
    fitting,
)
from backends.store.weights import Progress, Weights, pack_codes, unpack_codes

__all__ = [
    "COMPANIONS",
    "EXPORTER",
    "MANIFEST",
    "OLDER_TOKENIZER",
    "SEARCH",
    "SHORTLIST",
    "SMALL",
    "Damage",
    "Fields",
    "FileRecord",
    "Manifest",
    "MatrixError",
    "Precision",
    "PrefillPrecision",
    "Progress",
    "Recipe",
    "RecipeName",
    "Scheme",
    "Source",
    "VisionPrecision",
    "Weights",
    "check_checkpoint",
    "check_folder",
    "check_sizes",
    "check_space",
    "companions",
    "fitting",
    "lacking",
    "locked",
    "pack_codes",
    "recipe_fields",
    "remember",
    "remove_folder",
    "remove_leftovers",
    "sha256",
    "unpack_codes",
    "verify_folder",
    "write_folder",
]
