"""How any recipe is written to and read from JSON, and changed field by field.

Every recipe in seedjax is a frozen, hashable dataclass, passed to `jit` as a static
argument. A recipe lives beside the code that it steers. Not here: state, which
is always a pytree.
"""

import dataclasses
import functools
import importlib
import numbers
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from seedjax.errors import InputError, did_you_mean
from seedjax.files.text import brief, parse_json

ConfigT = TypeVar("ConfigT")


def require(condition: bool, config: Any, field: str, rule: str) -> None:
    """Holds a field of a recipe to a rule.

    Raises:
      InputError: unless the condition holds; it names the recipe, the field, its value
        and the rule.
    """
    if not condition:
        got = getattr(config, field)
        raise InputError(
            f"{type(config).__name__}.{field} is {brief(got)}; it must be {rule}"
        )


def to_dict(config: Any) -> Any:
    """A recipe as JSON-ready values. A dataclass becomes a mapping with its class name
    under "kind", so that `from_dict` can tell the members of a union apart; one of the
    user's own, for a field that takes any class with the methods of a Protocol, has
    "module:Class" there."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        hints = typing.get_type_hints(type(config))
        values: dict[str, Any] = {"kind": type(config).__name__}
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            values[field.name] = to_dict(value)
            if _is_of_own_class(value, hints[field.name]):
                kind = f"{type(value).__module__}:{type(value).__qualname__}"
                values[field.name]["kind"] = kind
        return values
    if isinstance(config, tuple | list):
        return [to_dict(v) for v in config]
    return config


def from_dict(
    cls: type[ConfigT], values: Mapping[str, Any], where: str = ""
) -> ConfigT:
    """Builds the recipe `cls` from what `to_dict` wrote, or from a part of it.

    Raises:
      InputError: for an unknown field (naming the nearest one), a missing field or a
        value of the wrong type.
    """
    where = where or cls.__name__
    if not isinstance(values, Mapping):
        raise InputError(f"{where} is {brief(values)}; it must be a mapping of fields")
    types_of_fields = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name == "kind":
            if value != cls.__name__:
                raise InputError(
                    f"{where}.kind is {brief(value)}; expected {cls.__name__!r}"
                )
            continue
        if (removed := getattr(cls, "REMOVED_FIELDS", {}).get(name)) is not None:
            if value is not None:
                raise InputError(f"{where}.{name} was removed: {removed}")
            continue
        check_field_name(name, names, where)
        given[name] = coerce(types_of_fields[name], value, f"{where}.{name}")
    try:
        return cls(**given)
    except TypeError as error:
        raise InputError(f"{where}: {error}") from None


def make_plain(config: Any) -> None:
    """Checks a new recipe's numbers, flags and texts for their types, and gives them
    Python's own in place of NumPy's. To be called first in `__post_init__`, for frozen
    recipes, too; fields that are recipes of their own check themselves.

    Raises:
      InputError: for a value of the wrong type.
    """
    cls: Any = type(config)
    for field, annotation in _plain_fields(cls):
        value = coerce(annotation, getattr(config, field), f"{cls.__name__}.{field}")
        object.__setattr__(config, field, value)


@functools.cache
def _plain_fields(cls: Any) -> list[tuple[str, Any]]:
    """Fields of a recipe that hold nothing but plain values, and their types."""

    def is_plain(annotation: Any) -> bool:
        if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple):
            return all(map(is_plain, typing.get_args(annotation)))
        is_literal = typing.get_origin(annotation) is Literal
        plain = (int, float, bool, str, type(None), Ellipsis)
        return is_literal or annotation in plain

    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)
    return [(f.name, hints[f.name]) for f in fields if is_plain(hints[f.name])]


def check_field_name(name: str, names: list[str], where: str) -> None:
    """Raises `InputError` with the nearest known name when `name` is unknown."""
    if name in names:
        return
    hint = did_you_mean(name, names) or f"; it has {', '.join(names) or 'none'}"
    raise InputError(f"{where} has no field {name!r}{hint}")


def check_fields(
    values: Mapping[str, Any], kinds: Mapping[str, Any], where: str
) -> None:
    """Checks the fields of a file that others write, too: fields that are not named are
    let be, and one that is not there counts as None.

    Args:
      values: a JSON object.
      kinds: annotations by field, such as `{"name": str, "ids": list[int] | None}`.
      where: what the file is called.

    Raises:
      InputError: for a value of another type, naming the field.
    """
    for name, kind in kinds.items():
        coerce(kind, values.get(name), f"{where}: {name}")


def coerce(annotation: Any, value: Any, where: str) -> Any:
    """`value`, as it came from JSON or the command line, as an `annotation`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    wrong = InputError(f"{where} is {brief(value)}; expected {_describe(annotation)}")
    if origin is Literal:
        if value not in arguments:
            raise wrong
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        members = [a for a in arguments if a is not type(None)]
        kind = value.get("kind") if isinstance(value, Mapping) else value
        if _is_protocol(members[-1]) and isinstance(kind, str) and ":" in kind:
            return _own_strategy(members[-1], value, where)
        if isinstance(value, Mapping) and "kind" in value:
            by_name = {m.__name__: m for m in members if not _is_protocol(m)}
            if not isinstance(value["kind"], str) or value["kind"] not in by_name:
                raise InputError(
                    f"{where}.kind is {brief(value['kind'])}; "
                    f"expected one of {', '.join(by_name)}"
                )
            return from_dict(by_name[value["kind"]], value, where)
        if len(members) == 1 and isinstance(value, Mapping):
            return coerce(members[0], value, where)  # its error names the field
        for member in members:
            try:
                return coerce(member, value, where)
            except InputError:
                continue
        raise wrong
    if origin is list:
        if not isinstance(value, list):
            raise wrong
        if arguments[0] is str and all(type(part) is str for part in value):
            return value  # a vocabulary is long
        return [coerce(arguments[0], v, where) for v in value]
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise wrong
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(coerce(arguments[0], v, where) for v in value)
        if len(arguments) != len(value):
            raise wrong
        return tuple(coerce(a, v, where) for a, v in zip(arguments, value, strict=True))
    if _is_protocol(annotation):
        return _own_strategy(annotation, value, where)
    if dataclasses.is_dataclass(annotation):
        if isinstance(value, annotation):  # type: ignore[arg-type]
            return value
        if not isinstance(value, Mapping):
            raise wrong
        return from_dict(annotation, value, where)  # type: ignore[arg-type]
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if annotation is float and is_number:
        # JSON of Python's makes Infinity, NaN and integers beyond all floats.
        if not -1e308 < value < 1e308:
            raise wrong
        return float(value)
    if annotation is int and is_number and isinstance(value, numbers.Integral):
        if abs(whole := int(value)) >= 1 << 64:
            raise wrong
        return whole
    if annotation in (int, str, bytes, bool, list, dict) and type(value) is annotation:
        return value
    raise wrong


