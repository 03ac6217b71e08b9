"""The models of each source: `[NAME=]MODEL`, loaded once each, however many sources use them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from engines.backends.choice import Say
from engines.backends.onnxruntime import Threads
from engines.backends.shadow import ShadowTally
from engines.base import Elsewhere, UsageError, near
from engines.models.classifier import Classifier
from engines.models.detector import Detector
from engines.models.explainer import Explainer
from engines.models.loading import load_classifier, load_detector, load_explainer, load_segmenter
from engines.models.own_classes import OwnClasses
from engines.models.segmenter import Segmenter
from streamer.analysis.analyser import Analysed, Analyser
from streamer.analysis.magnification import Magnification
from streamer.analysis.measured import MeasuredFrame
from streamer.config import AUTO, DEFAULT_CLASSIFIER, Config
from streamer.looking.plan import Plan
from streamer.records import Frame, ModelHealth, ShadowStatus
from streamer.sources.address import split_name

NONE = "none"
"""In the place of a classifier: no network but the detector."""


@dataclass(frozen=True, slots=True, eq=False)
class SourceModels:
    """What looks at the frames of a source. Sources of the same models share one of these."""

    detector: Detector
    classifier: Classifier | OwnClasses | None
    """What says the class of a white cell: a network that looks at its crop, the detector itself, or nothing."""
    analyser: Analyser
    magnification: Magnification
    shadows: Mapping[str, ShadowTally]
    """The comparisons with the CPU, by what is compared: "detector", "classifier"."""
    segmenter: Segmenter | None = None
    um_per_px: float | None = None

    def close(self) -> None:
        """Free the engines, those that other sources share too: some 50 MB, which a program that counts one slide after
        the other in one process would wait for Python to find. Harmless when called twice."""
        self.detector.close()
        if isinstance(self.classifier, Classifier):
            self.classifier.close()
        if self.segmenter is not None:
            self.segmenter.close()

    def health(self) -> ModelHealth:
        shadow = {name: ShadowStatus(**asdict(tally.counts)) for name, tally in self.shadows.items()}
        compared = {name: one for name, one in shadow.items() if one.checked or one.failed}
        return ModelHealth(
            backend=_backend_of(self.detector, self.classifier),
            detector=self.detector.card.name,
            classifier=self.classifier.card.name if self.classifier else None,
            segmenter=self.segmenter.card.name if self.segmenter else None,
            shadow=compared or None,
        )


class Analysers:
    """An Analyser for sources of several models: each batch goes to the one of its source."""

    def __init__(self, by_source: Mapping[str, Analyser]) -> None:
        self._by_source = dict(by_source)

    def group(self, frame: Frame, looked: bool = True) -> Hashable:
        """Frames of one group may be analysed together, see `Analyser.group`."""
        return self._by_source[frame.source].group(frame, looked)

    def measure(self, frame: Frame) -> MeasuredFrame:
        """See `Analyser.measure`."""
        return self._by_source[frame.source].measure(frame)

    def look(self, measured: Sequence[MeasuredFrame], plans: Sequence[Plan] | None = None) -> list[Analysed]:
        """One result a frame, in their order; all frames are of one group."""
        return self._by_source[measured[0].frame.source].look(measured, plans)


def load_models(
    config: Config, sources: Iterable[str], threads: Threads, say: Say, elsewhere: Elsewhere | None = None
) -> dict[str, SourceModels]:
    """The models of each source of the run, by its name; `elsewhere` runs them on other machines. UsageError for a
    model given to a source that there is not."""
    names = list(sources)
    detectors = choose("--detector", config.detector, names)
    classifiers = choose("--classifier", config.classifier or NONE, names)
    segmenters = choose("--segmenter", config.segmenter or NONE, names)
    scales = choose_scales(config.um_per_px, names)
    measuring: dict[str, Segmenter] = {}
    tallies: dict[str, ShadowTally] = {}
    loaded: dict[str, Detector] = {}
    looked: dict[str, Classifier] = {}
    explainers: dict[str, Explainer] = {}
    pairs: dict[tuple[str, str], SourceModels] = {}
    models: dict[str, SourceModels] = {}
    for name in names:
        pair = one, other = detectors[name], classifiers[name]
        if one not in loaded:
            loaded[one] = load_detector(
                one,
                backend=config.backend,
                threads=threads,
                batch=config.batch,
                min_score=config.min_score,
                long_side_px=config.long_side_px,
                shadow=tallies.setdefault(one, ShadowTally(config.shadow_every)),
                say=say,
                elsewhere=elsewhere,
            )
        own = OwnClasses.of(loaded[one].card) if other in (AUTO, NONE) else None
        if other == AUTO and own is None:
            pair = one, other = one, DEFAULT_CLASSIFIER
        if config.explain and other in (AUTO, NONE):
            raise UsageError(
                f"--explain: got no classifier that looks at the cells of source {name!r}, expected one: "
                f"--classifier {DEFAULT_CLASSIFIER}"
            )
        if config.explain and other not in looked:
            explainers[other] = load_explainer(other, threads=threads, elsewhere=elsewhere)
            looked[other] = explainers[other].classifier
            tallies.setdefault(other, ShadowTally(config.shadow_every))
        elif other not in (AUTO, NONE) and other not in looked:
            tally = tallies.setdefault(other, ShadowTally(config.shadow_every))
            looked[other] = load_classifier(
                other, backend=config.backend, threads=threads, shadow=tally, say=say, elsewhere=elsewhere
            )
        if pair not in pairs:
            classifier = own or looked.get(other)
            shadows = {"detector": tallies[one]} | ({"classifier": tallies[other]} if other in looked else {})
            magnification = Magnification(
                loaded[one],
                rbc_diameter_px=config.rbc_diameter_px,
                adjustable=config.long_side_px is None,
                say=say,
            )
            analyser = Analyser(
                loaded[one],
                classifier,
                detector_for=magnification.detector_for,
                rbc_px_for=magnification.rbc_px_for,
                explainer=explainers.get(other),
            )
            pairs[pair] = SourceModels(loaded[one], classifier, analyser, magnification, shadows)
        models[name] = pairs[pair]
        chosen = segmenters[name]
        if chosen != NONE:
            if chosen not in measuring:
                measuring[chosen] = load_segmenter(
                    chosen, backend=config.backend, threads=threads, say=say, elsewhere=elsewhere
                )
            models[name] = replace(pairs[pair], segmenter=measuring[chosen], um_per_px=scales[name])
    return models


def choose(option: str, given: str | Sequence[str], sources: Sequence[str]) -> dict[str, str]:
    """The model of each source from values `[NAME=]MODEL`: its own, else the one without a name.

    UsageError for a name that no source has, for two models of one source, and for a source left without one.
    """
    chosen: dict[str | None, str] = {}
    for value in (given,) if isinstance(given, str) else given:
        name, model = split_name(value, option)
        if name is not None and name not in sources:
            hint = near(name, list(sources))
            raise UsageError(
                f"{option} {value!r}: got the source {name!r}, which this run has not{hint or ';'} "
                f"expected one of: {', '.join(sources)}"
            )
        if name in chosen:
            whose = f"source {name!r}" if name else "all sources"
            raise UsageError(f"{option}: got {chosen[name]!r} and {model!r} for {whose}, expected one of them")
        chosen[name] = model
    models = {source: chosen.get(source, chosen.get(None)) for source in sources}
    without = [source for source, model in models.items() if model is None]
    if without:
        raise UsageError(f"{option}: got none for {', '.join(without)}, expected one; add a model without a name")
    return {source: model for source, model in models.items() if model is not None}


def choose_scales(given: str | float | Sequence[str] | None, sources: Sequence[str]) -> dict[str, float | None]:
    """Micrometres a pixel of each source from values `[NAME=]UM`; None where it is not known. Errors as of `choose`."""
    unknown = "unknown"
    values = () if given is None else (str(given),) if isinstance(given, str | float) else given
    nameless = any(split_name(value, "--um-per-px")[0] is None for value in values)
    texts = choose("--um-per-px", (*values, *(() if nameless else (unknown,))), sources)
    scales: dict[str, float | None] = {}
    for source, text in texts.items():
        if text == unknown:
            scales[source] = None
            continue
        try:
            scale = float(text)
        except ValueError:
            scale = math.nan
        if not 0 < scale < 100:
            raise UsageError(f"--um-per-px: got {text!r}, expected micrometres a pixel, such as 0.08")
        scales[source] = scale
    return scales


def _backend_of(detector: Detector, classifier: Classifier | OwnClasses | None) -> str:
    """In words for people. A detector that no frame came to yet has none; empty where no classifier has one either."""
    looks = classifier.engine.backend if isinstance(classifier, Classifier) else ""
    parts = {"detector": " and ".join(detector.backends), "classifier": looks}
    known = {name: backend for name, backend in parts.items() if backend}
    if len(set(known.values())) > 1:
        return ", ".join(f"{backend} ({name})" for name, backend in known.items())
    return next(iter(known.values()), "")
