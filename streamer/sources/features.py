"""Settings of machine-vision cameras, by the names of GenICam's Standard Features Naming Convention (SFNC 2.7).

Cameras older than SFNC 2 call some of them otherwise. Each setting is written as text, read back, and refused with what
the camera offers where it does not take it: nobody counts for an hour with an exposure that was never set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engines.base import UsageError, near
from streamer.sources.base import SourceError
from streamer.sources.pixel_formats import PREFERRED, is_known


class FeatureRefusedError(Exception):
    """A feature that does not take a value, or can't be written now. Its text is the library's own."""


class Features(Protocol):
    """The features of one camera; values are text, as GenICam writes them."""

    def has(self, name: str) -> bool:
        """Whether it is there and can be read or written now."""

    def read(self, name: str) -> str: ...

    def write(self, name: str, value: str) -> None:
        """FeatureRefusedError for what it does not take."""

    def choices(self, name: str) -> Sequence[str]:
        """Of a feature that is one of some words; empty for others."""

    def bounds(self, name: str) -> tuple[float, float] | None:
        """The least and the most of a number; None where it does not say."""


_NUMBER = r"-?\d+(\.\d+)?([eE][-+]?\d+)?"
_SETTINGS = {
    "exposure": (_NUMBER, "5000 (µs)"),
    "gain": (_NUMBER, "6.5 (in the camera's unit, mostly dB)"),
    "white_balance": (rf"auto|once|off|{_NUMBER}:{_NUMBER}:{_NUMBER}", "once, auto, off or 1.4:1:1.9 (red:green:blue)"),
    "pixel_format": (r"\w+", "BayerRG8"),
    "fps": (_NUMBER, "20"),
    "size": (r"[1-9]\d{1,4}[xX][1-9]\d{1,4}", "1920x1200"),
}
"""By name: what its value looks like, an example."""

_FEATURE = re.compile(r"[A-Z]\w*")


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """What a person asked of a camera; empty: as the camera has it."""

    given: Mapping[str, str] = field(default_factory=dict)
    """By the names of `_SETTINGS`, and features by their own."""

    @classmethod
    def parse(cls, parts: Sequence[str], what: str) -> FeatureSettings:
        """`KEY=VALUE` each; UsageError for what does not exist. `what`: the address, for errors."""
        given = {}
        for part in parts:
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if key not in _SETTINGS and not _FEATURE.fullmatch(key):
                hint = near(key, _SETTINGS) or f"; expected one of {', '.join(_SETTINGS)}, or a feature's own name"
                raise UsageError(f"--source {what}: got the setting {key!r}, which does not exist{hint}")
            pattern, example = _SETTINGS.get(key, (r".+", "1"))
            if not equals or not re.fullmatch(pattern, value):
                raise UsageError(f"--source {what}: got {key} {value!r}, expected one such as {key}={example}")
            given[key] = value
        return cls(given)


@dataclass(frozen=True, slots=True)
class SetUp:
    """What is in force on a camera that was set up."""

    settings: Mapping[str, str]
    """By the names of `_SETTINGS`."""
    exposure_ms: float | None
    """None where the camera has no exposure in microseconds."""
    period_s: float
    """From one image to the next; 0: not known."""


def set_up(settings: FeatureSettings, features: Features) -> SetUp:
    """Set a camera up and read back what holds. SourceError as of `apply`."""
    apply(settings, features)
    now = in_force(features)
    exposure = exposure_ms(now, features)
    return SetUp(now, exposure, period_s(now, exposure))


def first_line(error: Exception) -> str:
    """What a GenApi library says of a failure, without where in itself."""
    return str(error).splitlines()[0].split(" : ")[0] if str(error) else type(error).__name__


def apply(settings: FeatureSettings, features: Features) -> None:
    """Set a camera up. SourceError for what it does not take, and for a pixel format that can't be read here."""
    for name, value in _in_order(settings.given):
        for feature, text in _writes(name, value, features):
            _write(feature, text, name, features)
    _check_format(features)


def in_force(features: Features) -> dict[str, str]:
    """What a camera has now of all that can be set, by the same names."""
    found = {}
    for name, candidates in _CANDIDATES.items():
        feature = next((candidate for candidate in candidates if features.has(candidate)), None)
        if feature is not None:
            found[name] = _plain(features.read(feature))
    ratios = dict(_ratios(features))
    if ratios:
        found["white_balance"] = ":".join(ratios.values())
    if features.has("BalanceWhiteAuto") and (auto := features.read("BalanceWhiteAuto")) != "Off":
        found["white_balance"] = auto.lower()
    return found


def period_s(settings: Mapping[str, str], exposure_ms: float | None) -> float:
    """From one image to the next, by what is in force; 0: not known."""
    fps = float(settings.get("fps", "0"))
    return max(1 / fps if fps > 0 else 0.0, (exposure_ms or 0.0) / 1000)


