"""A part's Config: frozen, typed, to JSON and back, changed by `--set a.b=c`.

Every part is one file with a `class Config(config.Config)`; on disk the file names it:
`{"kind": "medtextdiff.segmentation.fusion.gated", ...}`. Only this package, and packages that declare the entry
point group `medtextdiff.plugins`, may be named: reading a config never imports anything else.
"""

import difflib
import importlib
import json
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

PACKAGE = "medtextdiff"

_C = TypeVar("_C", bound="Config")


class ConfigError(ValueError):
    """A config, recipe, model or option that cannot be used; the message says what to do."""


class Config(BaseModel):
    """Base of every part's Config. Subclasses add fields with defaults and a `build(...)`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=False, protected_namespaces=(), allow_inf_nan=False
    )

    @classmethod
    def kind(cls) -> str:
        """The dotted name that stands for this class on disk: its module, and its name unless that is Config."""
        return cls.__module__ if cls.__name__ == "Config" else f"{cls.__module__}.{cls.__name__}"

    def replace(self: _C, **changes: Any) -> _C:
        """A checked copy with some fields changed."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**(values | changes))


def to_json(value: Any) -> Any:
    """A config as plain JSON values, each config carrying its `kind`."""
    if isinstance(value, Config):
        fields = {name: to_json(getattr(value, name)) for name in type(value).model_fields}
        return {"kind": value.kind()} | fields
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def from_json(value: Any) -> Any:
    """The inverse of `to_json`.

    Raises:
        ConfigError: a kind outside this package and its plugins, an unknown kind or field, a wrong type.
    """
    if isinstance(value, Mapping):
        fields = {key: from_json(item) for key, item in value.items() if key != "kind"}
        if "kind" not in value:
            return fields
        cls = _find_class(str(value["kind"]))
        _check_names(fields, cls)
        return _construct(cls, fields)
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return value


def completed(value: Any) -> Any:
    """A config's JSON as this version would write it: fields that came since have their defaults.

    As it is where it holds what this version does not know.
    """
    try:
        return to_json(from_json(value))
    except ConfigError:
        return value


def override(config: Config, assignments: Iterable[str]) -> Config:
    """Apply `a.b=c` assignments, in order.

    A value for a field that holds a part may be a sibling's name (`model.head.fusion=gated`), or some of its settings
    as JSON (`contrast={"num": 16}`; with a "kind", a whole part). Other values are checked against the field's type.
    Lists are written `1,2,3` or as JSON; `null` is None.

    Raises:
        ConfigError: not of the form name=value, an unknown name (the nearest is offered), or a wrong type.
    """
    for assignment in assignments:
        path, sign, text = assignment.partition("=")
        if not sign or not path:
            raise ConfigError(f"--set takes name=value, e.g. training.max_steps=100; got '{assignment}'")
        config = _set(config, path.strip().split("."), text.strip(), path.strip())
    return config


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an error message: the nearest known spelling and the list of all."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known: {', '.join(names) or 'none'}"


def siblings(kind: str) -> list[str]:
    """Names of the parts in the folder of the part called `kind`; none where several parts share one file."""
    package = importlib.import_module(kind.rpartition(".")[0])
    return sorted(module.name for module in pkgutil.iter_modules(getattr(package, "__path__", [])))


