"""The settings of one run: resolved once from what the user gave, written into config.json, read back by --resume."""

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
    """Everything that decides the numbers of a run. `limit` and `test_limit`: the first images only."""

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
        """As JSON takes it; `from_data` reads it back."""
        return {**asdict(self), "norm": self.recipe.norm, "recipe": recipes.as_data(self.recipe)}

    @staticmethod
    def from_data(content: Mapping[str, object]) -> Settings:
        values = dict(content)
        values.pop("norm", None)  # the recipe's, for readers that do not have its code
        recipe = recipes.from_data(values.pop("recipe"))  # type: ignore[arg-type]
        return Settings(recipe=recipe, **values)  # type: ignore[arg-type]

    def model_entry(self, data: DataSet) -> dict[str, object]:
        """What `runs.build_model` rebuilds the network from."""
        return {
            "name": self.model,
            "options": self.model_options,
            "input_shape": list(data.input_shape),
            "num_classes": data.num_classes,
            "mean": data.mean if self.recipe.normalize else None,
            "std": data.std if self.recipe.normalize else None,
        }


def read_settings(folder: RunFolder) -> Settings:
    """The settings in the config.json of a run; raises RunError where they are damaged, RecipeFileError where the file
    of its recipe is gone or has changed."""
    with _named(folder) as content:
        return Settings.from_data(content["settings"])


@dataclass(frozen=True)
class Trained:
    """What a certification reads of a run. The code of the recipe is not among it, so its file may be gone."""

    dataset: str
    data_dir: str | None
    model: str
    method: str
    norm: str
    eps: float


def read_trained(folder: RunFolder) -> Trained:
    """What is certified, from the config.json of a run; raises RunError where it is damaged."""
    with _named(folder) as content:
        saved = content["settings"]
        method, norm = saved["recipe"]["method"], saved.get("norm", "linf")
        return Trained(saved["dataset"], saved["data_dir"], saved["model"], method, norm, saved["eps"])


@contextmanager
def _named(folder: RunFolder) -> Iterator[dict]:
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

# What a resumed run may be given anew: where it runs.
MAY_CHANGE = ("data_dir", "device", "cuda_graph")


def dataset_name(given: Mapping[str, object]) -> str:
    """The data set that the options ask for; a configuration names one, and "digits" needs no file."""
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
    # What the data set says is written down too, so that the file tells the whole run.
    full = _augmentation(chosen.recipe, data.augmentation)
    return replace(chosen, recipe=replace(chosen.recipe, flip=full.flip, crop=full.crop, crop_mode=full.mode))


def _augmentation(recipe: Recipe, default: Augmentation) -> Augmentation:
    """``default`` with what the recipe says otherwise."""
    said = {"flip": recipe.flip, "crop": recipe.crop, "mode": recipe.crop_mode}
    return replace(default, **{name: value for name, value in said.items() if value is not None})  # type: ignore[arg-type]


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
    """Raises ValueError where an option differs from the run that is resumed: it would not be the same run."""
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
