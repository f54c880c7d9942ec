"""What machine and which versions a figure was measured on."""

import datetime
import os
import platform
import sys
from pathlib import Path
from typing import Any

from fre_runtime.threads import available_cpus, cpu_quota, default_threads, physical_cores

ISA_FLAGS = (
    "sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16",
    "amx_bf16", "amx_int8", "amx_fp16",
)  # fmt: skip
PACKAGES = ("fre-edge", "openvino", "onnxruntime", "numpy", "opencv-python-headless", "torch")


def environment() -> dict[str, Any]:
    """CPU, cores, quota, versions and date, as a JSON-ready dictionary."""
    cpu = _cpuinfo()
    flags = set(cpu.get("flags", "").split())
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "cpu_family_model": f"{cpu.get('cpu family', '?')}/{cpu.get('model', '?')}",
        "isa": [flag for flag in ISA_FLAGS if flag in flags],
        "cpus_available": len(available_cpus()),
        "physical_cores": physical_cores(),
        "cpu_quota": cpu_quota(),
        "default_threads": default_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "os": platform.platform(),
        "python": sys.version.split()[0],
        "versions": package_versions(PACKAGES),
    }


def package_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of those ``packages`` that are installed."""
    # Here, because it loads all of `email`, and resident memory is asked for without versions.
    import importlib.metadata

    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _cpuinfo() -> dict[str, str]:
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def resident_mib() -> float | None:
    """Resident memory of this process in MiB, where the system tells."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
