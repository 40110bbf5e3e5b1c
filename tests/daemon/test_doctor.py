"""``frescod doctor``: each check sees what it is for, none hangs, and torch stays out."""

import functools
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from daemon import doctor_checks, doctor_folders, doctor_limits
from daemon.config import Layer, merge
from daemon.doctor import Check, Finding, Verdict, doctor, examine
from daemon.settings import Settings
from daemon.setup_commands import doctor as command
from fresco_core.errors import FrescodError
from fresco_core.hub import PULL

OK, WARNING, PROBLEM = Verdict.OK, Verdict.WARNING, Verdict.PROBLEM


def settings(**values: Any) -> Settings:
    return merge(Layer("test", {key.replace("__", "."): value for key, value in values.items()}))


def placed(folder: Path, **values: Any) -> Settings:
    for name in ("inbox", "output", "state"):
        (folder / name).mkdir(exist_ok=True)
    return settings(
        inbox__folder=str(folder / "inbox"),
        output__folder=str(folder / "output"),
        service__state=str(folder / "state"),
        **values,
    )


def verdicts(findings: Iterator[Finding]) -> set[Verdict]:
    return {finding.verdict for finding in findings}


def one(findings: Iterator[Finding]) -> Finding:
    (finding,) = findings
    return finding


# --- how checks are made --------------------------------------------


def finds(*found: Finding, seconds: float = 5) -> Check:
    return Check("trial", lambda _: found, seconds)


