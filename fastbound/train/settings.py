"""The settings of one run: resolved once from the user's options, written to config.json, read back by --resume."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from fastbound import models
from fastbound.data import Augmentation, DataSet
from fastbound.train import recipes
from fastbound.train.configs import Config, find_config
from fastbound.train.recipes import Recipe, RecipeFileError
from fastbound.train.runs import RunError, RunFolder


@dataclass(frozen=True)
class Settings:
    """Everything that determines the numbers of a run. `limit` and `test_limit`: the first images only."""

    dataset: str
    data_dir: str | None
    model: str
    model_options: dict[str, object]
    eps: float
    recipe: Recipe
    config: str | None = None
    seed: int = 0
    device: str = "auto"
    limit: int | None = None
    test_limit: int | None = None
    cuda_graph: str = "auto"
    precision: str = "default"
    pgd_steps: int = 20
    pgd_restarts: int = 1

    @property
    def augmentation(self) -> Augmentation:
        """The augmentation of a resolved run."""
        return _augmentation(self.recipe, Augmentation())

    def as_data(self) -> dict[str, object]:
        """The settings as JSON-compatible data; `from_data` reads it back."""
        return {**asdict(self), "norm": self.recipe.norm, "recipe": recipes.as_data(self.recipe)}

    @staticmethod
    def from_data(content: Mapping[str, object]) -> Settings:
        values = dict(content)
        values.pop("norm", None)  # a copy from the recipe, for readers without its code
        recipe = recipes.from_data(values.pop("recipe"))  # type: ignore[arg-type]
        return Settings(recipe=recipe, **values)  # type: ignore[arg-type]

    def model_entry(self, data: DataSet) -> dict[str, object]:
        """The entry of config.json from which `runs.build_model` rebuilds the network."""
        return {
            "name": self.model,
            "options": self.model_options,
            "input_shape": list(data.input_shape),
            "num_classes": data.num_classes,
            "mean": data.mean if self.recipe.normalize else None,
            "std": data.std if self.recipe.normalize else None,
        }


def read_settings(folder: RunFolder) -> Settings:
    """The settings in the config.json of a run. Raises RunError if they are damaged, RecipeFileError if the file of its
    recipe is gone or has changed."""
    with _config_of(folder) as content:
        return Settings.from_data(content["settings"])


@dataclass(frozen=True)
class Trained:
    """The settings of a run that a certification needs. They can be read without the code of the recipe."""

    dataset: str
    data_dir: str | None
    model: str
    method: str
    norm: str
    eps: float


def read_trained(folder: RunFolder) -> Trained:
    """The settings for a certification, from the config.json of a run; raises RunError if they are damaged."""
    with _config_of(folder) as content:
        saved = content["settings"]
        method, norm = saved["recipe"]["method"], saved.get("norm", "linf")
        return Trained(saved["dataset"], saved["data_dir"], saved["model"], method, norm, saved["eps"])


@contextmanager
def _config_of(folder: RunFolder) -> Iterator[dict]:
    """The content of config.json; errors of the caller in reading it become a RunError that names the file."""
    content = folder.read_config()
    try:
        yield content
    except RecipeFileError:
        raise
    except (KeyError, TypeError, ValueError) as problem:
        raise RunError(
            f"{folder.config}: the settings of the run are damaged ({type(problem).__name__}: {problem})."
        ) from None


RUN_OPTIONS = (
    "data_dir",
    "seed",
    "device",
    "cuda_graph",
    "precision",
    "limit",
    "test_limit",
    "pgd_steps",
    "pgd_restarts",
)

# The options that a resumed run may change: where it runs.
MAY_CHANGE = ("data_dir", "device", "cuda_graph")


def dataset_name(given: Mapping[str, object]) -> str:
    """The data set of the options, else that of the configuration, else "digits", which needs no file."""
    named = find_config(str(given["config"])).dataset if "config" in given else "digits"
    return str(given.get("dataset", named))


def resolve(given: Mapping[str, object], overrides: Mapping[str, object], data: DataSet) -> Settings:
    """The settings of a new run.

    Args:
        given: the options of the run that the user gave: method, config, dataset, data_dir, model, model_options, eps,
            seed, ...
        overrides: fields of the recipe that the user gave.
        data: the data set named by `dataset_name(given)`.

    Raises:
        ValueError: names the option, what was wanted and what came.
    """
    config = find_config(str(given["config"])) if "config" in given else None
    recipe = _recipe(given, config)
    eps = _radius(given.get("eps", config.eps if config else data.default_eps))
    if recipe.method != "natural" and eps == 0:
        raise ValueError("eps: certified training needs a radius greater than 0; --method natural trains without one.")
    named = config.model if config else models.default_network(data.input_shape)
    model = str(given.get("model", named))
    options = dict(config.model_options) if config and model == config.model else {}
    chosen = Settings(
        dataset=data.name,
        model=model,
        model_options=options | dict(given.get("model_options", {})),  # type: ignore[call-overload]
        eps=eps,
        recipe=recipes.resolve(recipe, eps, overrides),
        config=None if config is None else str(given["config"]),
        **{"data_dir": None, **{name: given[name] for name in RUN_OPTIONS if name in given}},  # type: ignore[arg-type]
    )
    _warn_of_small_radius(chosen)
    # The augmentation of the data set is recorded too, so that config.json describes the whole run.
    full = _augmentation(chosen.recipe, data.augmentation)
    return replace(chosen, recipe=replace(chosen.recipe, flip=full.flip, crop=full.crop, crop_mode=full.mode))


def _augmentation(recipe: Recipe, default: Augmentation) -> Augmentation:
    """``default``, overridden by the recipe."""
    given = {"flip": recipe.flip, "crop": recipe.crop, "mode": recipe.crop_mode}
    return replace(default, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def _warn_of_small_radius(chosen: Settings) -> None:
    trained = getattr(chosen.recipe, "eps_train", None)
    if trained is not None and trained < chosen.eps:
        warnings.warn(
            f"eps_train: the run trains up to eps {trained:.4g} and is certified at the larger {chosen.eps:.4g}; "
            "--eps-train changes the first.",
            stacklevel=2,
        )


def _recipe(given: Mapping[str, object], config: Config | None) -> Recipe:
    if config is None:
        return recipes.find_method(str(given.get("method", "ibp")))()
    if given.get("method", config.recipe.method) != config.recipe.method:
        raise ValueError(
            f"method: the configuration {given['config']} trains with {config.recipe.method}, not {given['method']}."
        )
    return config.recipe


def _radius(eps: object) -> float:
    value = float(eps)  # type: ignore[arg-type]
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"eps: wanted a finite radius of at least 0, got {eps}.")
    return value


def check_unchanged(saved: Settings, given: Mapping[str, object], overrides: Mapping[str, object], where: str) -> None:
    """Raises ValueError if an option differs from that of the run that is resumed."""
    before = {**saved.as_data(), "method": saved.recipe.method}
    if "method" in given:
        given = {**given, "method": recipes.find_method(str(given["method"])).method}
    pairs = [(name, before.get(name), value) for name, value in given.items() if name not in MAY_CHANGE]
    pairs += [(name, getattr(saved.recipe, name, None), value) for name, value in overrides.items()]
    changed = [f"{name}: {old} in the run, {new} now" for name, old, new in pairs if _plain(old) != _plain(new)]
    if changed:
        raise ValueError(
            f"resume: {where} was started with other options ({'; '.join(changed)}); leave them out, or start a new "
            "run."
        )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
