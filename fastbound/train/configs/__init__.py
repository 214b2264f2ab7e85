"""Published configurations by name (``--config``): data, network, radius and recipe as their authors released them.

One file per family of methods; `CONFIGS` lists them all.
"""

from fastbound.train.configs import crown_ibp, expressive, gloro, ibp, sabr, short_warmup, singleprop
from fastbound.train.configs.config import Config as Config

CONFIGS: dict[str, Config] = {
    **crown_ibp.CONFIGS,
    **ibp.CONFIGS,
    **short_warmup.CONFIGS,
    **singleprop.CONFIGS,
    **sabr.CONFIGS,
    **expressive.CONFIGS,
    **gloro.CONFIGS,
}


def find_config(name: str) -> Config:
    """The published configuration `name`; ValueError lists the known ones."""
    if name not in CONFIGS:
        raise ValueError(f"config: there is no published configuration {name!r}; known: {', '.join(CONFIGS)}.")
    return CONFIGS[name]
