"""The published systems that leukostream contains: what each publication reports, and on which data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One figure of a publication, as it is printed there. data: what it was measured on."""

    measure: str
    value: str
    data: str


@dataclass(frozen=True)
class System:
    """A system of the table. name: of its card; publication: who described it; published: its figures there;
    difference: how our data differ from the publication's, in words."""

    name: str
    publication: str
    what: str
    published: tuple[Published, ...] = ()
    difference: str = ""


@dataclass(frozen=True)
class NotRebuilt:
    """A system of a publication's comparison that has no counterpart here."""

    name: str
    publication: str
    published: tuple[Published, ...]
    why: str


ZHOU = "Zhou 2023"
LEUKAEMIA = "YOLOv2 + DeepLabv3 + DarkNet-53 + SVM, 2022"
KATAR = "Katar & Kilincer 2022"
CHEUQUE = "Cheuque et al. 2022"
FINE_TUNED = "ResNet-50 fine-tuned, 2024; Katar & Kilincer 2022"

_FIFTEEN = "its own pictures, fifteen kinds of leukocyte"
_FIVE = "its own pictures, five types, a split of 70/20/10"
_ON_PBC = (
    "Here: PBC's five types, like pictures kept on one side of the split, and other laboratories beside them; the "
    "weights started from nothing."
)
_ZHOU_DATA = (
    "Here: the twelve classes of PBC's boxes (ten of the fifteen kinds are among them), red cells and platelets too; "
    "weights from nothing, on a CPU. The training command takes the fifteen classes for those who have such data."
)
_LEUKAEMIA_DATA = "its own choice of LISC, ALL-IDB1 and ALL-IDB2"

SYSTEMS: tuple[System, ...] = (
    System(
        "yolov5n-blood",
        ZHOU,
        "YOLOv5n: white cells, red cells and platelets; what the stream uses",
        (
            Published("mAP@0.5", "0.923", "YOLOv5x on BCCD's test split, from COCO weights (public)"),
            Published("mAP@0.5", "0.927", "CST-YOLO on BCCD's test split (public)"),
        ),
        "Here: fields of four laboratories with TXL-PBC's boxes; BCCD's own test split is not among the data, its "
        "validation pictures are measured as BCCD labels them, which leaves about half of the red cells without a box.",
    ),
    System(
        "yolov5n-leukocyte",
        ZHOU,
        "YOLOv5n on kinds of leukocyte",
        (
            Published("mAP@0.5", "0.8647", _FIFTEEN),
            Published("mAP@[.5:.95]", "0.5761", _FIFTEEN),
            Published("mAP@0.5", "0.934", "YOLOv11n on PBC's twelve classes, from COCO weights on a GPU (public)"),
        ),
        _ZHOU_DATA,
    ),
    System(
        "yolov2-onnx",
        LEUKAEMIA,
        "YOLOv2 on a small backbone at 128 px",
        (Published("AP by class", "1.00 / 1.00 / 1.00 / 1.00 / 0.80 / 0.93", _LEUKAEMIA_DATA),),
        "The publication's order is eosinophil, lymphocyte, monocyte, basophil, neutrophil, blast. Here: PBC's five "
        "types, no blasts.",
    ),
    System(
        "deeplabv3-xception",
        LEUKAEMIA,
        "DeepLabv3 on Xception: background, cytoplasm, nucleus of a cell",
        (
            Published("mean IoU", "0.97", _LEUKAEMIA_DATA),
            Published("global accuracy", "0.99", _LEUKAEMIA_DATA),
        ),
        "Here: nucleus and cytoplasm apart, on the two laboratories of wbc_masks; krd has the whole cell.",
    ),
    System(
        "darknet53-svm",
        LEUKAEMIA,
        "DarkNet-53 features, Bhattacharyya ranking, support vector machines: five types",
        (Published("accuracy", "0.984", "LISC, optimised kernel"),),
        "Here: PBC's five types by groups; the features were taught on the same training cells.",
    ),
    System(
        "darknet53-svm-blast",
        LEUKAEMIA,
        "The same features and machines: blast or not",
        (
            Published("accuracy", "0.9957", "ALL-IDB1"),
            Published("accuracy", "0.9825", "ALL-IDB2"),
        ),
        "Here: ALL-IDB2 in part, with its interval: few pictures. Its licence forbids shipping the weights.",
    ),
    System(
        "mobilenetv3-small",
        KATAR,
        "MobileNetV3-Small: eight classes; here among the five types alone",
        (
            Published("accuracy", "0.9886", _FIVE),
            Published("precision / sensitivity, basophil", "1.000 / 1.000", _FIVE),
            Published("precision / sensitivity, eosinophil", "1.000 / 0.9345", _FIVE),
            Published("precision / sensitivity, lymphocyte", "0.9861 / 0.9833", _FIVE),
            Published("precision / sensitivity, monocyte", "0.9285 / 0.9750", _FIVE),
            Published("precision / sensitivity, neutrophil", "0.9926 / 0.9963", _FIVE),
        ),
        _ON_PBC + " It is taught eight classes in changed light, for cameras and other laboratories.",
    ),
    System("resnet50", FINE_TUNED, "ResNet-50", (Published("accuracy", "0.9879", _FIVE),), _ON_PBC),
    System("vgg19", KATAR, "VGG-19", (Published("accuracy", "0.9819", _FIVE),), _ON_PBC),
    System(
        "ml-cnn",
        CHEUQUE,
        "Two levels: mononuclear or polymorphonuclear, then the type; three MobileNets of width 0.5",
        (
            Published(
                "accuracy, average", "0.984", "lymphocyte, monocyte, eosinophil, neutrophil; ten random splits of 70/30"
            ),
            Published("accuracy, lymphocyte/monocyte", "0.9992 ± 0.0008", "the same"),
            Published("accuracy, eosinophil/neutrophil", "0.9680 ± 0.0030", "the same"),
        ),
        "Here: basophils as well, the first level a third MobileNet on the crop (behind any detector), one split by "
        "groups, weights from nothing.",
    ),
    System(
        "faster-rcnn-two-level",
        CHEUQUE,
        "ML-CNN's first level as published: Faster R-CNN that finds mononuclear and polymorphonuclear cells",
        (Published("accuracy, whole system", "0.984", "the same four types"),),
        "Here: white cells of PBC's boxes and other fields, basophils among them.",
    ),
)

_COMPARED = "A comparison within the publication; the stream has YOLOv5 of the same publication and YOLOv2 of another."
NOT_REBUILT: tuple[NotRebuilt, ...] = tuple(
    NotRebuilt(
        name, ZHOU, (Published("mAP@0.5", map50, _FIFTEEN), Published("mAP@[.5:.95]", whole, _FIFTEEN)), _COMPARED
    )
    for name, map50, whole in (
        ("YOLOv4", "0.8556", "0.5672"),
        ("YOLOv3", "0.8524", "0.5531"),
        ("YOLOv1", "0.8321", "0.5352"),
    )
)
