"""What several tests of the export share."""

import pytest

from fre_export import variants


@pytest.fixture
def ratios(monkeypatch):
    """Set the time ratios that are measured, by variant; nothing is timed."""
    measured = {}

    def lookup(_, __, built):
        return {engine: measured[built.variant.precision][engine] for engine in built.engines}

    monkeypatch.setattr(variants, "_time_ratios", lookup)
    return measured
