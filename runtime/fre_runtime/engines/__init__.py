"""Inference engines behind one narrow Protocol."""

from fre_runtime.engines.base import Engine, EngineInfo, Outputs, Settings
from fre_runtime.engines.loading import ENGINES, installed_engines, open_engine

__all__ = [
    "ENGINES",
    "Engine",
    "EngineInfo",
    "Outputs",
    "Settings",
    "installed_engines",
    "open_engine",
]
