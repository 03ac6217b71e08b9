"""The public data sets: where they are, what each labels, and which pictures may not be parted.

`readers` turns every set into `Field` (a picture with boxes) and `CellPicture` (one cell with its type);
`splits` finds the pictures that show the same thing and deals whole groups into train, validation and holdout.
"""

from tools.data.readers import (
    ABNORMAL_CLASSES,
    ABNORMAL_SUBCLASSES,
    CELL_CLASSES,
    CELL_SETS,
    FIELD_SETS,
    FURTHER_CELL_SETS,
    SUBCLASSES,
    CellPicture,
    DataSetMissing,
    Field,
    LabelledBox,
    blood_label,
    data_root,
    read_cells,
    read_fields,
)
from tools.data.splits import HOLDOUT, PARTS, TRAIN, VALIDATION, load_splits

__all__ = [
    "ABNORMAL_CLASSES",
    "ABNORMAL_SUBCLASSES",
    "CELL_CLASSES",
    "CELL_SETS",
    "FIELD_SETS",
    "FURTHER_CELL_SETS",
    "HOLDOUT",
    "PARTS",
    "SUBCLASSES",
    "TRAIN",
    "VALIDATION",
    "CellPicture",
    "DataSetMissing",
    "Field",
    "LabelledBox",
    "blood_label",
    "data_root",
    "load_splits",
    "read_cells",
    "read_fields",
]
