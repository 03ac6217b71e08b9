"""Train the classifier of white cells, abnormal ones among them, on all laboratories.

    python -m tools.train classifier --out runs/lite0
    python -m tools.train classifier --out runs/lite0 --resume
    python -m tools.train classifier --out runs/short --short --leave-out krd
    python -m tools.train classifier --out runs/small --architecture mobilenetv3-small --teacher runs/lite0/last.pt

The first is the long run: a million crops, half a day on two cores (some twenty a second). `--short` is for comparing
recipes: 40 000 crops of MobileNetV3-Small at 96 px, from nothing. `results.jsonl` gets a line whenever a run is
measured.

Nothing may learn the laboratory instead of the cell, since nearly all blasts come from one: its mature cells are drawn
as often as its blasts, every laboratory goes through the same resampling and JPEG, stains are exchanged both ways, and
cells that are painted over are taught to say nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from tools.architectures.efficientnet_lite import EfficientNetLite0, load_imagenet
from tools.architectures.mobilenetv3 import MobileNetV3Small
from tools.data import (
    ABNORMAL_CLASSES,
    ABNORMAL_SUBCLASSES,
    CELL_SETS,
    FURTHER_CELL_SETS,
    TRAIN,
    VALIDATION,
    data_root,
    load_splits,
    read_cells,
)
from tools.data.appearance import Appearances, gather, typed_crops, untyped_crops
from tools.data.augment import COLOURS, Augmentation, Lending, make_batch
from tools.data.crops import ATTRIBUTES, set_name
from tools.data.located import locate
from tools.data.own import own_cells
from tools.data.squares import LOOK_RED_CELLS, SIMULATED, SUBCLASS_NAMES, Squares, load_squares, with_simulated
from tools.metrics.abnormal import MATURE, Views, choose, measure, views_of
from tools.train.loop import LAST, Schedule, Task, channels_last, load_checkpoint, train
from tools.train.options import add_settings, chosen_settings, run_parser

SETS = tuple(name for name in (*CELL_SETS, *FURTHER_CELL_SETS) if name != "bccd_crops")
"""bccd_crops are the cells of bccd once more."""
NEVER_TAUGHT = ("wbc_masks/jtsc", "wbc_masks/cellavision")
"""GPL-3.0 data: the laboratories of validation."""
PATIENTS = "deepapl"
AS_OFTEN_AS_BLASTS = ("lymphocyte", "monocyte", "neutrophil")
MARROW, MARROW_SHARE = "marrow", 0.05
SIMULATED_SHARE = 0.03
SIMULATED_FIELDS = 120
TELL_UNUSUAL = ("deepapl", "marrow", "pbc")
"""Laboratories whose cells without a subclass are not variant lymphocytes, promonocytes or giant platelets: their
labels have these words, or their donors were healthy."""
ATTRIBUTE_SIZES = [len(values) for values in ATTRIBUTES.values()]
ABNORMAL = ("blast", "immature granulocyte")
SUBCLASS_OF = [[i for i, s in enumerate(SUBCLASS_NAMES) if ABNORMAL_SUBCLASSES[s] == c] for c in ABNORMAL_CLASSES]
"""Indices of the subclasses of each class."""

CellNetwork = EfficientNetLite0 | MobileNetV3Small


@dataclass(frozen=True)
class Recipe:
    """What a run is; kept in its checkpoints."""

    architecture: str = "efficientnet-lite0"
    crops: int = 1_000_000
    batch: int = 64
    input_px: int = 128
    margin: float = 1.3
    head_rate: float = 1e-3
    body_rate: float = 3e-4
    weight_decay: float = 0.02
    warmup_steps: int = 1000
    average_decay: float = 0.999
    smoothing: float = 0.05
    subclass_weight: float = 0.4
    attribute_weight: float = 0.2
    abnormal_weight: float = 0.3
    style_share: float = 0.25
    appearance_share: float = 0.4
    """Of the crops, those that are shown in the colours of another laboratory."""
    apart: float = 0.0
    granules_share: float = 0.0
    """Both as of `Augmentation`."""
    fixed_share: float = 0.45
    """Of the crops of known magnification, those of a fixed physical size."""
    covered_share: float = 0.04
    """Of the crops, those whose cell is painted over."""
    milder_from: float = 1.0
    """From this share of the steps on colours are changed less, and styles mixed less often, by the factor `milder`:
    what tells a blast from a monocyte is much a matter of colour."""
    milder: float = 0.5
    leave_out: str = ""
    """A laboratory of which no cell trains, to measure on."""
    without: str = ""
    """Laboratories that neither train nor are measured, separated by commas."""
    own: str = ""
    """Tables of cells that a laboratory named itself (`tools.data.own`), separated by commas; they train too."""
    teacher: str = ""
    """Checkpoint of a run whose averaged network teaches this one beside the labels; none where empty."""
    teacher_weight: float = 0.6
    """Of the loss of classes and subclasses, the teacher's share."""
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.crops // self.batch


