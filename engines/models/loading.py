"""Model name or path -> a detector, classifier, explainer or segmenter, loaded on a backend."""

from __future__ import annotations

from onnx import TensorProto

from engines.backends.choice import Backend, EngineMaker, Say
from engines.backends.onnxruntime import Threads
from engines.backends.shadow import ShadowTally
from engines.base import Elsewhere, Engine, ModelFormatError
from engines.graphs.gradcam import add_gradcam
from engines.graphs.graph import INPUT
from engines.graphs.onnx_editing import dims_of, only_input, spell
from engines.models.classifier import Classifier
from engines.models.detector import ENGINES_KEPT, Detector, Engines
from engines.models.explainer import Explainer
from engines.models.segmenter import Segmenter
from engines.zoo.registry import compact, find, naming_model


def load_detector(
    name_or_path: str,
    *,
    backend: Backend = "auto",
    frame_size: tuple[int, int] | None = None,
    threads: Threads | None = None,
    batch: int | None = None,
    min_score: float | None = None,
    long_side_px: int | None = None,
    engines_kept: int = ENGINES_KEPT,
    shadow: ShadowTally | None = None,
    say: Say = lambda line: None,
    elsewhere: Elsewhere | None = None,
) -> Detector:
    """Load a shipped detector by name, or an ONNX file: with a card beside it, or YOLOv5 as Ultralytics exports it.

    `frame_size` (width, height) loads the engine for such frames at once. `batch`: frames of one run, by default as
    many as suit the backend. `engines_kept`: input sizes whose engines stay loaded. `shadow`: compare a GPU with the
    CPU now and then, and count it there. `say` is told in one line which backend runs and why, whenever an engine is
    loaded. `elsewhere`: what runs its engines on other machines while it can. ModelNotFoundError, CardError and
    ModelFormatError say what is wrong with the model, BackendUnavailableError with the backend.
    """
    model = find(name_or_path, "detector")
    proto = compact(model)
    make = EngineMaker(
        model.card,
        proto,
        backend=backend,
        threads=threads,
        batch=batch,
        shadow=shadow,
        say=say,
        elsewhere=elsewhere,
    )
    _, height, width, _ = dims_of(only_input(proto))

    def load(height: int, width: int) -> Engine:
        with naming_model(model.where):
            return make(height, width)

    detector = Detector(
        model.card,
        Engines(load, engines_kept),
        min_score=min_score,
        long_side_px=long_side_px,
        fixed_size=(height, width) if height is not None and width is not None else None,
        batch=make.batch,
    )
    if frame_size is not None:
        detector.prepare(*frame_size)
    return detector


def load_classifier(
    name_or_path: str,
    *,
    backend: Backend = "auto",
    threads: Threads | None = None,
    shadow: ShadowTally | None = None,
    say: Say = lambda line: None,
    elsewhere: Elsewhere | None = None,
) -> Classifier:
    """Load a shipped classifier by name, or an ONNX file with a card beside it; `shadow`, `say` and `elsewhere` as
    above."""
    model = find(name_or_path, "classifier")
    with naming_model(model.where):
        value = only_input(model.proto)
        if value.type.tensor_type.elem_type != TensorProto.UINT8:
            raise ModelFormatError(
                f"input {value.name!r}: got {spell(value)}, expected {INPUT} uint8 (N,H,W,3); "
                "export it with its normalisation in the graph"
            )
        make = EngineMaker(
            model.card, model.proto, backend=backend, threads=threads, shadow=shadow, say=say, elsewhere=elsewhere
        )
        return Classifier(model.card, make(None, None))


def load_explainer(
    name_or_path: str, *, threads: Threads | None = None, elsewhere: Elsewhere | None = None
) -> Explainer:
    """A classifier with Grad-CAM in its graph, for every class; on ONNX Runtime. Errors as of `load_classifier`, and
    ModelFormatError for a graph that Grad-CAM has no closed form for."""
    model = find(name_or_path, "classifier")
    with naming_model(model.where):
        graph = add_gradcam(model.proto, every_class=True)
        make = EngineMaker(model.card, graph, backend="onnxruntime", threads=threads, elsewhere=elsewhere, maps=True)
        return Explainer(model.card, make(None, None))


def load_segmenter(
    name_or_path: str,
    *,
    backend: Backend = "auto",
    threads: Threads | None = None,
    say: Say = lambda line: None,
    elsewhere: Elsewhere | None = None,
) -> Segmenter:
    """Load a segmenter by name, or an ONNX file with a card beside it; errors as of `load_classifier`."""
    model = find(name_or_path, "segmenter")
    with naming_model(model.where):
        make = EngineMaker(model.card, model.proto, backend=backend, threads=threads, say=say, elsewhere=elsewhere)
        return Segmenter(model.card, make(None, None))
