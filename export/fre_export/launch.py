"""Entry point of fre-export."""

from fre_runtime.commands.launch import launch


def export() -> None:
    """Entry point of fre-export."""
    launch("fre_export.cli")
