"""Settings of machine-vision cameras, on cameras that are written down here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from engines.base import UsageError
from streamer.sources.base import SourceError
from streamer.sources.features import FeatureRefusedError, FeatureSettings, apply, exposure_ms, in_force, period_s


@dataclass
class Camera:
    """`ranges`: by feature, (least, most) or the words that it takes."""

    values: dict[str, str]
    ranges: Mapping[str, Sequence[float] | Sequence[str]] = field(default_factory=dict)
    written: list[tuple[str, str]] = field(default_factory=list)
    ratios: dict[str, str] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        return name in self.values

    def read(self, name: str) -> str:
        if name == "BalanceRatio":
            return self.ratios[self.values["BalanceRatioSelector"]]
        return self.values[name]

    def write(self, name: str, value: str) -> None:
        choices = self.choices(name)
        limits = self.ranges.get(name, ())
        if choices and value not in choices:
            raise FeatureRefusedError("the value is invalid : thrown in node")
        if limits and not choices and not float(limits[0]) <= float(value) <= float(limits[1]):
            raise FeatureRefusedError("out of range : thrown in node")
        self.written.append((name, value))
        if name == "BalanceRatio":
            self.ratios[self.values["BalanceRatioSelector"]] = value
        self.values[name] = value

    def choices(self, name: str) -> Sequence[str]:
        return [word for word in self.ranges.get(name, ()) if isinstance(word, str)]

    def bounds(self, name: str) -> tuple[float, float] | None:
        limits = [limit for limit in self.ranges.get(name, ()) if not isinstance(limit, str)]
        return (limits[0], limits[1]) if limits else None


def modern() -> Camera:
    return Camera(
        {
            **{"PixelFormat": "Mono8", "ExposureAuto": "Continuous", "ExposureTime": "900.0", "Gain": "0.0"},
            **{"Width": "640", "Height": "480", "OffsetX": "8", "BalanceWhiteAuto": "Once"},
            **{"BalanceRatioSelector": "Red", "BalanceRatio": "1", "AcquisitionFrameRateEnable": "false"},
            **{"AcquisitionFrameRate": "3.000e+01", "Gamma": "1"},
        },
        {
            "PixelFormat": ("Mono8", "BayerRG8", "Confidence8"),
            "ExposureTime": (20, 1_000_000),
            "BalanceRatioSelector": ("Red", "Green", "Blue"),
        },
        ratios={"Red": "1.0", "Green": "1.0", "Blue": "1.0"},
    )


def test_what_is_asked_for_is_written_in_the_order_that_cameras_need() -> None:
    camera = modern()
    given = "exposure=5000,white_balance=1.4:1:1.9,fps=20,Gamma=0.8,size=1920x1200,pixel_format=BayerRG8"
    apply(FeatureSettings.parse(given.split(","), "x"), camera)
    assert camera.written == [
        ("PixelFormat", "BayerRG8"),
        ("OffsetX", "0"),
        ("Width", "1920"),
        ("Height", "1200"),
        ("ExposureAuto", "Off"),
        ("ExposureTime", "5000"),
        ("BalanceWhiteAuto", "Off"),
        *(("BalanceRatioSelector", "Red"), ("BalanceRatio", "1.4")),
        *(("BalanceRatioSelector", "Green"), ("BalanceRatio", "1")),
        *(("BalanceRatioSelector", "Blue"), ("BalanceRatio", "1.9")),
        *(("AcquisitionFrameRateEnable", "1"), ("AcquisitionFrameRate", "20")),
        ("Gamma", "0.8"),
    ]
    assert in_force(camera) == {
        "pixel_format": "BayerRG8",
        "exposure": "5000",
        "gain": "0",
        "fps": "20",
        "white_balance": "1.4:1:1.9",
    }


def test_a_white_balance_that_the_camera_keeps_itself() -> None:
    camera = modern()
    apply(FeatureSettings.parse(["white_balance=auto"], "x"), camera)
    assert camera.written == [("BalanceWhiteAuto", "Continuous")]
    assert in_force(camera)["white_balance"] == "continuous"


def test_names_of_older_cameras() -> None:
    camera = Camera({"PixelFormat": "Mono8", "ExposureTimeAbs": "10", "GainRaw": "192"}, {"GainRaw": (192, 1023)})
    apply(FeatureSettings.parse(["exposure=700", "gain=300"], "x"), camera)
    assert camera.written == [("ExposureTimeAbs", "700"), ("GainRaw", "300")]
    assert in_force(camera) == {"pixel_format": "Mono8", "exposure": "700", "gain": "300"}


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("exposure=5", "got exposure (ExposureTime) 5, expected 20 to 1e+06"),
        ("pixel_format=RGB8", "got pixel_format (PixelFormat) RGB8, expected one of Mono8, BayerRG8, Confidence8"),
        ("pixel_format=Confidence8", "got the pixel format Confidence8, expected one that can be read here: add "
         "pixel_format=BayerRG8"),
        ("DeviceLinkSpeed=7", "got the setting DeviceLinkSpeed, which it does not have, expected one that it has"),
    ],
)  # fmt: skip
def test_what_a_camera_does_not_take(setting: str, says: str) -> None:
    with pytest.raises(SourceError) as caught:
        apply(FeatureSettings.parse([setting], "x"), modern())
    assert says in str(caught.value)


def test_how_long_it_exposes_and_waits() -> None:
    camera = modern()
    assert exposure_ms(in_force(camera), camera) == 0.9
    assert period_s({"fps": "20"}, 0.9) == 0.05
    assert period_s({"fps": "20"}, 4000.0) == 4.0
    assert period_s({}, None) == 0.0
    raw = Camera({"ExposureTimeRaw": "77"})
    assert exposure_ms(in_force(raw), raw) is None


def test_a_refusal_without_a_range_says_what_the_library_says() -> None:
    camera = modern()

    def write(name: str, value: str) -> None:
        raise FeatureRefusedError("the value is invalid : thrown in node")

    camera.write = write  # type: ignore[method-assign]
    with pytest.raises(SourceError, match=r"got Gamma b, expected what it takes \(the value is invalid\)"):
        apply(FeatureSettings.parse(["Gamma=b"], "x"), camera)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("exposur=5", "got the setting 'exposur', which does not exist; did you mean 'exposure'?"),
        ("zoom=5", "expected one of exposure, gain, white_balance, pixel_format, fps, size, or a feature's own name"),
        ("exposure=long", "got exposure 'long', expected one such as exposure=5000"),
        ("exposure", "got exposure '', expected one such as exposure=5000"),
        ("white_balance=1:2", "expected one such as white_balance=once, auto, off or 1.4:1:1.9"),
        ("size=640", "got size '640'"),
        ("Gamma=", "got Gamma ''"),
    ],
)
def test_what_can_not_be_meant(part: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        FeatureSettings.parse([part], "genicam:1,…")
    assert says in str(caught.value)
    assert str(caught.value).startswith("--source genicam:1,…: ")
