"""The transformer block in Flax Linen. Nothing outside `seedjax.nn` sees Linen.

Kernels are stored [out, in]: the layout of the published PyTorch checkpoints, and the
one that is read fastest for the few rows of a decoding step.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from seedjax.config import DenoiserConfig, DType
from seedjax.nn.adapted import Adapted
from seedjax.nn.attention import Keys, attend
from seedjax.nn.cache import LayerEntries
from seedjax.nn.copies import CopiesVisibility, attend_copies
from seedjax.nn.masks import Visibility
from seedjax.nn.moe import ExpertKernels, Routing, mix_experts, route
from seedjax.nn.precision import product
from seedjax.nn.quantize import Quantized
from seedjax.nn.rotary import Rotation, rotate
from seedjax.sharding import LogicalAxes, constrain, of_activation
from seedjax.typing import Array, Bool, Float


def parameter(
    module: Any,
    name: str,
    initializer: Callable,
    shape: tuple[int, ...],
    *,
    axes: LogicalAxes,
    dtype: DType | None = None,
) -> Any:
    """A parameter of `module`, in its `param_dtype` unless a `dtype` is given, with
    logical axis names for `sharding`; Linen boxes it while initializing only. It is an
    array, or a `Quantized` of that shape where the model was quantized."""
    boxed = nn.with_logical_partitioning(initializer, axes)
    return module.param(name, boxed, shape, dtype or module.config.param_dtype)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis (arXiv 1910.07467), in
    float32."""

    config: DenoiserConfig

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        scale = parameter(
            self, "scale", nn.initializers.ones, x.shape[-1:], axes=("norm",)
        )
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        normed = wide * jax.lax.rsqrt(mean_square + self.config.norm_eps)
        scale = jnp.expand_dims(scale.astype(jnp.float32), tuple(range(x.ndim - 1)))
        return (normed * scale).astype(x.dtype)


class Projection(nn.Module):
    """A linear map with a kernel of shape [out, in]."""

    config: DenoiserConfig
    features: int  # out
    axes: tuple[str, str]  # logical axes of (out, in)
    use_bias: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L I"], drafted: Bool[Array, "B L"]
    ) -> Float[Array, "B L O"]:
        kernel = parameter(
            self,
            "kernel",
            nn.initializers.normal(self.config.init_scale),
            (self.features, x.shape[-1]),
            axes=self.axes,
        )
        adapted = kernel if isinstance(kernel, Adapted) else None
        if adapted is not None:
            kernel = adapted.kernel
            if not isinstance(kernel, Quantized):
                # One gather for a product and its gradient, which would be two.
                gathered = tuple(map(of_activation, self.axes))
                kernel = constrain(kernel, gathered)  # type: ignore[arg-type]
        y = product("bli,oi->blo", x, kernel, self.config.dtype, self.axes)
        if adapted is not None:
            # Small enough to be gathered; XLA would lay the rows out anew instead.
            out, width = map(of_activation, self.axes)
            down = constrain(adapted.down, ("rank", width))
            up = constrain(adapted.up, (out, "rank"))
            low = product("bli,ri->blr", x, down, self.config.dtype)
            low = constrain(low, ("batch", "length", "rank"))
            if adapted.gated:
                low = jnp.where(drafted[:, :, None], low, 0.0)
            y = y + product("blr,or->blo", low, up, self.config.dtype)
        if self.use_bias:
            bias = parameter(
                self,
                "bias",
                nn.initializers.zeros,
                (self.features,),
                axes=self.axes[:1],
            )
            y = y + bias.astype(y.dtype)[None, None, :]
        return y.astype(self.config.activation_dtype)


class Attention(nn.Module):
    """Grouped-query self-attention over the tokens of this pass and, if given, a
    cache."""

    config: DenoiserConfig
    noisy_only: bool = False  # of two copies, only the noisy one has queries

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        rotation: Rotation,
        visibility: Visibility | CopiesVisibility,
        cached: LayerEntries | None,
        cached_visibility: Visibility | None,
    ) -> tuple[Float[Array, "B A D"], LayerEntries]:
        """Returns the output and the keys and values of this pass."""
        config = self.config
        both = queried = x, rotation, visibility.query.noisy
        if self.noisy_only:
            assert isinstance(visibility, CopiesVisibility)
            copies = visibility.copies
            queried = jax.tree.map(lambda x: copies.split(x)[1], both)

        def heads(name: str, count: int, given: tuple[Any, ...] = both) -> Array:
            x, _, drafted = given
            batch, length, _ = x.shape
            y = Projection(
                config,
                count * config.head_dim,
                ("heads", "embed"),
                use_bias=config.attention_bias,
                name=name,
            )(x, drafted)
            y = y.reshape(batch, length, count, config.head_dim)
            y = constrain(y, ("batch", "length", "heads", "head_dim"))
            # As the cache keeps them: what a head holds lies together. To turn queries
            # and keys in this layout takes less than half the time on CPU.
            return y.swapaxes(1, 2)

        queries = heads("query", config.num_heads, queried)
        keys = heads("key", config.num_kv_heads)
        values = heads("value", config.num_kv_heads)
        if config.qk_norm:
            queries = RMSNorm(config, name="query_norm")(queries)
            keys = RMSNorm(config, name="key_norm")(keys)
        queries, keys = rotate(queries, queried[1]), rotate(keys, rotation)

        compute = functools.partial(
            attend, dtype=config.dtype, backend=config.attention_backend
        )
        if isinstance(visibility, CopiesVisibility):
            mixed = attend_copies(compute, queries, keys, values, visibility)
        else:
            runs = [Keys(keys, values, visibility)]
            if cached is not None:
                assert cached_visibility is not None
                runs.insert(0, Keys(*cached, cached_visibility))
            mixed = compute(queries, tuple(runs))
        mixed = mixed.swapaxes(1, 2)
        mixed = mixed.reshape(*mixed.shape[:2], config.num_heads * config.head_dim)
        output = Projection(config, x.shape[-1], ("embed", "heads"), name="output")(
            mixed.astype(config.activation_dtype), queried[2]
        )
        return output, (keys, values)


