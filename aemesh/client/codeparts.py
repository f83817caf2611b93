"""What a function is made of, as plain values: its code, and what it was made with.

Its code is what Python compiled, not the text of its file, which may have been edited
since: that has no comments and no line numbers, and a wrapper's is the wrapper's own.
Besides, there are its defaults, what it closes over, and the global values that it
reads.  Of what it calls by name, `helpers_of` finds what is in a user's own files.
"""

from __future__ import annotations

import dis
import functools
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import TYPE_CHECKING, Any

from aemesh.client.valueparts import is_data, is_found, is_own, is_own_class, named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_BUILTIN = (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    MethodDescriptorType,
    MethodWrapperType,
    WrapperDescriptorType,
)
_CODE = (FunctionType, MethodType, functools.partial, type, *_BUILTIN)
# What a class has that says nothing of what it does, or other things in each process.
_OF_NO_MATTER = {
    *("__dict__", "__weakref__", "__module__", "__qualname__", "__doc__"),
    *("__annotations__", "__firstlineno__", "__static_attributes__"),
    *("__dataclass_params__", "__dataclass_fields__"),
    *("__abstractmethods__", "_abc_impl", "__slotnames__"),
}
# By these names what is wrapped is found: of `functools`, of numba.
_WRAPPED = ("__wrapped__", "py_func")


def is_code(value: object) -> bool:
    """Whether it is a function, a class, or what wraps one."""
    return callable(value) and (isinstance(value, _CODE) or _wrapped(value) is not None)


def parts_of_code(function: Any) -> tuple[object, ...]:  # noqa: ANN401 - whatever is called
    """Return what a function, a class or another thing to call is made of."""
    if isinstance(function, functools.partial):
        given = (function.args, function.keywords, _shapes(vars(function)))
        return ("partial", *parts_of_code(function.func), *given)
    if isinstance(function, MethodType):
        return ("method", *parts_of_code(function.__func__), function.__self__)
    if isinstance(function, FunctionType):
        return _parts_of_function(function)
    if isinstance(function, type):
        return _parts_of_class(function)
    return _parts_of_object(function)


def helpers_of(function: object) -> list[tuple[object, ...]]:
    """Return the parts of all in a user's own files that it calls by name, each once.

    What those call by name is among them.
    """
    seen = {id(function)}
    found, waiting = [], [function]
    while waiting:
        for one in _within(waiting.pop(0)):
            if id(one) in seen:
                continue
            seen.add(id(one))
            waiting.append(one)
            if isinstance(one, FunctionType) and is_own(one.__globals__):
                found.append(_parts_of_function(one, of_helper=True))
            elif isinstance(one, type):
                found.append(_parts_of_class(one))
            elif isinstance(one, functools.partial):
                given = (one.args, one.keywords)
                found.append(("partial", *map(_shape, given)))
    return found


def _parts_of_function(
    function: FunctionType, *, of_helper: bool = False
) -> tuple[object, ...]:
    made_with: list[object] = [
        function.__defaults__,
        function.__kwdefaults__,
        function.__dict__.get("__wrapped__"),
        *(_content(cell) for cell in function.__closure__ or ()),
    ]
    if of_helper:  # it may have what cannot travel
        made_with = [_shape(one) for one in made_with]
    return (
        "function",
        function.__qualname__,
        _parts_of_compiled(function.__code__),
        made_with,
        _shapes(function.__dict__),
        _globals(function),
    )


def _parts_of_object(function: Any) -> tuple[object, ...]:  # noqa: ANN401 - whatever is called
    if isinstance(function, _BUILTIN):
        owner = getattr(function, "__self__", getattr(function, "__objclass__", None))
        return ("builtin", named(function), owner)
    wrapped = _wrapped(function)
    if wrapped is None:
        return ("object", *parts_of_code(type(function).__call__), function)
    if "py_func" in vars(function):  # numba has an id of the process beside it
        held: object = _shape(getattr(function, "targetoptions", None))
    else:
        held = _shapes(vars(function))
    return ("wraps", _parts_of_class(type(function)), wrapped, held)