SHORT = Recipe(
    architecture="mobilenetv3-small",
    crops=40_000,
    input_px=96,
    head_rate=2e-3,
    body_rate=2e-3,
    warmup_steps=60,
    average_decay=0.99,
)


def augmentation(recipe: Recipe) -> Augmentation:
    """How crops are changed: resampled and stored as JPEG most of the time, in every laboratory alike."""
    return Augmentation(
        margin=recipe.margin,
        fixed_share=recipe.fixed_share,
        whole_share=0.12,
        wide_share=0.2,
        coarse_share=0.5,
        jpeg_share=0.6,
        appearance_share=recipe.appearance_share,
        apart=recipe.apart,
        granules_share=recipe.granules_share,
    )


def build_network(recipe: Recipe, *, pretrained: bool) -> CellNetwork:
    """The network of a recipe, its weights laid out channels last (1.7 times faster on a CPU)."""
    sizes = len(ABNORMAL_CLASSES), len(SUBCLASS_NAMES)
    network: CellNetwork
    if recipe.architecture == "efficientnet-lite0":
        network = EfficientNetLite0(*sizes, attributes=sum(ATTRIBUTE_SIZES), style_share=recipe.style_share)
        if pretrained:
            load_imagenet(network)
    elif recipe.architecture == "mobilenetv3-small":
        network = MobileNetV3Small(
            *sizes, standardise=True, attributes=sum(ATTRIBUTE_SIZES), style_share=recipe.style_share
        )
    else:
        raise ValueError(f"architecture: got {recipe.architecture!r}, expected efficientnet-lite0 or mobilenetv3-small")
    return channels_last(network)


def sampling_weights(stored: Squares, inside: np.ndarray) -> np.ndarray:
    """float64 (n,) of the cells numbered `inside`, summing to one: laboratories by the square root of their size, the
    classes of one likewise. Of `PATIENTS` the mature classes weigh what its blasts do; `MARROW` has at most its share.

    Raises ValueError where there is no cell.
    """
    if not len(inside):
        raise ValueError("training cells: got none, expected at least one laboratory")
    names, classes = stored.laboratories[inside], stored.classes[inside]
    weights = np.zeros(len(inside))
    laboratories, sizes = np.unique(names, return_counts=True)
    shares = dict(zip(laboratories.tolist(), np.sqrt(sizes) / np.sqrt(sizes).sum(), strict=True))
    shares = _limited(shares, {MARROW: MARROW_SHARE, SIMULATED: SIMULATED_SHARE})
    for name, share in shares.items():
        own = names == name
        present, counts = np.unique(classes[own], return_counts=True)
        roots = dict(zip([ABNORMAL_CLASSES[c] for c in present], np.sqrt(counts), strict=True))
        if name == PATIENTS and "blast" in roots:
            roots |= {label: roots["blast"] for label in AS_OFTEN_AS_BLASTS if label in roots}
        total = sum(roots.values())
        for label, root in roots.items():
            of_class = own & (classes == ABNORMAL_CLASSES.index(label))
            weights[of_class] = share * root / total / of_class.sum()
    return np.asarray(weights / weights.sum())


