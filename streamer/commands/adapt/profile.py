"""From named cells to a site profile, and what is said of it."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from engines.models.adaptation import AdaptationError, Adapted, Figures
from engines.models.last_layer_fit import Cells
from engines.models.loading import load_detector
from engines.models.site import SiteAdapter, check_folder, site_name
from streamer import __version__
from streamer.analysis.field_search import ENGINES_KEPT, FieldSearch
from streamer.commands.adapt import Options, counted
from streamer.commands.adapt.cells import check, named_cells
from streamer.commands.output import remark, say


def adapt(options: Options) -> int:
    """Write the profile of `options.cells` into the folder `options.out`."""
    folder = Path(options.out)
    site = site_name(folder)
    adapter = SiteAdapter(options.classifier, backend=options.backend, say=remark_out)
    check_folder(folder, f"{adapter.card.name}-{site}")
    search = None
    if options.detector != "none":
        detector = load_detector(options.detector, backend=options.backend, engines_kept=ENGINES_KEPT, say=remark_out)
        search = FieldSearch(detector)
    named = [cell for path in options.cells for cell in named_cells(path, adapter.classifier, search)]
    check(named, options.cells)
    cells = Cells(
        np.concatenate([adapter.features(cell.crops[None]) for cell in named]),
        np.array([cell.class_index for cell in named], np.intp),
    )
    names = adapter.card.class_names
    say(f"{len(cells)} cells: {counted(Counter(names[index] for index in cells.classes.tolist()))}")
    found = adapter.adaptation().adapted(cells, [cell.slide for cell in named])
    for line in summary(found):
        say(line)
    if found.refusal is not None:
        raise AdaptationError(
            f"adapt: {found.refusal}; nothing is written: go on with {adapter.card.name}, or correct more cells"
        )
    command = shlex.join(["leukostream", "adapt", *options.cells, "-o", options.out])
    if options.classifier != adapter.card.name:
        command += f" --classifier {shlex.quote(options.classifier)}"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    path = adapter.write(folder, found, cells, made_utc=now, program=__version__, command=command)
    say(f"wrote {path} and {path.with_suffix('.onnx').name}; use it: leukostream run --site {options.out}")
    return 0


def remark_out(line: str) -> None:
    remark(line, sys.stdout)


def summary(found: Adapted) -> list[str]:
    """What became of the figures, for people."""
    lines = [f"on cells left out: {_both(found.before, found.after)}"]
    for name, recall in found.before.recall.items():
        lines.append(f"  {name}: recall {recall:.3f} -> {found.after.recall[name]:.3f}")
    if found.home_before is not None and found.home_after is not None:
        lines.append(f"on {found.home_after.cells} cells from home: {_both(found.home_before, found.home_after)}")
    else:
        lines.append("at home: not measured, no home cells lie beside the classifier")
    if found.blasts_before is not None and found.blasts_after is not None:
        lines.append(
            f"blasts from home given another name: {found.blasts_before:.3f} -> {found.blasts_after:.3f} "
            f"(threshold {found.threshold:.2f})"
        )
    return lines


def _both(before: Figures, after: Figures) -> str:
    return (
        f"balanced accuracy {before.balanced_accuracy:.3f} -> {after.balanced_accuracy:.3f}, accuracy "
        f"{before.accuracy:.3f} -> {after.accuracy:.3f}, classified {before.classified:.3f} -> {after.classified:.3f}"
    )