def test_exit_code_and_lines(capsys: pytest.CaptureFixture[str]) -> None:
    fine = Finding("disk", OK, "plenty")
    low = Finding("disk", WARNING, "low", "free some")
    full = Finding("disk", PROBLEM, "full\n", "free some")
    assert doctor(Settings(), [finds(fine, low)]) == 0
    assert capsys.readouterr().out == (
        "ok       disk       plenty\nwarning  disk       low: free some\n"
    )
    assert doctor(Settings(), [finds(fine), finds(full)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "problem  disk       full\\n: free some"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(Settings(), [finds(Finding("disk", PROBLEM, "full", "free some"))], True) == 1
    assert json.loads(capsys.readouterr().out) == {
        "findings": [{"check": "disk", "verdict": "problem", "text": "full", "remedy": "free some"}]
    }


def test_a_check_that_hangs_is_told_and_holds_no_other_up() -> None:
    end = threading.Event()

    def hang(_: Settings) -> list[Finding]:
        end.wait()
        return []

    start = time.monotonic()
    hung, other = examine(
        Settings(), [Check("disk", hang, 0.05), finds(Finding("cores", OK, "enough"))]
    )
    assert time.monotonic() - start < 5
    end.set()
    assert (hung.check, hung.verdict) == ("disk", PROBLEM)
    assert "no answer in 0.05 s" in hung.text
    assert other.verdict is OK


def test_a_check_that_fails_is_a_finding() -> None:
    def fail(_: Settings) -> Iterator[Finding]:
        yield Finding("disk", OK, "first")
        raise RuntimeError("broken")

    first, second = examine(Settings(), [Check("disk", fail)])
    assert first.text == "first"
    assert second.verdict is PROBLEM
    assert "RuntimeError: broken" in second.text


def test_on_this_machine_every_check_answers_and_torch_is_not_imported(tmp_path: Path) -> None:
    code = """
import json, sys
from daemon.doctor import examine
from daemon.doctor_checks import CHECKS
from daemon.settings import Settings
from daemon.setup_commands import doctor as command
print(json.dumps([[f.check, f.verdict, f.text] for f in examine(Settings(), CHECKS)]))
print("torch" in sys.modules)
"""
    command = [sys.executable, "-c", code]
    environment = {
        "PYTHONPATH": ":".join(sys.path),
        "HF_HOME": str(tmp_path),
        "HOME": str(tmp_path),
    }
    answer = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    findings, torch = answer.stdout.splitlines()
    assert torch == "False"
    texts = [text for _, _, text in json.loads(findings)]
    assert not [text for text in texts if "could not be checked" in text or "no answer" in text]
    assert list(tmp_path.rglob(".doctor*")) == []
    assert not (tmp_path / "output").exists()


# --- the program --------------------------------------------


def test_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    found = one(doctor_checks.libraries(Settings()))
    assert found.verdict is OK
    assert f"Python {sys.version_info[0]}.{sys.version_info[1]}" in found.text

    installed = doctor_checks.metadata.version
    versions = {"torch": "2.5.1", "numpy": "1.26", "av": "100.0.0rc1"}
    monkeypatch.setattr(
        doctor_checks.metadata, "version", lambda name: versions.get(name) or installed(name)
    )
    old, _ = doctor_checks.libraries(Settings())
    assert old.verdict is PROBLEM
    assert "torch>=2.6" in old.text
    assert "numpy" not in old.text
    assert "av>" not in old.text


@pytest.mark.parametrize(
    ("devices", "gpus", "verdict"),
    [("auto", 2, OK), ("cpu", 0, OK), ("cuda:0,cuda:1", 1, PROBLEM), ("cuda", 0, PROBLEM)],
)
def test_devices(devices: str, gpus: int, verdict: Verdict) -> None:
    found = one(doctor_checks.devices(settings(devices=devices), lambda: gpus))
    assert found.verdict is verdict
    assert (verdict is OK) or "choose another" in found.remedy or "set devices" in found.remedy


@pytest.mark.parametrize(
    ("driver", "card", "verdict"),
    [(False, False, WARNING), (True, True, PROBLEM), (False, True, PROBLEM)],
)
def test_no_gpu_that_torch_can_use(
    monkeypatch: pytest.MonkeyPatch, driver: bool, card: bool, verdict: Verdict
) -> None:
    class FakePath(type(Path())):  # type: ignore[misc]
        def exists(self, **_: Any) -> bool:
            return driver

    monkeypatch.setattr(doctor_checks, "Path", FakePath)
    monkeypatch.setattr(doctor_checks, "_has_nvidia_gpu", lambda: card)
    found = one(doctor_checks.devices(Settings(), lambda: 0))
    assert found.verdict is verdict
    assert ("driver" in found.text) is (driver or card)


def test_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    on_hub, local = f"base model a/b: {PULL}", "/weights/x.safetensors not found: correct the path"
    monkeypatch.setattr(doctor_checks, "missing_weights", lambda _: [on_hub, local])
    assert [f.verdict for f in doctor_checks.weights(Settings())] == [WARNING, PROBLEM]
    assert verdicts(doctor_checks.weights(settings(models__offline=True))) == {PROBLEM}
    monkeypatch.setattr(doctor_checks, "missing_weights", lambda _: [])
    assert verdicts(doctor_checks.weights(Settings())) == {OK}


def test_propagation(tmp_path: Path) -> None:
    assert one(doctor_checks.propagation(Settings())).verdict is OK
    absent = settings(propagation__engine="ebsynth", propagation__program=str(tmp_path / "ebsynth"))
    found = one(doctor_checks.propagation(absent))
    assert found.verdict is PROBLEM
    assert str(tmp_path / "ebsynth") in found.text
    (tmp_path / "ebsynth").write_text("#!/bin/sh\n")
    (tmp_path / "ebsynth").chmod(0o755)
    assert one(doctor_checks.propagation(absent)).verdict is OK


def test_propagation_by_gpus() -> None:
    by_gpu = settings(propagation__device="gpu")
    found = one(doctor_checks.propagation(by_gpu, lambda: 0))
    assert found.verdict is PROBLEM
    assert "set it to auto or cpu" in found.text
    memory, builtin = doctor_checks.propagation(by_gpu, lambda: 2)
    assert "4GiB" in memory.text
    assert builtin.verdict is OK


def test_the_models_that_auto_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks, "missing_weights", lambda _: [])
    texts = [finding.text for finding in doctor_checks.weights(Settings())]
    assert [text.partition(":")[0] for text in texts[1:]] == ["flow", "saliency"]


def test_codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor_checks.ENCODER in next(iter(doctor_checks.codecs(Settings()))).text
    monkeypatch.setattr(doctor_checks, "ENCODER", "no-such-encoder")
    monkeypatch.setattr(doctor_checks, "DECODERS", ("h264", "no-such-decoder"))
    monkeypatch.setattr(doctor_checks, "_decord", lambda _: iter(()))
    encoder, decoder = doctor_checks.codecs(Settings())
    assert (encoder.verdict, decoder.verdict) == (PROBLEM, WARNING)
    assert "no-such-decoder" in decoder.text
    assert "h264" not in decoder.text


def test_decord_is_tried_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(returncode=-6, stderr="")

    monkeypatch.setattr(doctor_checks.subprocess, "run", crash)
    monkeypatch.setattr(doctor_checks.platform, "machine", lambda: "x86_64")
    assert one(doctor_checks._decord(Settings())).verdict is WARNING
    assert one(doctor_checks._decord(settings(clips__decoder="decord"))).verdict is PROBLEM


# --- folders --------------------------------------------


def test_folders_that_are_well(tmp_path: Path) -> None:
    here = placed(tmp_path)
    for check in (doctor_folders.folders, doctor_folders.state):
        assert verdicts(check(here)) == {OK}
    assert all(list((tmp_path / name).iterdir()) == [] for name in ("inbox", "output", "state"))


def test_folders_that_are_missing_or_files(tmp_path: Path) -> None:
    here = settings(inbox__folder=str(tmp_path / "x"), output__folder=str(tmp_path / "y/z"))
    found = list(doctor_folders.folders(here))
    assert {finding.verdict for finding in found} == {OK}
    assert all("made when it is needed" in finding.text for finding in found)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x").touch()
    assert PROBLEM in verdicts(doctor_folders.folders(here))


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    here = placed(tmp_path)
    monkeypatch.setattr(doctor_folders.tempfile, "TemporaryFile", refuse)
    found = one(doctor_folders.state(here))
    assert found.verdict is PROBLEM
    assert "service.state" in found.remedy


def test_root_is_told_to_look_as_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = placed(tmp_path)
    monkeypatch.setattr(doctor_folders.os, "geteuid", lambda: 0)
    (tmp_path / "output").chmod(0o755)
    if (tmp_path / "output").stat().st_uid == 0:
        try:
            doctor_folders.os.chown(tmp_path / "output", 12345, 12345)
        except PermissionError:
            pytest.skip("may not give folders away")
    assert "runuser" in list(doctor_folders.folders(here))[-1].remedy


def test_staging_on_another_file_system(tmp_path: Path) -> None:
    here = placed(tmp_path)
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    (tmp_path / "output/.staging").symlink_to("/dev/shm")
    assert PROBLEM in verdicts(doctor_folders.folders(here))


def test_file_systems_of_other_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor_folders.file_system(Path("/proc/self")) == "proc"
    assert doctor_folders.file_system(tmp_path / "not" / "there") not in ("", "proc")
    here = placed(tmp_path)
    monkeypatch.setattr(doctor_folders, "file_system", lambda _: "nfs4")
    assert "local disk" in list(doctor_folders.state(here))[1].remedy
    assert "polling" in next(iter(doctor_folders.folders(here))).remedy
    polling = placed(tmp_path, inbox__watch="polling")
    assert verdicts(doctor_folders.folders(polling)) == {OK}


def test_a_store_that_sqlite_cannot_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        raise doctor_folders.sqlite3.OperationalError("locking protocol")

    monkeypatch.setattr(doctor_folders, "_try_sqlite", fail)
    found = list(doctor_folders.state(placed(tmp_path)))[-1]
    assert found.verdict is PROBLEM
    assert "locking protocol" in found.text


@pytest.mark.parametrize(("free", "verdict"), [(0.5, PROBLEM), (5, WARNING), (500, OK)])
def test_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, verdict: Verdict
) -> None:
    space = SimpleNamespace(f_bavail=int(free * doctor_folders.GIB / 4096), f_frsize=4096)
    monkeypatch.setattr(doctor_folders.os, "statvfs", lambda _: space)
    output, state = doctor_folders.disk(placed(tmp_path))
    assert output.verdict is verdict
    assert state.verdict is OK


