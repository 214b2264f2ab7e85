"""`singleprop_norm_relu`: the names of the radii that SingleProp can assume around unstable neurons."""

VARIANTS = ("zero", "fast-lin")