def _parts_of_class(kind: type) -> tuple[object, ...]:
    if is_found(kind) and not is_own_class(kind):
        return ("named", named(kind))
    members = {
        name: [
            _parts_of_function(one, of_helper=True)
            for one in _functions(value)
            if isinstance(one, FunctionType)
        ]
        or _shape(value)
        for name, value in vars(kind).items()
        if name not in _OF_NO_MATTER
    }
    return ("class", named(kind), *map(_parts_of_class, kind.__bases__), members)


def _within(value: object) -> Iterator[object]:
    """Yield what code is in code: what it calls by name, closes over or wraps."""
    if isinstance(value, functools.partial):
        yield from _own((value.func, *value.args, *value.keywords.values()))
    elif isinstance(value, MethodType):
        yield from _own((value.__func__, type(value.__self__)))
    elif isinstance(value, FunctionType):
        if is_own(value.__globals__):
            scope = value.__globals__
            names = _names(value.__code__)
            yield from _own(scope[name] for name in names if name in scope)
        yield from _own(_content(cell) for cell in value.__closure__ or ())
        yield from _own((value.__dict__.get("__wrapped__"),))
    elif isinstance(value, type):
        members = [one for m in vars(value).values() for one in _functions(m)]
        yield from _own((*value.__bases__, *members))
    elif callable(value):
        held = getattr(value, "__dict__", {})
        yield from _own((type(value), *held.values()))


def _own(values: Iterable[object]) -> Iterator[object]:
    """Yield those that are code of a user's own files, also out of tables of such."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from (one for one in value if is_code(one) and _is_own_code(one))
        elif isinstance(value, dict):
            yield from _own((list(value.values()),))
        elif _is_own_code(value):
            yield value


def _is_own_code(value: object) -> bool:
    if isinstance(value, FunctionType):
        return is_own(value.__globals__)
    if isinstance(value, type):
        return is_own_class(value)
    if isinstance(value, (*_BUILTIN, ModuleType)):
        return False
    if isinstance(value, MethodType | functools.partial):
        return True
    return callable(value) and (
        _wrapped(value) is not None or is_own_class(type(value))
    )


def _functions(member: object) -> Iterator[object]:
    """Yield the functions of what stands in a class."""
    if isinstance(member, staticmethod | classmethod):
        yield member.__func__
    elif isinstance(member, property):
        yield from (one for one in (member.fget, member.fset, member.fdel) if one)
    elif isinstance(member, functools.cached_property):
        yield member.func
    elif is_code(member):
        yield member


def _wrapped(function: object) -> Callable[..., object] | None:
    """Return what a decorator's object wraps."""
    held = getattr(function, "__dict__", None)
    if isinstance(held, dict):
        for name in _WRAPPED:
            if callable(held.get(name)):
                wrapped: Callable[..., object] = held[name]
                return wrapped
    return None


def _globals(function: FunctionType) -> dict[str, object]:
    """Return the global values that it reads, if it is of a user's own file."""
    scope = function.__globals__
    if not is_own(scope):
        return {}
    return _shapes({n: scope[n] for n in _names(function.__code__) if n in scope})


def _shapes(values: Mapping[str, object]) -> dict[str, object]:
    return {name: _shape(value) for name, value in values.items()}


def _shape(value: object) -> object:
    """Return data as it is, and of all else what it is called."""
    if isinstance(value, ModuleType) or is_data(value):
        return value
    if isinstance(value, _BUILTIN):
        owner = getattr(value, "__self__", None)
        return ("builtin", named(value), owner if is_data(owner) else None)
    return named(value if callable(value) else type(value))


def _names(code: CodeType) -> dict[str, None]:
    """Return the global names that code reads, in their order."""
    names = {
        step.argval: None
        for step in dis.get_instructions(code)
        if "GLOBAL" in step.opname or step.opname == "LOAD_NAME"
    }
    for value in code.co_consts:
        if isinstance(value, CodeType):
            names |= _names(value)
    return names


def _content(cell: Any) -> object:  # noqa: ANN401 - a cell has no public type
    try:
        return cell.cell_contents
    except ValueError:  # it is not filled yet: the function's own name
        return None


def _parts_of_compiled(code: CodeType) -> tuple[object, ...]:
    constants = [
        _parts_of_compiled(value) if isinstance(value, CodeType) else value
        for value in code.co_consts
    ]
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    return (code.co_code, code.co_exceptiontable, constants, *names, counts)
