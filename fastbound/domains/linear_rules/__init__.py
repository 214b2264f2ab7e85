"""Linear functions, whose rules serve every domain of streams; importing a module registers its rules."""

from fastbound.domains.linear_rules import affine, arithmetic, dropout, pooling, shapes

__all__ = ["affine", "arithmetic", "dropout", "pooling", "shapes"]