def exposure_ms(settings: Mapping[str, str], features: Features) -> float | None:
    """What is in force; None where the camera has no exposure in microseconds."""
    if "exposure" not in settings or not (features.has("ExposureTime") or features.has("ExposureTimeAbs")):
        return None
    return float(settings["exposure"]) / 1000


_CANDIDATES: Mapping[str, Sequence[str]] = {
    "pixel_format": ("PixelFormat",),
    "exposure": ("ExposureTime", "ExposureTimeAbs", "ExposureTimeRaw"),
    "gain": ("Gain", "GainAbs", "GainRaw"),
    "fps": ("AcquisitionFrameRate", "AcquisitionFrameRateAbs"),
}
"""By setting: the features that mean it, the newest name first."""

_SWITCHES: Mapping[str, Sequence[tuple[str, str]]] = {
    "exposure": (("ExposureAuto", "Off"), ("ExposureMode", "Timed")),
    "gain": (("GainAuto", "Off"),),
    "fps": (
        ("AcquisitionFrameRateAuto", "Off"),
        ("AcquisitionFrameRateEnable", "1"),
        ("AcquisitionFrameRateEnabled", "1"),
    ),
}
"""What has to be so that they can be written, where the camera has it."""

_RATIOS = ("BalanceRatio", "BalanceRatioAbs", "BalanceRatioRaw")
"""Features of the white balance, by colour; the newest name first."""

_FIRST = ("pixel_format", "size")
"""Before all others: what else can be set depends on them."""


def _in_order(given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    names = [*(name for name in _FIRST if name in given), *(name for name in given if name not in _FIRST)]
    return ((name, given[name]) for name in names)


def _writes(name: str, value: str, features: Features) -> Iterator[tuple[str, str]]:
    """(feature, text) one after the other; what is read on the way sees what was written before."""
    if name == "size":
        width, height = value.lower().split("x")
        yield from ((offset, "0") for offset in ("OffsetX", "OffsetY") if features.has(offset))
        yield from (("Width", width), ("Height", height))
    elif name == "white_balance":
        yield from _white_balance(value, features)
    elif name in _CANDIDATES:
        for switch, text in _SWITCHES.get(name, ()):
            if features.has(switch) and features.read(switch) != text:
                yield switch, text
        names = _CANDIDATES[name]
        yield next((candidate for candidate in names if features.has(candidate)), names[0]), value
    else:
        yield name, value


def _white_balance(value: str, features: Features) -> Iterator[tuple[str, str]]:
    automatic = {"auto": "Continuous", "once": "Once", "off": "Off"}.get(value)
    if automatic is not None:
        yield "BalanceWhiteAuto", automatic
        return
    if features.has("BalanceWhiteAuto"):
        yield "BalanceWhiteAuto", "Off"
    ratio = _ratio_feature(features)
    for colour, text in zip(("Red", "Green", "Blue"), value.split(":"), strict=True):
        yield "BalanceRatioSelector", colour
        yield ratio, text


def _ratio_feature(features: Features) -> str:
    return next((name for name in _RATIOS if features.has(name)), _RATIOS[0])


def _ratios(features: Features) -> Iterator[tuple[str, str]]:
    if not features.has("BalanceRatioSelector"):
        return
    for colour in ("Red", "Green", "Blue"):
        if colour in features.choices("BalanceRatioSelector"):
            try:
                features.write("BalanceRatioSelector", colour)
            except FeatureRefusedError:
                return
            yield colour, _plain(features.read(_ratio_feature(features)))


def _plain(text: str) -> str:
    """`1.000e+01` as 10."""
    return f"{float(text):.6g}" if re.fullmatch(_NUMBER, text) else text


def _write(feature: str, text: str, setting: str, features: Features) -> None:
    asked = setting if setting == feature else f"{setting} ({feature})"
    if not features.has(feature):
        raise SourceError(f"got the setting {asked}, which it does not have, expected one that it has: leave it out")
    try:
        features.write(feature, text)
        return
    except FeatureRefusedError as error:
        refusal = str(error).split(" : ")[0]
    offered = _offered(feature, features)
    expected = f"expected {offered}" if offered else f"expected what it takes ({refusal})"
    raise SourceError(f"got {asked} {text}, {expected}")


def _offered(feature: str, features: Features) -> str:
    """What a feature takes, for people: "16 to 1000000", "one of Mono8, BayerRG8"; "" where it does not say."""
    if choices := features.choices(feature):
        return f"one of {', '.join(choices)}"
    bounds = features.bounds(feature)
    return "" if bounds is None else f"{bounds[0]:g} to {bounds[1]:g}"


def _check_format(features: Features) -> None:
    if not features.has("PixelFormat"):
        return
    now = features.read("PixelFormat")
    if is_known(now):
        return
    choices = features.choices("PixelFormat")
    known = [name for name in (*PREFERRED, *choices) if name in choices and is_known(name)]
    remedy = f"add pixel_format={known[0]}" if known else "it offers none"
    raise SourceError(f"got the pixel format {now}, expected one that can be read here: {remedy}")
