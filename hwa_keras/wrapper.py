"""What models around another model have in common."""

import keras

from hwa_keras.checkpoint import SavesSeeds


class ModelWrapper(SavesSeeds):
    """Mixin for a `keras.Model` that runs another model, whose variables it shares.

    Args:
        model: A built Keras model.
        **kwargs: Arguments of the classes that follow among the bases.
    """

    def __init__(self, model, **kwargs):
        # Quantizers and noise see the variables' own dtype; the wrapped model casts
        # to its compute dtype itself.
        kwargs.setdefault("dtype", model.variable_dtype)
        super().__init__(**kwargs)
        self.supports_masking = True
        self.model = model

    @property
    def innermost(self):
        """The Keras model inside all wrappers."""
        model = self.model
        return model.innermost if isinstance(model, ModelWrapper) else model

    def compute_mask(self, inputs, previous_mask=None):
        return None  # The wrapped model has put its own masks on its outputs.

    def compile(self, optimizer="rmsprop", *args, auto_scale_loss=True, **kwargs):
        # Keras scales the loss by itself where the policy of the model that is
        # compiled is mixed_float16; here it is the wrapped model's that counts.
        optimizer = keras.optimizers.get(optimizer)
        mixed = self.innermost.dtype_policy.name == "mixed_float16"
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if auto_scale_loss and mixed and not scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(
                optimizer, name="loss_scale_optimizer"
            )
        super().compile(optimizer, *args, auto_scale_loss=auto_scale_loss, **kwargs)

    def compile_from_config(self, config):
        # Keras does not call a `compile` of one's own when it loads a model.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def get_config(self):
        return {
            "model": keras.saving.serialize_keras_object(self.model),
            "name": self.name,
        }
