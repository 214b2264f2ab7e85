"""Everything that users choose by name, one line each; the command line lists the names without loading torch.

A line says where the object is defined; that module documents what it means and what it can be combined with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastbound.on_demand import Table

# Methods of bounding; `fastbound.methods` adds the relaxations.
BOUNDS = ("ibp", "crown-ibp", "crown")

# Norms of the balls that `fastbound.certify` knows.
BALLS: Table[Any] = Table({"linf": "fastbound.certify.balls:LinfBall", "l2": "fastbound.certify.balls:L2Ball"})

# Data sets: functions that read a folder, except digits, which ships with the package.
DATASETS: Table[Callable[..., Any]] = Table(
    {
        "cifar10": "fastbound.data.cifar:cifar10",
        "digits": "fastbound.data.digits:digits",
        "fashion-mnist": "fastbound.data.idx:fashion_mnist",
        "mnist": "fastbound.data.idx:mnist",
        "tiny-imagenet": "fastbound.data.tiny_imagenet:tiny_imagenet",
    }
)

# Networks: functions that return the layers for an input shape and a number of classes.
NETWORKS: Table[Callable[..., Any]] = Table(
    {
        "cnn7": "fastbound.models:cnn7",
        "dm-large": "fastbound.models:dm_large",
        "dm-medium": "fastbound.models:dm_medium",
        "dm-small": "fastbound.models:dm_small",
        "gloro-2c2f": "fastbound.models:gloro_2c2f",
        "gloro-4c3f": "fastbound.models:gloro_4c3f",
        "gloro-6c2f": "fastbound.models:gloro_6c2f",
        "gloro-tin": "fastbound.models:gloro_tin",
        "mlp": "fastbound.models:mlp",
        "paradox-conv": "fastbound.models:paradox_conv",
        "paradox-fc": "fastbound.models:paradox_fc",
        "resnext": "fastbound.models:resnext",
        "wide-cnn": "fastbound.models:wide_cnn",
        "wide-resnet": "fastbound.models:wide_resnet",
    }
)

# Training methods: recipes.
METHODS: Table[Any] = Table(
    {
        "natural": "fastbound.train.recipes.natural:NaturalRecipe",
        "ibp": "fastbound.train.recipes.ibp:IBPRecipe",
        "short-warmup": "fastbound.train.recipes.short_warmup:ShortWarmupRecipe",
        "crown-ibp": "fastbound.train.recipes.crown_ibp:CrownIBPRecipe",
        "singleprop": "fastbound.train.recipes.singleprop:SinglePropRecipe",
        "singleprop-adaptive": "fastbound.train.recipes.singleprop:AdaptiveSinglePropRecipe",
        "sabr": "fastbound.train.recipes.sabr:SABRRecipe",
        "mtl-ibp": "fastbound.train.recipes.expressive:MTLIBPRecipe",
        "cc-ibp": "fastbound.train.recipes.expressive:CCIBPRecipe",
        "exp-ibp": "fastbound.train.recipes.expressive:ExpIBPRecipe",
        "gloro": "fastbound.train.recipes.gloro:GloRoRecipe",
        "pgd": "fastbound.train.recipes.pgd:PGDRecipe",
        "relaxation": "fastbound.train.recipes.relaxation:RelaxationRecipe",
    }
)
INITIALISATIONS: Table[Callable[..., None]] = Table(
    {
        "default": "fastbound.train.initialisation:default",
        "orthogonal": "fastbound.train.initialisation:orthogonal",
        "lecun-normal": "fastbound.train.initialisation:lecun_normal",
        "ibp": "fastbound.train.initialisation:ibp",
        "glorot": "fastbound.train.initialisation:glorot",
    }
)
EPS_SCHEDULES: Table[Callable[..., float]] = Table(
    {
        "linear": "fastbound.train.schedules:linear_eps",
        "smoothed": "fastbound.train.schedules:smoothed_eps",
        "log": "fastbound.train.schedules:log_eps",
    }
)
# Precisions of products in training; "default" follows torch's own flags.
PRECISIONS = ("default", "ieee", "tf32", "bf16")
# Whether steps are recorded as CUDA graphs.
CUDA_GRAPH = ("auto", "on", "off")

# The relaxations that a study compares by default.
COMPARED = ("box", "hbox", "deepz", "crown-ibp-r", "crown")

# The measurements of `fastbound.benchmark`: steps, on networks given as (network, input shape, batch, options).
STEPS: Table[Callable[..., None]] = Table(
    {
        "natural": "fastbound.benchmark:natural_step",
        "ibp": "fastbound.benchmark:ibp_step",
        "ibp-bf16": "fastbound.benchmark:ibp_bf16_step",
        "short-warmup": "fastbound.benchmark:short_warmup_step",
        "singleprop": "fastbound.benchmark:singleprop_step",
        "crown-ibp": "fastbound.benchmark:crown_ibp_step",
        "crown-ibp-fused": "fastbound.benchmark:fused_step",
    }
)
MEASURED: dict[str, tuple[str, tuple[int, ...], int, dict[str, Any]]] = {
    "mlp": ("mlp", (1, 28, 28), 128, {}),
    "dm-small": ("dm-small", (1, 28, 28), 128, {}),
    "dm-small-norm": ("dm-small", (1, 28, 28), 128, {"norm": True}),
    "cnn7-width16": ("cnn7", (3, 32, 32), 32, {"width": 16}),
    "cnn7-width64": ("cnn7", (3, 32, 32), 16, {"width": 64}),
}
