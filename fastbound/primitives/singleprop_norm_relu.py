"""`singleprop_norm_relu`: the radii that SingleProp may assume around unstable neurons."""

VARIANTS = ("zero", "fast-lin")
