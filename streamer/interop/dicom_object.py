"""What the objects of a slide have in common in DICOM: identifiers, patient, study, equipment, specimen."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import highdicom as hd
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID

from engines.base import printable
from streamer import RESEARCH_USE
from streamer.mosaic.scale import Scale

MAKER = "leukostream"
LOCAL = "99LEUKO"
"""The coding scheme of names that no dictionary here has a code for; 99… is left to laboratories and makers."""

_LONG_STRING = 64
"""Characters of a value of the type LO."""


@dataclass(frozen=True)
class DicomSlide:
    """A session as the objects made of it say it."""

    name: str
    """Of the slide."""
    subject: uuid.UUID
    """A pseudonym."""
    observed: datetime
    """Of the last frame, in UTC."""
    program: str
    """Version of leukostream that counted it."""
    models: dict[str, str]
    """Name and hash of each model, by its task."""
    scale: Scale
    production: bool
    """False: the objects say that they are of tests and research."""

    def uid(self, *of: str) -> UID:
        """The same for the same session and words."""
        return UID(f"2.25.{uuid.uuid5(self.subject, ' '.join(('dicom', *of))).int}")

    @property
    def statement(self) -> str | None:
        return None if self.production else RESEARCH_USE

    @cached_property
    def common(self) -> dict[str, Any]:
        """Arguments of every object of highdicom's."""
        return {
            "manufacturer": MAKER,
            "manufacturer_model_name": MAKER,
            "device_serial_number": "none",  # no value is not allowed, and a program has no serial number
            "software_versions": text(self.program),
            "coding_schemes": [
                CodingSchemeIdentificationItem(LOCAL, name="Names of leukostream", responsible_organization=MAKER)
            ],
            "content_date": self.observed.date(),
            "content_time": self.observed.time(),
        }

    def specimen(self) -> Sequence[hd.SpecimenDescription]:
        return [
            hd.SpecimenDescription(
                specimen_id=text(self.name),
                specimen_uid=self.uid("specimen"),
                specimen_type=codes.SCT.SmearSample,
                specimen_short_description="Blood smear",
            )
        ]


def text(words: str) -> str:
    """As a value of 64 characters on one line; a backslash would begin another value."""
    return printable(words).replace("\\", "/")[:_LONG_STRING]


def local(name: str, meaning: str | None = None) -> CodedConcept:
    """A name of ours as a code."""
    return CodedConcept(text(name).replace(" ", "_"), LOCAL, text(meaning or name))


def finish(made: Dataset) -> None:
    """Take out when an object was made: the same content is the same to the byte. Its times are all in UTC."""
    for name in ("InstanceCreationDate", "InstanceCreationTime"):
        made.pop(name, None)
    for one in made.get("ContributingEquipmentSequence", ()):
        one.pop("ContributionDateTime", None)
    made.TimezoneOffsetFromUTC = "+0000"
