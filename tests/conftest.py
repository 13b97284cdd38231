"""Test environment: eight fake CPU devices, JAX's own strictness, shapes checked.

The environment variables must be set before JAX starts, hence the order of this file.
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# Every annotated function of seedjax is checked while it is traced.
install_import_hook("seedjax", "beartype.beartype")

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
