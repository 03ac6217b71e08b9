"""How well each classifier does, by place, with its limits, as one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PANELS = (
    ("home", "pbc", "PBC, other pictures"),
    ("camera", "chula_wbc", "camera slides"),
    ("other laboratory", "txl_pbc", "an unseen laboratory (Raabin)"),
)
MEASURES = ("accuracy", "map50", "mean_iou")
_COLOURS = {"accuracy": "tab:blue", "map50": "tab:orange", "mean_iou": "tab:green"}
_NAMES = {"accuracy": "accuracy", "map50": "mAP@0.5", "mean_iou": "mean IoU"}


def shown(system: Mapping[str, Any], place: str, data_set: str) -> Mapping[str, Any] | None:
    """The figure of a system that a panel shows: of that set, of the fewest classes, of validation, which all have."""
    found = [
        figure
        for figure in system.get("figures", ())
        if figure["place"] == place
        and figure["data_set"].split(",")[0] == data_set  # or of it "before it trained"
        and set(MEASURES) & set(figure["values"])
    ]
    return min(found, key=lambda f: (f["classes_measured"], f["part"] != "validation"), default=None)


def draw(found: Mapping[str, Any], path: Path) -> None:
    """One row a system, one panel a place, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    systems = [
        s for s in found["systems"] if any(shown(s, place, data_set) is not None for place, data_set, _ in PANELS)
    ]
    figure, panels = pyplot.subplots(
        1, len(PANELS), figsize=(10, 1.2 + 0.34 * len(systems)), sharey=True, squeeze=False
    )
    for panel, (place, data_set, title) in zip(panels[0], PANELS, strict=True):
        for line, system in enumerate(systems):
            entry = shown(system, place, data_set)
            if entry is None:
                continue
            measure = next(m for m in MEASURES if m in entry["values"])
            value = entry["values"][measure]
            low, high = entry["limits"].get(measure, (value, value))
            colour = _COLOURS[measure]
            panel.plot([low, high], [line, line], color=colour, linewidth=1)
            panel.plot([value], [line], "o", color=colour, markersize=4)
            panel.text(value, line - 0.18, f"{value:.3f}", ha="center", va="bottom", fontsize=7)
        panel.set(title=title, xlim=(0, 1.06), ylim=(len(systems) - 0.4, -0.8))
        panel.grid(axis="x", linewidth=0.3)
    panels[0][0].set_yticks(range(len(systems)), [s["name"] for s in systems])
    handles = [Line2D([], [], color=_COLOURS[m], marker="o", markersize=4, label=_NAMES[m]) for m in MEASURES]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=90, metadata={"Software": None})
    pyplot.close(figure)
