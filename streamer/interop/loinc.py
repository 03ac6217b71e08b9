"""The LOINC codes of a differential: by our names, without a method, and those of a manual count.

Codes without a method are for what software counted, which is named beside them; those of a manual count are for
results of which a person confirmed every cell. None of a class are those of automated counts: they are for analysers of
blood. Every code was found under the name that it has here in two independent sources or more.
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
    volume: str | None = None
    """Of the count per volume of blood; None: none that was confirmed."""
    manual_volume: str | None = None


_CODES = MappingProxyType(
    {
        "neutrophil": _Codes("26511-6", "23761-0", "Neutrophils/Leukocytes", "26499-4", "753-4"),
        "segmented neutrophil": _Codes("26505-8", "769-0", "Segmented neutrophils/Leukocytes", "30451-9", "768-2"),
        "band neutrophil": _Codes("26508-2", "764-1", "Band form neutrophils/Leukocytes", "26507-4", "763-3"),
        "immature granulocyte": _Codes("38518-7", None, "Immature granulocytes/Leukocytes", "51584-1"),
        "metamyelocyte": _Codes("28541-1", "740-1", "Metamyelocytes/Leukocytes", "30433-7"),
        "myelocyte": _Codes("26498-6", "749-2", "Myelocytes/Leukocytes", "30446-9"),
        "promyelocyte": _Codes("26524-9", "783-1", "Promyelocytes/Leukocytes"),
        "blast": _Codes("26446-5", "709-6", "Blasts/Leukocytes", "30376-8"),
        "promonocyte": _Codes("30466-7", "13599-6", "Promonocytes/Leukocytes"),
        "lymphocyte": _Codes("26478-8", "737-7", "Lymphocytes/Leukocytes", "26474-7", "732-8"),
        "variant lymphocyte": _Codes("13046-8", None, "Variant lymphocytes/Leukocytes", "26477-0"),
        "plasma cell": _Codes("13047-6", None, "Plasma cells/Leukocytes"),
        "monocyte": _Codes("26485-3", "744-3", "Monocytes/Leukocytes", "26484-6", "743-5"),
        "eosinophil": _Codes("26450-7", "714-6", "Eosinophils/Leukocytes", "26449-9", "712-0"),
        "basophil": _Codes("30180-4", "707-0", "Basophils/Leukocytes", "26444-0", "705-4"),
        "smudge cell": _Codes("34992-8", None, "Smudge cells/Leukocytes"),
        "erythroblast": _Codes("19048-8", "18309-5", "Nucleated erythrocytes/Leukocytes [Ratio]"),
    }
)


CORRECTED_WHITE_CELLS = Loinc(
    "33256-9", "Leukocytes [#/volume] corrected for nucleated erythrocytes in Blood by Automated count"
)


def loinc_of_volume(name: str, *, manual: bool) -> Loinc | None:
    """Of a class per volume of blood; None where there is no such code."""
    codes = _CODES.get(name)
    if codes is None or codes.volume is None:
        return None
    what = f"{codes.what.removesuffix('/Leukocytes')} [#/volume] in Blood"
    if manual and codes.manual_volume is not None:
        return Loinc(codes.manual_volume, f"{what} by Manual count")
    return Loinc(codes.volume, what)


def loinc_of(name: str, *, manual: bool) -> Loinc | None:
    """Of a class; None where there is no such code."""
    codes = _CODES.get(name)
    if codes is None:
        return None
    if manual and codes.manual is not None:
        return Loinc(codes.manual, f"{codes.what} in Blood by Manual count")
    return Loinc(codes.code, f"{codes.what} in Blood")