# --- memory, cores, limits --------------------------------------------


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_limits, "available_memory", lambda: 64 * doctor_limits.GIB)
    small = settings(prefetch__memory="64MiB", devices="cpu", cpu__cores=2)
    assert one(doctor_limits.memory(small)).verdict is OK
    monkeypatch.setattr(doctor_limits, "available_memory", lambda: doctor_limits.GIB)
    assert one(doctor_limits.memory(small)).verdict is WARNING
    assert one(doctor_limits.memory(settings(prefetch__memory="900TiB"))).verdict is PROBLEM


def test_devices_are_counted_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [Path(f"/dev/nvidia{i}") for i in range(8)]
    monkeypatch.setattr(doctor_limits, "gpu_files", lambda: files)
    counts = {"auto": 8, "cuda": 8, "cpu": 1, "cpu*3": 3, "cuda:0, cpu*2": 3}
    assert {text: doctor_limits.device_count(settings(devices=text)) for text in counts} == counts


def test_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_limits, "usable_cores", lambda: 16)
    monkeypatch.setattr(doctor_limits, "gpu_files", lambda: [Path("/dev/nvidia0")])
    assert one(doctor_limits.cores(Settings())).verdict is OK
    assert one(doctor_limits.cores(settings(cpu__cores=17))).verdict is WARNING
    assert one(doctor_limits.cores(settings(cpu__cores=3))).verdict is WARNING


