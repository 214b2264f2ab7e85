"""Linear functions, whose rules serve every domain of streams; importing a module registers its rules."""

from fastbound.domains.linear import arithmetic, dropout, layers, pooling, shapes

__all__ = ["arithmetic", "dropout", "layers", "pooling", "shapes"]
