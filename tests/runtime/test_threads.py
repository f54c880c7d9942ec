import pytest

from fre_runtime import threads


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "own_cgroups", lambda: [tmp_path])
    return tmp_path / "cpu.max"


@pytest.mark.parametrize(("text", "quota"), [("150000 100000", 1.5), ("max 100000", None)])
def test_reads_the_quota(cgroup, text, quota, monkeypatch):
    cgroup.write_text(text)
    if quota is None:
        monkeypatch.setattr(threads, "V1_FOLDER", cgroup.parent / "none")
    assert threads.cpu_quota() == quota


@pytest.mark.parametrize(
    ("cpus", "quota", "cores", "expected"),
    [(8, None, 4, 4), (8, 1.5, 8, 2), (8, 0.2, 8, 1), (3, 16.0, 8, 3)],
)
def test_takes_the_smallest_limit(monkeypatch, cpus, quota, cores, expected):
    monkeypatch.setattr(threads, "available_cpus", lambda: set(range(cpus)))
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    monkeypatch.setattr(threads, "physical_cores", lambda: cores)
    assert threads.default_threads() == expected
