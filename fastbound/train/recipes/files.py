"""Users' own recipes: classes in Python files, named ``path/to/file.py:Class``."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType

from fastbound.train.recipes.fields import check_declared
from fastbound.train.recipes.recipe import Recipe


class RecipeFileError(ValueError):
    """A recipe file is missing, does not load, has changed, or does not contain the named recipe."""


def names_file(method: str) -> bool:
    """Whether a method names a class in a file, not one of fastbound's own methods."""
    return method.endswith(".py") or ".py:" in method


def load_recipe(reference: str) -> type[Recipe]:
    """The recipe class that ``path/to/file.py:Class`` names; the code of the file is run.

    Its `method` becomes the reference with the absolute path, its `digest` the SHA-256 of the file.

    Raises RecipeFileError, whose message says what to write instead.
    """
    path_text, _, name = (reference, "", "") if reference.endswith(".py") else reference.rpartition(":")
    path = Path(path_text).resolve()
    if not path.is_file():
        raise RecipeFileError(f"method: {path_text}: there is no such file (wanted path/to/file.py:Class).")
    source = path.read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    module = _module(path, source, digest)
    found = _checked(getattr(module, name, None), name, path, module)
    found.method, found.digest = f"{path}:{name}", digest
    return found


def _module(path: Path, source: bytes, digest: str) -> ModuleType:
    """The file as a module. It is executed only once, so that a recipe has one class."""
    name = f"fastbound_recipe_{hashlib.sha256(f'{path} {digest}'.encode()).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    # The dataclass decorator looks up the module of its class.
    sys.modules[name] = module
    try:
        exec(compile(source, path, "exec"), module.__dict__)
    except Exception as problem:
        del sys.modules[name]
        raise RecipeFileError(
            f"method: {path} does not load ({_line(problem, path)}{type(problem).__name__}: {problem}). It is run as "
            "plain Python and may import whatever is installed."
        ) from problem
    return module


def _line(problem: Exception, path: Path) -> str:
    if isinstance(problem, SyntaxError):
        return ""  # its message names the line
    lines = [frame.lineno for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == str(path)]
    return f"line {lines[-1]}, " if lines else ""


def _checked(found: object, name: str, path: Path, module: ModuleType) -> type[Recipe]:
    """`found`, if it is a recipe that can be created with its defaults, overridden and saved."""
    classes = {key: value for key, value in vars(module).items() if isinstance(value, type)}
    own = [key for key, kind in classes.items() if issubclass(kind, Recipe) and kind.__module__ == module.__name__]
    if found is None:
        raise RecipeFileError(
            f"method: {path} has no class {name!r}; recipes in it: {', '.join(own) or 'none'} (wanted "
            "path/to/file.py:Class)."
        )
    if not (isinstance(found, type) and issubclass(found, Recipe)):
        raise RecipeFileError(
            f"method: {name} of {path} is no recipe; derive it from fastbound.train.recipes.Recipe or from one of its "
            "subclasses, such as IBPRecipe."
        )
    if found.__module__ != module.__name__:
        raise RecipeFileError(f"method: {name} of {path} is only imported there; recipes in it: {', '.join(own)}.")
    for kind in found.__mro__:
        if kind.__module__ == module.__name__:
            _check_fields(kind, path)
    try:
        check_declared(found)
        found()
    except (NameError, TypeError, ValueError) as problem:
        raise RecipeFileError(f"method: {name} of {path} cannot be made with its defaults: {problem}") from None
    return found


def _check_fields(kind: type, path: Path) -> None:
    """Raises RecipeFileError for a default that Python would silently ignore."""
    annotations = {name: str(value) for name, value in inspect.get_annotations(kind).items()}
    declared = {name for name, text in annotations.items() if "ClassVar" not in text}
    if declared and "__dataclass_fields__" not in vars(kind):
        raise RecipeFileError(
            f"method: {kind.__name__} of {path} declares {', '.join(sorted(declared))}; put "
            "@dataclass(frozen=True, kw_only=True) above the class."
        )
    fields = {entry.name: entry.type for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    bare = sorted(name for name in fields if name in vars(kind) and name not in annotations)
    if bare:
        name, declared_as = bare[0], fields[bare[0]]
        raise RecipeFileError(
            f"method: {kind.__name__} of {path} gives {name} a value without a type, which changes no default; write "
            f"{name}: {getattr(declared_as, '__name__', declared_as)} = ..."
        )
