"""The LOINC codes of a differential: by our names, without a method, and those of a manual count.

Codes without a method are for what software counted, which is named beside them; those of a manual count are for
results of which a person confirmed every cell. None are those of automated counts: they are for analysers of blood.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

LOINC_URI = "http://loinc.org"


class Loinc(NamedTuple):
    code: str
    display: str


PANEL = Loinc("69738-3", "Differential panel, method unspecified - Blood")


class _Codes(NamedTuple):
    code: str
    manual: str | None
    """None: LOINC has none."""
    what: str
    """The start of its name, before "in Blood"."""


_CODES = MappingProxyType(
    {
        "neutrophil": _Codes("26511-6", "23761-0", "Neutrophils/Leukocytes"),
        "segmented neutrophil": _Codes("26505-8", "769-0", "Segmented neutrophils/Leukocytes"),
        "band neutrophil": _Codes("26508-2", "764-1", "Band form neutrophils/Leukocytes"),
        "immature granulocyte": _Codes("38518-7", None, "Immature granulocytes/Leukocytes"),
        "metamyelocyte": _Codes("28541-1", "740-1", "Metamyelocytes/Leukocytes"),
        "myelocyte": _Codes("26498-6", "749-2", "Myelocytes/Leukocytes"),
        "promyelocyte": _Codes("26524-9", "783-1", "Promyelocytes/Leukocytes"),
        "blast": _Codes("26446-5", "709-6", "Blasts/Leukocytes"),
        "promonocyte": _Codes("30466-7", "13599-6", "Promonocytes/Leukocytes"),
        "lymphocyte": _Codes("26478-8", "737-7", "Lymphocytes/Leukocytes"),
        "variant lymphocyte": _Codes("13046-8", None, "Variant lymphocytes/Leukocytes"),
        "plasma cell": _Codes("13047-6", None, "Plasma cells/Leukocytes"),
        "monocyte": _Codes("26485-3", "744-3", "Monocytes/Leukocytes"),
        "eosinophil": _Codes("26450-7", "714-6", "Eosinophils/Leukocytes"),
        "basophil": _Codes("30180-4", "707-0", "Basophils/Leukocytes"),
        "smudge cell": _Codes("34992-8", None, "Smudge cells/Leukocytes"),
        "erythroblast": _Codes("19048-8", "18309-5", "Nucleated erythrocytes/Leukocytes [Ratio]"),
    }
)


def loinc_of(name: str, *, manual: bool) -> Loinc | None:
    """Of a class; None where there is no such code."""
    codes = _CODES.get(name)
    if codes is None:
        return None
    if manual and codes.manual is not None:
        return Loinc(codes.manual, f"{codes.what} in Blood by Manual count")
    return Loinc(codes.code, f"{codes.what} in Blood")