def test_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor_limits, "_files", lambda: iter(()))
    assert one(doctor_limits.limits(Settings())).verdict is OK
    (tmp_path / "max_user_watches").write_text("100\n")
    monkeypatch.setattr(doctor_limits, "_INOTIFY", tmp_path)
    assert one(doctor_limits.limits(Settings())).verdict is OK
    recursive = settings(inbox__recursive=True)
    assert "max_user_watches" in one(doctor_limits.limits(recursive)).remedy

    def none(_: int) -> int:
        return -1

    monkeypatch.setattr(
        doctor_limits.ctypes, "CDLL", lambda *_, **__: SimpleNamespace(inotify_init1=none)
    )
    assert one(doctor_limits.limits(Settings())).verdict is PROBLEM
    assert one(doctor_limits.limits(settings(inbox__watch="polling"))).verdict is OK


def test_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_limits.resource, "getrlimit", lambda _: (256, 256))
    assert "LimitNOFILE" in one(doctor_limits._files()).remedy
    monkeypatch.setattr(doctor_limits.resource, "getrlimit", lambda _: (256, 4096))
    assert list(doctor_limits._files()) == []


# --- the daemon --------------------------------------------


def test_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = settings(service__socket=str(tmp_path / "control.sock"))
    assert one(doctor_checks.running(here)).text == "not running"
    long = settings(service__socket="/" + "x" * 107)
    assert "service.socket" in one(doctor_checks.running(long)).remedy

    answer = {"pid": 17, "state": "serving", "problems": ["the inbox is gone"]}
    monkeypatch.setattr(doctor_checks.ControlClient, "status", lambda _: answer)
    well, ill = doctor_checks.running(here)
    assert well.text == "running as process 17, serving"
    assert (ill.verdict, ill.text) == (PROBLEM, "the inbox is gone")

    def refuse(_: Any) -> Any:
        raise FrescodError("permission denied")

    monkeypatch.setattr(doctor_checks.ControlClient, "status", refuse)
    assert one(doctor_checks.running(here)).verdict is WARNING


def test_a_daemon_that_does_not_answer_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = functools.partial(doctor_checks.ControlClient, seconds=0.05)
    monkeypatch.setattr(doctor_checks, "ControlClient", impatient)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "control.sock"))
        server.listen()
        found = one(doctor_checks.running(settings(service__socket=str(tmp_path / "control.sock"))))
    assert found.verdict is WARNING


def test_an_old_job_file_and_weights_for_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (job := tmp_path / "job.yaml").write_text("file_path: a.mp4\nsave_path: file/out\n")
    missing = Check("weights", lambda _: [Finding("weights", WARNING, f"VAE a/b: {PULL}")])
    monkeypatch.setattr(doctor_checks, "CHECKS", (missing,))

    def found() -> list[dict[str, str]]:
        words = ["--base-config", "job.yaml", "--set", "models.vae=a/b", "--json"]
        result = CliRunner().invoke(command, words, standalone_mode=False)
        findings: list[dict[str, str]] = json.loads(result.stdout)["findings"]
        return findings

    weights, clip = found()
    assert "--base-config job.yaml --set models.vae=a/b` with" in weights["text"]
    assert clip["verdict"] == "problem"
    assert "file_path = a.mp4: there is no such file" in clip["text"]
    (tmp_path / "a.mp4").touch()
    assert "a.mp4: has no prompt" in found()[2]["text"]
    (tmp_path / "a.txt").write_text("a road")
    assert [each["verdict"] for each in found()[1:]] == ["ok", "ok"]
    (tmp_path / "file").touch()
    assert found()[2]["verdict"] == "problem"
    assert "save_path" in found()[2]["remedy"]
    job.write_text("seed: 1")
    assert len(found()) == 1


def test_the_command_reads_the_services_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('devices = "cpu"\n')
    seen = Check("trial", lambda given: [Finding("devices", PROBLEM, given.devices)])
    monkeypatch.setattr(doctor_checks, "CHECKS", (seen,))
    words = ["--config", str(config), "--json"]
    result = CliRunner().invoke(command, words, standalone_mode=False)
    assert result.return_value == 1
    assert json.loads(result.output)["findings"][0]["text"] == "cpu"