def _limited(shares: dict[str, float], most: Mapping[str, float]) -> dict[str, float]:
    """Shares that sum to one, none above its limit; the others share what is left as before. Where nothing but
    limited ones is there they stay as they are."""
    fixed: dict[str, float] = {}
    while over := {name: limit for name, limit in most.items() if name not in fixed and shares.get(name, 0) > limit}:
        fixed |= over
        rest = sum(share for name, share in shares.items() if name not in fixed)
        if not rest:
            break
        left = (1 - sum(fixed.values())) / rest
        shares = {name: fixed.get(name, share * left) for name, share in shares.items()}
    return shares


def class_prior(stored: Squares, inside: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float32 (classes,): how often each class is drawn; what a picture without its cell may say."""
    prior = np.bincount(stored.classes[inside], weights, len(ABNORMAL_CLASSES))
    return np.asarray(prior / prior.sum(), np.float32)


@dataclass(eq=False)
class ClassifierTask(Task[CellNetwork]):
    """Cells of all laboratories, their losses and their measures."""

    recipe: Recipe
    stored: Squares
    views: Mapping[str, Views]
    appearances: Appearances | None
    pretrained: bool = True
    device: str = "cpu"
    teacher: CellNetwork | None = None

    def __post_init__(self) -> None:
        if self.teacher is not None:
            self.teacher = self.teacher.to(self.device).eval().requires_grad_(False)
        self.inside = self.stored.select(TRAIN)
        self.weights = sampling_weights(self.stored, self.inside)
        self.prior = torch.from_numpy(class_prior(self.stored, self.inside, self.weights)).to(self.device)
        self.network = build_network(self.recipe, pretrained=self.pretrained).to(self.device)
        self.augmentation = augmentation(self.recipe)

    def settings(self) -> dict[str, Any]:
        return dataclasses.asdict(self.recipe)

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW: the body's weights, which know pictures already, at a lower rate than the heads'; decay for matrices
        only."""
        body = {id(p) for p in self.network.features.parameters()}
        rates = {True: self.recipe.body_rate, False: self.recipe.head_rate}
        decays = {True: self.recipe.weight_decay, False: 0.0}
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for parameter in self.network.parameters():
            groups.setdefault((id(parameter) in body, parameter.ndim > 1), []).append(parameter)
        return torch.optim.AdamW(
            [
                {"params": params, "weight_decay": decays[decayed], "peak": rates[of_body]}
                for (of_body, decayed), params in groups.items()
            ],
            lr=0.0,
        )

    def loss(self, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        recipe, stored = self.recipe, self.stored
        is_milder = step >= recipe.milder_from * recipe.steps
        self.network.style_share = recipe.style_share * (recipe.milder if is_milder else 1)
        augmentation = self.augmentation.weakened(recipe.milder, COLOURS) if is_milder else self.augmentation
        drawn = rng.choice(self.inside, recipe.batch, p=self.weights)
        covered = rng.random(recipe.batch) < recipe.covered_share
        lending = None
        if self.appearances is not None:
            lending = Lending(self.appearances, stored.laboratories[drawn].tolist(), np.ones(recipe.batch))
        x = make_batch(
            stored.squares,
            stored.boxes,
            drawn,
            recipe.input_px,
            rng,
            augmentation,
            lending,
            fixed_px=LOOK_RED_CELLS * stored.rbc_px[drawn],
            covered=covered,
        ).to(self.device)
        kind = torch.device(self.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
            hidden = self.network.describe(x)
            logits, subclass_logits = self.network.classes(hidden), self.network.subclasses(hidden)
            attribute_logits = None if self.network.attributes is None else self.network.attributes(hidden)
        shown = torch.from_numpy(~covered).to(self.device)
        classes, subclasses, attributes = (
            torch.from_numpy(np.asarray(values[drawn])).to(self.device)
            for values in (stored.classes, stored.subclasses, stored.attributes)
        )
        loss = class_loss(logits.float(), classes, shown, self.prior, recipe.smoothing)
        taught: Tensor | None = None
        if self.teacher is not None:
            with torch.no_grad():
                wanted, wanted_subclasses = self.teacher(x)
            taught = soft_loss(logits.float(), wanted)
            taught = taught + recipe.subclass_weight * soft_subclass_loss(subclass_logits.float(), wanted_subclasses)
        loss = loss + recipe.abnormal_weight * abnormal_loss(logits.float()[shown], classes[shown])
        known = shown & (subclasses >= 0)
        further = subclass_loss(subclass_logits.float()[known], subclasses[known], recipe.smoothing, recipe.batch)
        told = shown & torch.from_numpy(np.isin(stored.laboratories[drawn], TELL_UNUSUAL)).to(self.device)
        further = further + unusual_loss(
            subclass_logits.float()[told], classes[told], subclasses[told], recipe.smoothing, recipe.batch
        )
        loss = loss + recipe.subclass_weight * further
        if taught is not None:
            loss = (1 - recipe.teacher_weight) * loss + recipe.teacher_weight * taught
        if attribute_logits is not None:
            seen = torch.where(shown[:, None], attributes, -1)
            loss = loss + recipe.attribute_weight * attribute_loss(attribute_logits.float(), seen)
        return loss, {}

    def measure(self, network: nn.Module) -> dict[str, Any]:
        return measure(network, self.views, torch.device(self.device))


def class_loss(logits: Tensor, classes: Tensor, shown: Tensor, prior: Tensor, smoothing: float) -> Tensor:
    """Mean cross-entropy of a batch: of cells that are shown with their smoothed class, of those that are painted over
    with the classes' prior (classes,)."""
    targets = nn.functional.one_hot(classes, logits.shape[1]).float()
    targets = targets * (1 - smoothing) + smoothing / logits.shape[1]
    targets = torch.where(shown[:, None], targets, prior)
    return -(targets * torch.log_softmax(logits, 1)).sum(1).mean()


def soft_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean cross-entropy with what the teacher says of the same crops, by its logits (N, classes): Hinton, Vinyals &
    Dean, 2015, at a temperature of one."""
    return -(torch.softmax(wanted, 1) * torch.log_softmax(logits, 1)).sum(1).mean()


def soft_subclass_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """The same of subclasses, each by itself, by the teacher's logits (N, subclasses)."""
    return nn.functional.binary_cross_entropy_with_logits(logits, torch.sigmoid(wanted))


def abnormal_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of `ABNORMAL` against `MATURE` by the classes' summed probabilities, meaned over the batch; cells
    of other classes add nothing."""
    groups = [[ABNORMAL_CLASSES.index(label) for label in labels] for labels in (MATURE, ABNORMAL)]
    pair = torch.stack([torch.logsumexp(logits[:, group], 1) for group in groups], 1)
    truth = torch.full_like(classes, -1)
    for number, group in enumerate(groups):
        truth[torch.isin(classes, torch.tensor(group, device=classes.device))] = number
    total = nn.functional.cross_entropy(pair, truth, ignore_index=-1, reduction="sum")
    return total / max(1, len(classes))


def subclass_loss(
    logits: Tensor, subclasses: Tensor, smoothing: float, batch: int, families: Sequence[Sequence[int]] = SUBCLASS_OF
) -> Tensor:
    """Cross-entropy of the subclass among those of its parent where it is known (not -1), over the whole batch's size;
    `families`: the columns of each parent's subclasses."""
    loss = logits.sum() * 0
    for children in families:
        if len(children) > 1:
            own = torch.isin(subclasses, torch.tensor(children, device=subclasses.device))
            if own.any():
                loss = loss + nn.functional.cross_entropy(
                    logits[own][:, children], subclasses[own] - children[0], label_smoothing=smoothing, reduction="sum"
                )
    return loss / batch


def unusual_loss(logits: Tensor, classes: Tensor, subclasses: Tensor, smoothing: float, batch: int) -> Tensor:
    """Binary cross-entropy of subclasses without siblings (a variant lymphocyte or a usual one), over the whole batch's
    size; the cells are those of laboratories that tell which is which."""
    loss = logits.sum() * 0
    for parent, children in enumerate(SUBCLASS_OF):
        own = classes == parent
        if len(children) == 1 and own.any():
            target = (subclasses[own] == children[0]).float() * (1 - smoothing) + smoothing / 2
            loss = loss + nn.functional.binary_cross_entropy_with_logits(
                logits[own, children[0]], target, reduction="sum"
            )
    return loss / batch


def attribute_loss(logits: Tensor, attributes: Tensor) -> Tensor:
    """Mean over the batch of the mean cross-entropy of each cell's attributes; logits (N, 31) of all side by side,
    attributes (N, 11); cells without any add nothing."""
    loss = logits.sum() * 0
    for head, truth in zip(torch.split(logits, ATTRIBUTE_SIZES, 1), attributes.T, strict=True):
        loss = loss + nn.functional.cross_entropy(head, truth, ignore_index=-1, reduction="sum")
    return loss / attributes.numel()


def laboratory_appearances(stored: Squares) -> Appearances:
    """The colours of all laboratories that train, those of their untyped cells too."""
    inside = stored.select(TRAIN)
    names = stored.laboratories[inside]
    typed = typed_crops([stored.squares[i] for i in inside], stored.boxes[inside], names)
    untyped = {name: crops for name, crops in untyped_crops(data_root()).items() if name in typed}
    return gather({**typed, **untyped})


def load_network(checkpoint: Path) -> tuple[CellNetwork, Recipe, int]:
    """The averaged network of a checkpoint, its recipe, and the steps that it took."""
    state = load_checkpoint(checkpoint)
    recipe = Recipe(**state["settings"])
    network = build_network(recipe, pretrained=False)
    network.load_state_dict({name: value.float() for name, value in state["average"]["network"].items()})
    return network.eval(), recipe, int(state["step"])


def load_cells(recipe: Recipe, folder: Path) -> Squares:
    """The squares of all laboratories of a recipe. ValueError for a laboratory that is not known."""
    root = data_root()
    own = own_cells([Path(table) for table in recipe.own.split(",") if table])
    cells = [*read_cells(root, SETS), *own]
    known = sorted({set_name(cell) for cell in cells})
    without = [name for name in recipe.without.split(",") if name]
    for option, names in (("--leave-out", [recipe.leave_out] if recipe.leave_out else []), ("--without", without)):
        for name in names:
            if name not in known:
                raise ValueError(f"{option}: got {name!r}, expected one of {', '.join(known)}")
    located = locate(cells)
    located = [one for one in located if set_name(one.cell) not in without]
    left_out = (*NEVER_TAUGHT, *([recipe.leave_out] if recipe.leave_out else []))
    parts = load_splits(root) | {cell.key: TRAIN for cell in own}
    return load_squares(root, folder, located, parts, left_out)


def main(arguments: Sequence[str]) -> int:
    """Command line; 0 when the last step was taken. ValueError for options that do not agree with the data or the
    checkpoint."""
    parser = run_parser("classifier", __doc__, threads=2)
    parser.add_argument("--cells", type=Path, default=Path("runs/squares"), help="folder of the stored cells (4 GB)")
    parser.add_argument("--resume-from", type=Path, help="go on from this checkpoint, a packed one too")
    parser.add_argument("--short", action="store_true", help="the short form, for comparing recipes")
    parser.add_argument("--from-nothing", action="store_true", help="do not begin with ImageNet weights")
    add_settings(parser, Recipe(), SHORT)
    args = parser.parse_args(arguments)
    if (args.out / LAST).exists() and not args.resume and args.resume_from is None:
        raise ValueError(f"--out: got {args.out}, which holds a run; give --resume to go on with it, or another folder")
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    recipe = chosen_settings(SHORT if args.short else Recipe(), args)
    stored = load_cells(recipe, args.cells)
    views = views_of(choose(stored.cells, stored.parts.tolist(), VALIDATION), recipe.input_px, recipe.margin)
    stored = with_simulated(stored, SIMULATED_FIELDS, recipe.seed)
    torch.manual_seed(recipe.seed)
    appearances = laboratory_appearances(stored)
    teacher = load_network(Path(recipe.teacher))[0] if recipe.teacher else None
    task = ClassifierTask(recipe, stored, views, appearances, not args.from_nothing, args.device, teacher)
    schedule = Schedule(
        steps=recipe.steps,
        warmup_steps=recipe.warmup_steps,
        average_decay=recipe.average_decay,
        measured_every=recipe.steps if args.short else 800,
        seed=recipe.seed,
    )
    train(task, schedule, args.out, resume=args.resume_from or (args.out / LAST if args.resume else None))
    return 0
