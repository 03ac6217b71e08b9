"""docs/results.md from the document of docs/results.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tools.report.figures import MEASURES

PLACES = ("home", "camera", "other laboratory")
HEAD = """# All systems in one table

Made by `{command}` from the model cards and [results](results); [results.json](results.json) has all of it,
and more. Nothing here was typed in by hand but the publications' figures and the words about their data. How each
system works: [systems.md](systems.md).

* *Home* is a laboratory whose cells trained the network (other pictures of it), *camera* the slides of `chula_wbc`
  under a microscope camera, *other laboratory* one that trained nothing; *before it trained* are
  the weights before a laboratory joined.
* *Whole* are pictures of single cells as they are, without a box; *fields*, whole fields whose cell is looked for;
  *measured*, frames enlarged by the measured size of their red cells; *fused*, all looks at a cell counted as one;
  *as labelled*, BCCD, which leaves about half of the red cells without a box. *Named* is the share of cells whose
  probability reaches the threshold; the others stay `unclassified`.
* Limits are 95 % Clopper-Pearson, of mAP by bootstrap. *Validation* chose epochs and temperatures; *holdout* was
  measured afterwards.
* A publication's figure stands beside ours, never in its place: the data differ, as each section says.
"""


def page(found: Mapping[str, Any]) -> str:
    """The whole page."""
    here = [s for s in found["systems"] if "task" in s]
    missing = [s for s in found["systems"] if "task" not in s]
    blocks = [
        HEAD.format(command=found["command"]),
        "## What they are and what they cost\n\n" + "\n".join(cost_table(here)) + "\n\n" + cost_notes(here),
        "## How well they do\n\n![Figures by place, with their limits](figures/results.png)\n\n"
        + "\n".join(figures_table(here)),
        "## Beside the publications\n",
        *(section(system) for system in here),
    ]
    if missing:
        blocks.append("## Without weights yet\n\n" + "\n".join(missing_lines(missing)))
    blocks.append("## Not rebuilt\n\n" + "\n".join(not_rebuilt_lines(found["not_rebuilt"])))
    return "\n".join(block.rstrip() + "\n" for block in blocks)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table in Markdown."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for cells in rows:
        yield "| " + " | ".join(cells) + " |"


def share(value: float) -> str:
    """.9862, as figures are written here."""
    return f"{value:.3f}".removeprefix("0")


def with_limits(value: float, limits: Sequence[float | None] | None) -> str:
    """.962 (.951–.971)."""
    if not limits or None in limits:
        return share(value)
    low, high = limits
    assert low is not None
    assert high is not None
    return f"{share(value)} ({share(low)}–{share(high)})"


def number(value: float | None, unit: float, digits: int) -> str:
    return "–" if value is None else f"{value / unit:,.{digits}f}"


def cost_table(systems: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = []
    for s in systems:
        cpu = s["cpu"] or {}
        rows.append(
            [
                f"`{s['name']}`",
                s["task"],
                s["status"],
                "–" if s["input_px"] is None else "x".join(map(str, s["input_px"])),
                number(s["parameters"], 1e6, 2),
                number(s["flops"], 1e9, 2),
                number(s["file_bytes"], 1e6, 1),
                number(cpu.get("batch_1_ms"), 1, 1),
                number(cpu.get("batch_16_ms"), 1, 1),
                "–" if s["gpu"] is None else str(s["gpu"]),
            ]
        )
    head = "system, task, weights, input px, parameters M, GFLOPs, file MB, CPU ms at batch 1, at batch 16, GPU ms"
    yield from table(head.split(", "), rows)


def cost_notes(systems: Sequence[Mapping[str, Any]]) -> str:
    machines = {tuple(sorted(s["cpu"]["machine"].items())) for s in systems if s["cpu"]}
    spelt = "; ".join(
        f"{m['processor']}, ONNX Runtime {m['onnxruntime']}, {m['threads']} thread" for m in map(dict, sorted(machines))
    )
    why = "; ".join(sorted({s["gpu_why"] for s in systems if s["gpu"] is None}))
    return (
        "Parameters are those of the file, normalisation folded in; FLOPs two a multiplication with its addition, in "
        "convolutions and matrix products, of one picture at the input named. Milliseconds are processor time of the "
        f"network alone for one frame (detector) or one look at a cell: {spelt or 'not measured yet'}. "
        f"GPU: {why or 'as said'}."
    )


def figures_table(systems: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = []
    for s in systems:
        for place in PLACES:
            for figure in s["figures"]:
                if figure["place"] != place:
                    continue
                shown = [
                    f"{MEASURES[key]} {with_limits(figure['values'][key], figure['limits'].get(key))}"
                    for key in MEASURES
                    if key in figure["values"]
                ]
                rows.append(
                    [
                        f"`{s['name']}`",
                        str(figure["classes_measured"]),
                        place,
                        figure["data_set"],
                        figure["part"],
                        "–" if figure["count"] is None else f"{figure['count']} {figure['counted']}",
                        "; ".join(shown[:4]),
                        calibration(figure),
                    ]
                )
    head = "system, classes, place, data, part, measured on, figures, calibration error (before temperature)"
    yield from table(head.split(", "), rows)


def calibration(figure: Mapping[str, Any]) -> str:
    after, before = figure["calibration_error"], figure["calibration_error_untempered"]
    if after is None:
        return "–"
    return share(after) if before is None else f"{share(after)} ({share(before)})"


def section(system: Mapping[str, Any]) -> str:
    """One system beside its publication."""
    lines = [f"### {system['name']}", "", f"{system['what']}." + publication(system), ""]
    if system["published"]:
        rows = [[p["measure"], p["value"], p["data"]] for p in system["published"]]
        lines += [*table(["published", "figure", "on"], rows), ""]
    if system["difference"]:
        lines += [system["difference"], ""]
    by_class = best_by_class(system)
    if by_class:
        lines += [*by_class, ""]
    if "licence" in system["trained"]:
        lines += [f"Licence of the weights: {system['trained']['licence']}.", ""]
    commands = system["trained"]["commands"]
    if commands:
        lines += ["Made by:", "", *(f"    {command}" for command in commands), ""]
    return "\n".join(lines)


def publication(system: Mapping[str, Any]) -> str:
    return f" {system['publication']}." if system["publication"] else ""


def best_by_class(system: Mapping[str, Any]) -> list[str]:
    """Recall and precision of every class at home: of the set with most cells, the holdout where it was measured; of
    the fewest classes, as the publications have them."""
    home = [f for f in system["figures"] if f["place"] == "home" and f["classes"] and "whole" not in f["data_set"]]
    if not home:
        return []
    fewest = min(f["classes_measured"] for f in home)
    chosen = max(
        (f for f in home if f["classes_measured"] == fewest),
        key=lambda f: (f["part"] == "holdout", f["count"] or 0),
    )
    measures = [m for m in ("recall", "precision", "ap50", "iou") if any(m in c for c in chosen["classes"].values())]
    rows = [
        [name, *("–" if m not in found else with_limits(found[m][0], found[m][1:]) for m in measures)]
        for name, found in chosen["classes"].items()
    ]
    title = f"{chosen['data_set']}, {chosen['part']}"
    return list(table([title, *("AP@0.5" if m == "ap50" else m for m in measures)], rows))


def missing_lines(systems: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for s in systems:
        published = "; ".join(f"{p['measure']} {p['value']} ({p['data']})" for p in s["published"])
        yield f"* `{s['name']}`: {s['what']}.{publication(s)} Published: {published}."


def not_rebuilt_lines(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for entry in entries:
        published = "; ".join(f"{p['measure']} {p['value']} ({p['data']})" for p in entry["published"])
        yield f"* {entry['name']} ({entry['publication']}): {published}. {entry['why']}"
