"""On which terms each data set is given, and so the weights that it trained.

One rule: weights are under this project's licence, unless a set that trained them asks for another, which is theirs
then too. `wbc_masks` is GPL-3.0 and `all_idb2` for research alone: nothing trained on them ships. Cards, README and
documents say what follows from here (tests/tools/data/test_licences.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

OWN = "Apache-2.0"


@dataclass(frozen=True, slots=True)
class Terms:
    licence: str
    """Of the data, as its home states it."""
    whose: str = ""
    """Whom to name; empty where the set's name says it."""
    binds_weights: bool = False
    """Whether weights that it trained are given under its licence."""

    def line(self, name: str) -> str:
        """For a card."""
        return f"{name}: {self.licence}" + (f"; {self.whose}" if self.whose else "")


TERMS: Mapping[str, Terms] = {
    "pbc": Terms("CC BY 4.0", "Acevedo 2020; boxes OI-PBC-Dataset; attributes wbcatt, MIT"),
    "pbc_boxes": Terms("see its page", "Mohamad-AbouAli/OI-PBC-Dataset"),
    "chula_wbc": Terms("MIT", "singgihbekti/WBC_Dataset"),
    "bccd": Terms("MIT", "Shenggan/BCCD_Dataset"),
    "bccd_crops": Terms("see its page", "apple2373/BCCD"),
    "txl_pbc": Terms("MIT", "lugan113/TXL-PBC_Dataset; pictures from Raabin-WBC (Kouzehkanan 2022), types said by eye"),
    "bcd": Terms("MIT", "draaslan/blood-cell-detection-dataset; types said by eye"),
    "wbc_masks": Terms("GPL-3.0", "zxaoyou/segmentation_WBC", binds_weights=True),
    "krd": Terms("CC BY 4.0 as quoted", "KRD-WBC by way of QuocThang1/Blood_Cell"),
    "deepapl": Terms("none stated", "sidhomj/DeepAPL, figshare 10.6084/m9.figshare.14294675"),
    "marrow": Terms("CC BY (article)", "JinwooChoi9/wbc_plosone, Choi 2017"),
    "all_idb2": Terms("research use only", "ALL-IDB2", binds_weights=True),
    "simulated": Terms(OWN, "the simulated slide of this project"),
    "own": Terms("its own", "cells of the laboratory that trains, named by its people"),
}


def data_licences(sets: Iterable[str]) -> list[str]:
    """A line a set, in their order. ValueError for one without terms."""
    return [_terms(name).line(name) for name in sets]


def licence_of_weights(sets: Iterable[str]) -> str:
    """The licence of weights that these sets trained, with the reason where it is not this project's."""
    binding = [name for name in sets if _terms(name).binds_weights]
    if not binding:
        return OWN
    terms = " and ".join(dict.fromkeys(_terms(name).licence for name in binding))
    return f"{terms}, as the data that trained it ({', '.join(binding)})"


def _terms(name: str) -> Terms:
    """Of a set, or of one laboratory of it ("wbc_masks/jtsc")."""
    found = TERMS.get(name.split("/")[0])
    if found is None:
        raise ValueError(f"data set {name!r}: got no terms, expected one of {', '.join(TERMS)}; add it to {__name__}")
    return found
