"""Plans on disk: what makes one stale, files that appear whole, processes that take turns."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from engines.backends.tensorrt.device import Environment
from engines.backends.tensorrt.errors import PlanError
from engines.backends.tensorrt.flavour import PORTABLE
from engines.backends.tensorrt.manifest import Manifest, PlanSpec, PlanStore, default_folder

SPEC = PlanSpec("yolo", "a" * 64, "fp16", 384, 512, (1, 4, 8))
ENVIRONMENT = Environment("11.4.0.106", "NVIDIA H200", "90", "13.0", "580.65")
WANTED = Manifest(SPEC, ENVIRONMENT)


def changed(**changes: object) -> Manifest:
    spec = {name: value for name, value in changes.items() if hasattr(SPEC, name)}
    rest = {name: value for name, value in changes.items() if not hasattr(SPEC, name)}
    return Manifest(dataclasses.replace(SPEC, **spec), dataclasses.replace(ENVIRONMENT, **rest))  # type: ignore[arg-type]


def test_a_plan_comes_back_with_what_it_was_built_from(tmp_path: Path) -> None:
    store = PlanStore(tmp_path / "new" / "folder")
    assert store.find(WANTED) == (None, "no plan was built yet")
    saved = store.save(b"plan", dataclasses.replace(WANTED, parity="99 %", notes={"graph": "all"}))
    assert store.find(WANTED) == (b"plan", "")
    assert store.of_model("yolo") == [saved]
    assert store.of_model("other") == []
    assert Manifest.from_json(saved.to_json()) == saved
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "yolo-fp16-512x384-b1-4-8-sm90.json",
        "yolo-fp16-512x384-b1-4-8-sm90.plan",
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_sha256": "b" * 64}, "the model file was aaaaaaaa…, is bbbbbbbb…"),
        ({"tensorrt": "11.3.0.99"}, "TensorRT was 11.4.0.106, is 11.3.0.99"),
        ({"gpu": "NVIDIA L4"}, "the GPU was NVIDIA H200, is NVIDIA L4"),
        ({"backend": "tensorrt-rtx"}, "the library was tensorrt, is tensorrt-rtx"),
        ({"calibration_sha256": "c" * 64}, "the calibration was none, is cccccccc…"),
        ({"version_compatible": True}, "version compatibility was False, is True"),
        ({"gpu": "A", "tensorrt": "12.0"}, "TensorRT was 11.4.0.106, is 12.0; the GPU was NVIDIA H200, is A"),
    ],
)
def test_any_difference_means_rebuild_and_is_said(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    store = PlanStore(tmp_path)
    store.save(b"plan", WANTED)
    assert store.find(changed(**changes)) == (None, reason)
    assert changed(**changes).key != WANTED.key


def test_a_new_driver_or_cuda_costs_no_build(tmp_path: Path) -> None:
    """TensorRT itself refuses a plan that a driver can't take."""
    store = PlanStore(tmp_path)
    store.save(b"plan", WANTED)
    newer = changed(driver="590.10", cuda="13.1")
    assert store.find(newer) == (b"plan", "")
    assert newer.key == WANTED.key
    assert store.of_model("yolo")[0].environment.driver == "580.65"  # the note stays


def test_a_manifest_of_format_1_is_still_read(tmp_path: Path) -> None:
    """As earlier releases wrote it: its key was of the driver too, and nothing was said of the library."""
    document = json.loads(WANTED.to_json())
    document["format"] = 1
    for name in ("backend", "compute_capabilities"):
        del document["spec"][name]
    parts = [1, document["spec"], document["environment"]]
    document["key"] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    assert Manifest.from_json(json.dumps(document)) == WANTED
    document["environment"]["driver"] = "1"
    with pytest.raises(ValueError, match="changed by hand"):
        Manifest.from_json(json.dumps(document))


def test_kernels_are_kept_for_each_gpu_and_go_with_their_plan(tmp_path: Path) -> None:
    store = PlanStore(tmp_path)
    plan = changed(backend="tensorrt-rtx", compute_capabilities=("7.5",), compute_capability="any")
    other = changed(backend="tensorrt-rtx", compute_capabilities=PORTABLE, compute_capability="any")
    assert (plan.stem[-9:], other.stem[-8:]) == ("rtx-sm7.5", "b1-4-8-rtx"[-8:])
    for manifest in (plan, other):
        store.save(b"plan", manifest)
        store.save_runtime_cache(manifest, "NVIDIA RTX A/5000", b"kernels")
    assert store.runtime_cache(plan, "NVIDIA RTX A/5000") == b"kernels"
    assert store.runtime_cache(plan, "another") == b""
    store.remove(other)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "yolo-fp16-512x384-b1-4-8-rtx-sm7.5.json",
        "yolo-fp16-512x384-b1-4-8-rtx-sm7.5.plan",
        "yolo-fp16-512x384-b1-4-8-rtx-sm7.5@NVIDIA_RTX_A_5000.kernels",
    ]