def _is_protocol(annotation: Any) -> bool:
    return bool(getattr(annotation, "_is_protocol", False))


def _protocol_of(annotation: Any) -> Any:
    """The Protocol that a field's union ends with, if it does."""
    last = (typing.get_args(annotation) or (annotation,))[-1]
    if last is type(None):
        last = typing.get_args(annotation)[-2]
    return last if _is_protocol(last) else None


def _is_of_own_class(value: Any, annotation: Any) -> bool:
    """Whether a field holds an object of a class that the package does not know."""
    known = typing.get_args(annotation)
    return _protocol_of(annotation) is not None and type(value) not in known


def _own_strategy(protocol: Any, value: Any, where: str) -> Any:
    """A strategy of a user's own class: as it is, or named "module:Class", alone or
    under "kind" beside its fields. Its module must have been imported: a file that
    comes with a model must not be able to import one."""
    methods = ", ".join(sorted(m for m in vars(protocol) if not m.startswith("_")))
    given = value if isinstance(value, Mapping) else {"kind": value}
    kind = given.get("kind")
    if isinstance(kind, str):
        module, _, name = kind.partition(":")
        found: Any = getattr(sys.modules.get(module), name, None)
        if module not in sys.modules:
            raise InputError(
                f"{where} is of the class {kind!r}, and no module {module!r} is "
                "imported; import it first"
            )
        if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
            raise InputError(
                f"{where} names {kind!r}, and the module {module!r} has no dataclass "
                f"{name!r}; give module:Class"
            )
        fields = {field: v for field, v in given.items() if field != "kind"}
        value = from_dict(found, fields, where)
    try:
        hash(value)
        is_one = isinstance(value, protocol) and not isinstance(value, type)
    except TypeError:
        is_one = False
    if not is_one:
        raise InputError(
            f"{where} is {brief(value)}; it must be a frozen dataclass of seedjax or, "
            f"of your own, one with {methods}"
        )
    return value