class FeedForward(nn.Module):
    """SwiGLU (arXiv 2002.05202): `down(silu(gate(x)) * up(x))`."""

    config: DenoiserConfig
    size: int  # F

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], drafted: Bool[Array, "B L"]
    ) -> Float[Array, "B L D"]:
        config = self.config
        gate = Projection(config, self.size, ("mlp", "embed"), name="gate")(x, drafted)
        up = Projection(config, self.size, ("mlp", "embed"), name="up")(x, drafted)
        hidden = constrain(jax.nn.silu(gate) * up, ("batch", "length", "mlp"))
        down = Projection(config, x.shape[-1], ("embed", "mlp"), name="down")
        return down(hidden, drafted)


class Router(nn.Module):
    """Sends each token to its experts. Parameters, product and scores are float32
    whatever the config says: a rounded score would select another expert."""

    config: DenoiserConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Routing:
        moe = self.config.moe
        assert moe is not None
        kernel = parameter(
            self,
            "kernel",
            nn.initializers.normal(self.config.init_scale),
            (moe.num_experts, x.shape[-1]),
            axes=("router", "embed"),
            dtype="float32",
        )
        bias = None
        if moe.expert_bias:
            bias = parameter(
                self,
                "bias",
                nn.initializers.zeros,
                (moe.num_experts,),
                axes=("router",),
                dtype="float32",
            ).astype(jnp.float32)
        logits = product("bld,ed->ble", x, kernel, "float32")
        return route(constrain(logits, ("batch", "length", "router")), bias, moe)


class Experts(nn.Module):
    """The SwiGLU experts of a mixture, their kernels stacked."""

    config: DenoiserConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], routing: Routing
    ) -> Float[Array, "B L D"]:
        config, moe = self.config, self.config.moe
        assert moe is not None

        def kernels(
            name: str, out: int, width: int, axes: LogicalAxes
        ) -> Array | Quantized:
            return parameter(
                self,
                name,
                nn.initializers.normal(config.init_scale),
                (moe.num_experts, out, width),
                axes=("expert", *axes),
            )

        stacked = ExpertKernels(
            gate=kernels("gate", moe.expert_size, x.shape[-1], ("mlp", "embed")),
            up=kernels("up", moe.expert_size, x.shape[-1], ("mlp", "embed")),
            down=kernels("down", x.shape[-1], moe.expert_size, ("embed", "mlp")),
        )
        mixed = mix_experts(x, routing, stacked, config)
        mixed = constrain(mixed, ("batch", "length", "activation_embed"))
        return mixed.astype(config.activation_dtype)


class MixtureOfExperts(nn.Module):
    """The selected experts' weighted sum, and the shared expert if there is one."""

    config: DenoiserConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], drafted: Bool[Array, "B L"]
    ) -> Float[Array, "B L D"]:
        config, moe = self.config, self.config.moe
        assert moe is not None
        routing = Router(config, name="router")(x)
        mixed = Experts(config, name="experts")(x, routing)
        if moe.shared_size:
            shared = FeedForward(config, moe.shared_size, name="shared")
            mixed = mixed + shared(x, drafted)
        return mixed


class Block(nn.Module):
    """Pre-norm transformer block: attention, then feed-forward or a mixture of
    experts, each with a residual."""

    config: DenoiserConfig
    mixture: bool = False
    noisy_only: bool = False  # of two copies, only the noisy one goes on

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        cached: LayerEntries | None,
        rotation: Rotation,
        visibility: Visibility | CopiesVisibility,
        cached_visibility: Visibility | None,
    ) -> tuple[Float[Array, "B A D"], LayerEntries]:
        residual = ("batch", "length", "activation_embed")
        attention = Attention(self.config, self.noisy_only, name="attention")
        mixed, entries = attention(
            RMSNorm(self.config, name="attention_norm")(x),
            rotation,
            visibility,
            cached,
            cached_visibility,
        )
        drafted = visibility.query.noisy
        if self.noisy_only:
            assert isinstance(visibility, CopiesVisibility)
            x, drafted = (visibility.copies.split(each)[1] for each in (x, drafted))
        x = constrain(x + mixed, residual)
        mlp: nn.Module
        if self.mixture:
            mlp = MixtureOfExperts(self.config, name="mlp")
        else:
            mlp = FeedForward(self.config, self.config.mlp_size, name="mlp")
        x = x + mlp(RMSNorm(self.config, name="mlp_norm")(x), drafted)
        return constrain(x, residual), entries