def test_a_portable_plan_is_for_its_gpus_only() -> None:
    plan = changed(compute_capabilities=PORTABLE)
    assert plan.stale(changed(compute_capabilities=("7.5", "8.6"))) == [
        "the compute capabilities was 8.0, 8.6, 8.9, 12.0, 12.1, is 7.5, 8.6"
    ]


def test_other_things_and_other_chips_have_files_of_their_own() -> None:
    stems = {WANTED.stem, changed(precision="int8").stem, changed(height=640).stem, changed(batch=(1, 1, 1)).stem}
    stems |= {changed(compute_capability="86").stem, changed(hardware_compatible=True).stem}
    assert len(stems) == 6
    assert changed(model="a b/c").stem == "a_b_c-fp16-512x384-b1-4-8-sm90"


def test_compatible_plans_tolerate_what_they_promise() -> None:
    versions = changed(version_compatible=True)
    assert versions.stale(changed(version_compatible=True, tensorrt="11.10.0.1")) == []
    assert versions.stale(changed(version_compatible=True, tensorrt="10.16.0.1")) == [
        "TensorRT was 11.4.0.106, is 10.16.0.1"
    ]
    chips = changed(hardware_compatible=True)
    assert chips.stale(changed(hardware_compatible=True, gpu="NVIDIA A10", compute_capability="86")) == []
    assert chips.stale(changed(hardware_compatible=True, compute_capability="75")) == [
        "its compute capability was 90, is 75"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 9}',
        WANTED.to_json().replace("H200", "H100"),
        WANTED.to_json().replace('"precision"', '"prec"'),
    ],
    ids=["empty", "list", "nothing", "format", "by hand", "key"],
)
def test_a_broken_manifest_means_rebuild(tmp_path: Path, text: str) -> None:
    store = PlanStore(tmp_path)
    store.save(b"plan", WANTED)
    store.manifest_path(WANTED).write_text(text)
    plan, reason = store.find(WANTED)
    assert plan is None
    assert reason.startswith("the plan's files can't be read")
    assert store.of_model("yolo") == []


def test_a_damaged_plan_means_rebuild(tmp_path: Path) -> None:
    store = PlanStore(tmp_path)
    store.save(b"plan", WANTED)
    store.plan_path(WANTED).write_bytes(b"pla")
    assert store.find(WANTED) == (None, "the plan's file is damaged")
    store.plan_path(WANTED).unlink()
    assert store.find(WANTED) == (None, "no plan was built yet")


def test_no_room_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PlanStore(tmp_path)
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1000))
    with pytest.raises(PlanError, match=r"no space for the plan: got 0 MiB free, expected 5 MiB; .*LEUKOSTREAM_CACHE"):
        store.save(b"x" * (5 << 20), WANTED)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PlanError, match="no space for the plan"):
        PlanStore(tmp_path).save(b"plan", WANTED)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match=r"file/plans: can't be made .*set LEUKOSTREAM_CACHE"):
        PlanStore(tmp_path / "file" / "plans").save(b"plan", WANTED)


def test_timings_are_kept_for_each_release_and_chip(tmp_path: Path) -> None:
    store = PlanStore(tmp_path)
    assert store.timing_cache(ENVIRONMENT) == b""
    store.save_timing_cache(ENVIRONMENT, b"times")
    assert store.timing_cache(ENVIRONMENT) == b"times"
    assert store.timing_cache(dataclasses.replace(ENVIRONMENT, tensorrt="10.16")) == b""


def test_removed_plans_are_gone(tmp_path: Path) -> None:
    store = PlanStore(tmp_path)
    store.remove(store.save(b"plan", WANTED))
    store.remove(WANTED)
    assert list(tmp_path.iterdir()) == []


def _build_in_turn(folder: str, log: str) -> None:
    store = PlanStore(Path(folder))
    with store.building(WANTED):
        plan, _ = store.find(WANTED)
        if plan is None:
            with open(log, "a") as file:
                file.write("built\n")
            store.save(b"plan", WANTED)


def test_processes_build_one_plan_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    workers = [context.Process(target=_build_in_turn, args=(str(tmp_path / "plans"), str(log))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert log.read_text() == "built\n"


def test_where_plans_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEUKOSTREAM_CACHE", "/somewhere")
    assert default_folder() == Path("/somewhere/plans")
    monkeypatch.delenv("LEUKOSTREAM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert default_folder() == Path("/caches/leukostream/plans")


def test_a_manifest_reads_as_json() -> None:
    document = json.loads(WANTED.to_json())
    assert (document["key"], document["spec"]["batch"]) == (WANTED.key, [1, 4, 8])