def _set(config: Config, path: list[str], text: str, whole: str) -> Config:
    name, rest = path[0], path[1:]
    if name not in type(config).model_fields:
        raise ConfigError(f"no setting '{whole}': '{name}' is unknown; {nearest(name, type(config).model_fields)}")
    current = getattr(config, name)
    value: Any
    if rest:
        if current is None:
            part = whole.removesuffix("." + ".".join(rest))
            raise ConfigError(
                f"no setting '{whole}': '{part}' is null here; set it whole, --set '{part}={{...}}', in JSON"
            )
        if not isinstance(current, Config):
            raise ConfigError(f"no setting '{whole}': '{name}' holds a plain value, nothing is inside it")
        value = _set(current, rest, text, whole)
    elif isinstance(value := _parse(text), Mapping) and ("kind" in value or isinstance(current, Config)):
        value = _from_settings(current, value)
    elif isinstance(current, Config) and text.lower() != "null":
        value = _sibling(current, text, whole)
    # path=123 is a string, more=DIR a list of one, subset=101,102 a list of strings
    spelt = [item.strip(" \"'") for item in text.strip("[]()").split(",")]
    readings = [value] if rest else [value, text, [value], spelt]
    faults = []
    for reading in readings:
        try:
            return config.replace(**{name: reading})
        except ValidationError as error:
            faults.append(error.errors()[0]["msg"])
    raise ConfigError(f"'{whole}' cannot be '{text}': {faults[0]}")


def _from_settings(current: Any, settings: Mapping[str, Any]) -> Config:
    """The part that `settings` describe: a new one if they name its kind, else `current` with these changed."""
    if "kind" in settings:
        return from_json(settings)
    _check_names(settings, type(current))
    fields = {name: _changed(getattr(current, name), value) for name, value in settings.items()}
    return _construct(type(current), {name: getattr(current, name) for name in type(current).model_fields} | fields)


def _changed(current: Any, value: Any) -> Any:
    inner = isinstance(current, Config) and isinstance(value, Mapping)
    return _from_settings(current, value) if inner else from_json(value)


def _sibling(current: Config, text: str, whole: str) -> Config:
    kind = current.kind()
    names = siblings(kind)
    if not names:
        inside = ", ".join(f"{whole}.{name}" for name in type(current).model_fields)
        raise ConfigError(f"'{whole}' is a group of settings; set one of {inside}")
    if text not in names:
        raise ConfigError(f"'{whole}' cannot be '{text}'; {nearest(text, names)}")
    return _construct(_find_class(f"{kind.rpartition('.')[0]}.{text}"), {})


def _parse(text: str) -> Any:
    if text.lower() in ("null", "none"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # not JSON; a number of thousands of digits; thousands of brackets
        if "," in text:
            return [_parse(item.strip()) for item in text.strip("[]()").split(",") if item.strip()]
        return {"true": True, "false": False}.get(text.lower(), text)


def _check_names(fields: Iterable[str], cls: type[Config]) -> None:
    for name in fields:
        if name not in cls.model_fields:
            raise ConfigError(f"unknown field '{name}' in a {cls.kind()}; {nearest(name, cls.model_fields)}")


def _construct(cls: type[Config], fields: dict[str, Any]) -> Config:
    try:
        return cls(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{cls.kind()}: field '{place}': {first['msg']}") from None


def _find_class(kind: str) -> type[Config]:
    allowed = {PACKAGE} | {point.value.partition(":")[0] for point in entry_points(group="medtextdiff.plugins")}
    if not any(kind == name or kind.startswith(name + ".") for name in allowed):
        raise ConfigError(
            f"the config names '{kind}', which is outside {PACKAGE}; only its own parts and installed plugins "
            "(entry point 'medtextdiff.plugins') may be named"
        )
    for module_name, class_name in ((kind, "Config"), tuple(kind.rpartition(".")[::2])):
        if not module_name:
            continue
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not module_name.startswith(error.name):
                raise
            continue
        cls = getattr(module, class_name, None)
        if isinstance(cls, type) and issubclass(cls, Config) and cls is not Config:
            return cls
    raise ConfigError(f"the config names '{kind}', but there is no such part")


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of a config in which `change` was applied to every string, kinds excepted (for paths)."""
    if isinstance(value, Config):
        return value.replace(**{name: map_strings(getattr(value, name), change) for name in type(value).model_fields})
    if isinstance(value, str):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)(map_strings(item, change) for item in value)
    if isinstance(value, Mapping):
        return {key: map_strings(item, change) for key, item in value.items()}
    return value
