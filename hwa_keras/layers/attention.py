"""Multi-head attention on hardware."""

from keras import layers

from hwa_keras.layers.base import HardwareLayer, register


@register("hwa_multi_head_attention")
class HWAMultiHeadAttention(HardwareLayer, layers.MultiHeadAttention):
    """`keras.layers.MultiHeadAttention` on hardware.

    The projections of query, key, value and output are kernels; the products of
    activations with activations stay digital.

    Example:
        >>> layer = hwa_keras.layers.HWAMultiHeadAttention(
        ...     num_heads=2, key_dim=4, kernel_noise="programming_noise"
        ... )
        >>> x = np.ones((2, 5, 8))
        >>> layer(x, x, training=True).shape == (2, 5, 8)
        True
    """

    def build(self, query_shape, value_shape, key_shape=None):
        super(HardwareLayer, self).build(query_shape, value_shape, key_shape)
        self._equip_kernels()

    def call(
        self,
        query,
        value,
        key=None,
        query_mask=None,
        value_mask=None,
        key_mask=None,
        attention_mask=None,
        return_attention_scores=False,
        training=None,
        use_causal_mask=False,
    ):
        query, value = self.convert_inputs(query), self.convert_inputs(value)
        key = value if key is None else self.convert_inputs(key)
        keras_call = super(HardwareLayer, self).call

        def run():
            return keras_call(
                query,
                value,
                key=key,
                query_mask=query_mask,
                value_mask=value_mask,
                key_mask=key_mask,
                attention_mask=attention_mask,
                return_attention_scores=return_attention_scores,
                training=training,
                use_causal_mask=use_causal_mask,
            )

        outputs = self.run_on_hardware(run, training)
        if return_attention_scores:
            return self.convert_outputs(outputs[0], training), outputs[1]
        return self.convert_outputs(outputs, training)
