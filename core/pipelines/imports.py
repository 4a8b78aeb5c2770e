"""Imports DiffSynth's Wan pipeline without loading what it names but a job does not use.

Stock, `import diffsynth.pipelines.wan_video` takes about as long as three `import torch`: it brings
in transformers, torchvision, pandas, modelscope, accelerate, and, through one `torch.compile` and
six `torch._dynamo.disable` at import time, all of Dynamo and Inductor.

    with deferred():  import diffsynth...      heavy names become stand-ins
    first use of a stand-in                    imports the real thing and uses it from then on

Nothing is taken away and no DiffSynth code is changed: a stand-in is called, asked for
attributes, subclassed or tested with isinstance like the real object. Dynamo's marks are put on
the moment Dynamo is loaded, before anything can be compiled. Stand-ins are never left in
`sys.modules`, so other imports see the real modules.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

import torch

log = logging.getLogger(__name__)

_DYNAMO: Final = "torch._dynamo"
# The modules that DiffSynth imports names from, and whose import is heavy.
_HEAVY: Final = frozenset(
    {
        "accelerate",
        "huggingface_hub",
        "modelscope",
        "pandas",
        "torch.nn.attention.flex_attention",
        "torchvision",
        "torchvision.transforms",
        "transformers",
        "transformers.integrations",
        "transformers.utils",
    }
)
# What loading weights uses; torch itself imports Dynamo for the first random tensor on "meta".
_NEEDED: Final = (
    (_DYNAMO, "disable"),
    ("transformers.integrations", "is_deepspeed_zero3_enabled"),
    ("transformers.utils", "ContextManagers"),
    ("transformers", "AutoTokenizer"),
)
# One at a time: two threads that import parts of one package may see it half made.
_loading: Final = threading.RLock()


@contextmanager
def deferred() -> Iterator[None]:
    """While it lasts, importing a heavy module gives a stand-in; for DiffSynth's import only."""
    finder = _StandInFinder()
    dynamo = None if _DYNAMO in sys.modules else _DynamoLater()
    sys.meta_path.insert(0, finder)
    if dynamo:
        dynamo.install()
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in _HEAVY:
            _forget(name)
        if dynamo:
            dynamo.settle()


def warm() -> None:
    """Import what the first job needs; again at no cost, and waiting for who does it already.

    For a thread beside an idle engine, and for whoever loads weights before that is through.
    """
    with _loading:
        for module, name in _NEEDED:
            _load(module, name)


def _load(module: str, name: str) -> Any:
    with _loading:
        return getattr(importlib.import_module(module), name)


class Deferred:
    """Stands for one object of a module and becomes it on first use."""

    def __init__(self, load: Callable[[], Any], shown: str) -> None:
        self.__dict__["_real"] = functools.cache(load)
        self.__dict__["_shown"] = shown

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the real object."""
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """An attribute of the real object."""
        return getattr(self._real(), name)

    def __instancecheck__(self, instance: object) -> bool:
        """As isinstance with the real class."""
        return isinstance(instance, self._real())

    def __subclasscheck__(self, subclass: type) -> bool:
        """As issubclass with the real class."""
        return issubclass(subclass, self._real())

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        """The real class takes the stand-in's place as a base."""
        return (self._real(),)

    def __repr__(self) -> str:
        return f"<{self._shown}, loaded on first use>"


class _StandIn(ModuleType):
    """Stands for a module: hands out stand-ins during the import, real attributes after it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        module = self.__name__
        if sys.modules.get(module) is self:
            return Deferred(lambda: _load(module, name), f"{module}.{name}")
        return _load(module, name)


class _StandInFinder(MetaPathFinder, Loader):
    """Finds a stand-in for each heavy module that is not loaded yet."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname in _HEAVY else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run: the stand-in fills itself on use."""


def _forget(name: str) -> None:
    """Take a stand-in out of sys.modules and out of its parent package."""
    if isinstance(sys.modules.get(name), _StandIn):
        stand_in = sys.modules.pop(name)
        parent, _, child = name.rpartition(".")
        if vars(sys.modules.get(parent, stand_in)).get(child) is stand_in:
            delattr(sys.modules[parent], child)


class _DynamoLater(MetaPathFinder):
    """Puts off what an import asks of Dynamo until Dynamo is loaded by somebody who compiles.

    Before that nothing can be compiled, so a function that shall not be compiled is as it is.
    """

    def __init__(self) -> None:
        self._compile = torch.compile
        self._marked: list[Callable[..., Any]] = []
        self._places: list[tuple[type, str, Callable[..., Any]]] = []
        self._before = frozenset(sys.modules)

    def install(self) -> None:
        """Take the places of torch.compile and torch._dynamo."""
        torch.compile = self._compile_later
        vars(torch)["_dynamo"] = _DynamoStandIn(self._marked)

    def settle(self) -> None:
        """Give the places back, and wait for Dynamo where something was put off."""
        torch.compile = self._compile
        if isinstance(vars(torch).get("_dynamo"), _DynamoStandIn):
            del vars(torch)["_dynamo"]
        self._places = list(self._find_places())
        if len(self._places) < len(self._marked):
            missed = len(self._marked) - len(self._places)
            log.warning("%d functions can be compiled that should not", missed)
        if _DYNAMO in sys.modules:
            self.apply()
        elif self._places:
            sys.meta_path.insert(0, self)

    def apply(self) -> None:
        """Mark the functions now that Dynamo is there."""
        disable = sys.modules[_DYNAMO].disable
        for owner, name, function in self._places:
            setattr(owner, name, disable(function))

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Let Dynamo be imported as ever, then apply."""
        if fullname != _DYNAMO:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        loader: Any = spec and spec.loader
        run = loader.exec_module

        def run_then_apply(module: ModuleType) -> None:
            run(module)
            self.apply()

        loader.exec_module = run_then_apply
        return spec

    def _compile_later(self, model: Any = None, **options: Any) -> Any:
        if model is None:
            return lambda function: self._compile_later(function, **options)
        name = getattr(model, "__name__", "function") if not isinstance(model, Deferred) else model
        return Deferred(lambda: self._compile(_resolved(model), **options), f"compiled {name}")

    def _find_places(self) -> Iterator[tuple[type, str, Callable[..., Any]]]:
        marked = {id(function) for function in self._marked}
        for name in set(sys.modules) - self._before:
            for owner in list(vars(sys.modules[name]).values()):
                if isinstance(owner, type) and owner.__module__ == name:
                    for attribute, value in list(vars(owner).items()):
                        if id(value) in marked:
                            yield owner, attribute, value


class _DynamoStandIn:
    """`torch._dynamo` during the import: notes what shall not be compiled."""

    def __init__(self, marked: list[Callable[..., Any]]) -> None:
        self._marked = marked

    def disable(self, function: Any = None, *args: Any, **options: Any) -> Any:
        """Note the function and leave it as it is; unusual uses go to the real one."""
        if not callable(function) or args or options:
            return self.__getattr__("disable")(function, *args, **options)
        self._marked.append(function)
        return function

    def __getattr__(self, name: str) -> Any:
        vars(torch).pop("_dynamo", None)
        return getattr(importlib.import_module(_DYNAMO), name)


def _resolved(value: Any) -> Any:
    return value._real() if isinstance(value, Deferred) else value
