"""How this project's GPU kernels are compiled, whatever Triton's defaults are."""

# Products and sums in one rounding: Triton does so by default until 3.9, which warns of another
# default to come.
OPTIONS = {"enable_fp_fusion": True}