def import_own_class(annotation: Any, value: Any) -> None:
    """Imports the module that "module:Class", given by hand for a field that takes any
    class with the methods of a Protocol, names; the current folder is searched last.

    Raises:
      InputError: if there is no such module, or it cannot be imported.
    """
    kind = value.get("kind") if isinstance(value, Mapping) else value
    if _protocol_of(annotation) is None or ":" not in (kind := str(kind)):
        return
    module = kind.partition(":")[0]
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        importlib.import_module(module)
    except Exception as error:
        raise InputError(
            f"{kind!r} names the module {module!r}, which cannot be imported "
            f"({type(error).__name__}: {error}); give module:Class of one that is "
            "installed or lies in the current folder"
        ) from error
    finally:
        sys.path.remove(folder)


def _describe(annotation: Any) -> str:
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Literal:
        return "one of " + ", ".join(repr(a) for a in arguments)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(_describe(a) for a in arguments)
    if annotation is type(None):
        return "null"
    return getattr(annotation, "__name__", str(annotation))


def override(config: ConfigT, assignments: Sequence[str]) -> ConfigT:
    """A copy of `config` with `"path.to.field=value"` applied in order, and checked
    when all are: fields that go together can be changed one by one.

    Values are JSON (`0.1`, `true`, `null`, `[3]`, `{"kind": "Cosine"}`); what is not
    JSON is taken as text.

    Raises:
      InputError: for an unknown field (naming the nearest one) or a value of the wrong
        type.
    """
    changes = parse_assignments(assignments)
    return _assign(config, changes, type(config).__name__) if changes else config


Change = tuple[list[str], Any]
"""A field, as the names on the way to it, and what it becomes."""


def parse_assignments(assignments: Sequence[str]) -> list[Change]:
    """Changes from `"path.to.field=value"`, in order; see `override`.

    Raises:
      InputError: for one without "=".
    """
    changes: list[Change] = []
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise InputError(f"{assignment!r} is not of the form path.to.field=value")
        try:
            value = parse_json(text, path)
        except InputError:
            value = text
        changes.append((path.strip().split("."), value))
    return changes


def merge_assignments(
    values: Mapping[str, Any], changes: Sequence[Change]
) -> dict[str, Any]:
    """The JSON values of a recipe, as `from_dict` takes them, after `changes`: what the
    user gives takes precedence over a value, which is then ignored.

    Example: `{"moe": {"scale": 1.0}}` after `moe.scale=2` is `{"moe": {"scale": 2}}`.
    """
    merged = dict(values)
    for (name, *rest), value in changes:
        if rest:
            inner = merged.get(name)
            inner = inner if isinstance(inner, Mapping) else {}
            value = merge_assignments(inner, [(rest, value)])
        merged[name] = value
    return merged


def _assign(config: Any, changes: Sequence[Change], where: str) -> Any:
    if not dataclasses.is_dataclass(config):
        raise InputError(
            f"{where} has no fields; {'.'.join(changes[0][0])!r} cannot be set in it"
        )
    names = [f.name for f in dataclasses.fields(config)]
    by_name: dict[str, list[Change]] = {}
    for (name, *rest), value in changes:
        check_field_name(name, names, where)
        by_name.setdefault(name, []).append((rest, value))
    annotations = typing.get_type_hints(type(config))
    new = {
        name: _change(getattr(config, name), annotations[name], its, f"{where}.{name}")
        for name, its in by_name.items()
    }
    return dataclasses.replace(config, **new)  # type: ignore[type-var]


def _change(old: Any, annotation: Any, changes: Sequence[Change], where: str) -> Any:
    """A field's value after changes of it or of fields within it."""
    inner: list[Change] = []
    for path, value in changes:
        if path:
            inner.append((path, value))
        else:  # replaces all that came before
            import_own_class(annotation, value)
            old, inner = coerce(annotation, value, where), []
    return _assign(old, inner, where) if inner else old
