import numpy as np
import pytest

from fre_runtime.harness import noise as module
from fre_runtime.harness.noise import LIMITS, exceeded, noise, snapshot, warning

QUIET = np.full(40, 5.0)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """``machine(user, idle, steal, mhz, own)`` is a snapshot of a fake machine with two CPUs."""
    monkeypatch.setattr(module, "available_cpus", lambda: {0, 1})
    monkeypatch.setattr(module.os, "sysconf", lambda _: 100)

    def take(user, idle, steal, mhz=2000.0, own=0.0):
        cpu = f"{user * 50} 0 0 {idle * 50} 0 0 0 {steal * 50} 0 0"
        lines = ["cpu  9 9 9 9 9 9 9 9 0 0", f"cpu0 {cpu}", f"cpu1 {cpu}", "cpu2 7 7 7 7 7 7 7 7"]
        (tmp_path / "stat").write_text("\n".join([*lines, "intr 1 2 3"]))
        (tmp_path / "cpuinfo").write_text(f"cpu MHz\t\t: {mhz}\n\ncpu MHz\t\t: {mhz}\n")
        monkeypatch.setattr(module.time, "process_time", lambda: own)
        return snapshot(tmp_path, tmp_path / "no_cpufreq")

    return take


def test_shares_of_steal_and_of_others(machine):
    before = machine(user=10, idle=100, steal=0, own=1)
    after = machine(user=15, idle=104, steal=1, own=3)  # 10 s of CPU time have passed
    found = noise(QUIET, before, after)
    assert found["steal"] == pytest.approx(0.1)
    assert found["others"] == pytest.approx(0.3)  # 5 s busy, 2 s of them ours
    assert exceeded(found) == ["steal", "others"]


def test_a_quiet_machine_says_nothing(machine):
    found = noise(QUIET, machine(1, 1, 0), machine(6, 6, 0, own=10))
    assert found == {"spread": 0, "drift": 0, "steal": 0, "others": 0, "clock_change": 0}
    assert exceeded(found) == []
    assert warning([found], []) is None


def test_spread_drift_and_clock(machine):
    times = np.concatenate([np.full(20, 5.0), np.full(20, 10.0)])
    found = noise(times, machine(1, 1, 0, mhz=3000), machine(6, 6, 0, mhz=1500, own=10))
    assert found["drift"] == pytest.approx(1)
    assert found["spread"] == pytest.approx(5 / 7.5)
    assert found["clock_change"] == pytest.approx(0.5)
    assert exceeded(found, ignore=["spread"]) == ["drift", "clock_change"]
    line = warning([found, noise(QUIET, machine(0, 0, 0), machine(1, 1, 0))], exceeded(found))
    assert line.startswith("warning: noisy machine")
    assert "halves of the run differ by 100% (limit 5%)" in line
    assert "\n" not in line


def test_cpufreq_is_preferred(machine, tmp_path):
    machine(0, 0, 0)
    for cpu in (0, 1):
        folder = tmp_path / "freq" / f"cpu{cpu}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text("1800000\n")
    assert snapshot(tmp_path, tmp_path / "freq").mhz == 1800


@pytest.mark.parametrize("stat", [None, "", "cpu0 1 2", "cpu0 a b c d e f g h"])
def test_degrades_quietly_where_the_system_does_not_tell(stat, tmp_path):
    if stat is not None:
        (tmp_path / "stat").write_text(stat)
    one = snapshot(tmp_path, tmp_path)
    found = noise(QUIET, one, one)
    assert (one.cpu, one.mhz) == (None, None)
    assert (found["steal"], found["others"], found["clock_change"]) == (None, None, None)
    assert exceeded(found) == []


def test_every_limit_has_a_meaning():
    assert LIMITS.keys() == module.MEANING.keys()
