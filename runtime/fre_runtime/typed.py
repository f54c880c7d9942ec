"""From parsed JSON or TOML to dataclasses, each field checked against its annotation."""

import dataclasses
import types
from collections.abc import Callable
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Builder:
    """How strict to be, and what to raise."""

    refuse: Callable[[str], Exception]
    """Makes the error of what is wrong."""
    complete: bool
    """Whether fields that have a default must be there, too."""

    def build(self, kind: type[T], data: Any, where: str) -> T:  # noqa: ANN401 - parsed
        """Make a dataclass of ``data``; raises what ``refuse`` makes of the first wrong thing."""
        if not isinstance(data, dict):
            raise self.refuse(f"{where}: expected an object, got {data!r}")
        hints = get_type_hints(kind)
        fields = dataclasses.fields(kind)  # type: ignore[arg-type]
        needed = {f.name for f in fields if self.complete or _has_no_default(f)}
        if odd := sorted((data.keys() - {f.name for f in fields}) | (needed - data.keys())):
            known = ", ".join(f.name for f in fields)
            raise self.refuse(f"{where}: missing or unknown fields {odd}; known are {known}")
        return kind(**{n: self._value(hints[n], v, f"{where}: {n}") for n, v in data.items()})

    def _value(self, hint: Any, data: Any, where: str) -> Any:  # noqa: ANN401 - parsed
        origin, args = get_origin(hint), get_args(hint)
        if dataclasses.is_dataclass(hint):
            return self.build(hint, data, where)  # type: ignore[arg-type]
        if origin in (Union, types.UnionType) and data is None and type(None) in args:
            return None
        if origin in (Union, types.UnionType):
            return self._value(args[0], data, where)
        if origin is list and isinstance(data, list):
            return [self._value(args[0], one, f"{where}[{i}]") for i, one in enumerate(data)]
        if origin is dict and isinstance(data, dict):
            return {key: self._value(args[1], v, f"{where}[{key!r}]") for key, v in data.items()}
        if hint is float and isinstance(data, int | float) and not isinstance(data, bool):
            return float(data)
        if isinstance(hint, type) and type(data) is hint:
            return data
        raise self.refuse(f"{where}: expected {getattr(hint, '__name__', hint)}, got {data!r}")


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING
