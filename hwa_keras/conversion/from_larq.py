"""from_larq: a Larq model, which is Keras 2, in Keras 3 with hardware layers."""

import inspect
from typing import Any

import keras

from hwa_keras import constraints, layers, quantizers
from hwa_keras.conversion.larq_inputs import InputsAlone

__all__ = ["from_larq"]

_HARDWARE_LAYERS: dict[str, Any] = {
    "QuantDense": layers.HWADense,
    "QuantConv1D": layers.HWAConv1D,
    "QuantConv2D": layers.HWAConv2D,
    "QuantConv3D": layers.HWAConv3D,
    "QuantDepthwiseConv2D": layers.HWADepthwiseConv2D,
    "QuantSeparableConv2D": layers.HWASeparableConv2D,
    "QuantConv2DTranspose": layers.HWAConv2DTranspose,
}
_KERNEL_QUANTIZERS = ("kernel_quantizer", "depthwise_quantizer", "pointwise_quantizer")

# Arguments that Keras 3 no longer has, and the value at which they did nothing.
_FORMER_ARGUMENTS = {
    "groups": 1,
    "pad_values": 0,
    "softmax_robust_masking": False,
    "time_major": False,
}
# Arguments that do nothing to a model that is built.
_WITHOUT_EFFECT = {
    "batch_input_shape",
    "implementation",
    "input_length",
    "key_shape",
    "query_shape",
    "value_shape",
}
_RENAMED = {("LeakyReLU", "alpha"): "negative_slope"}
# A separable convolution of Keras 2 lists them, but has no weight named `kernel`.
_UNUSED_IN_SEPARABLE = {"kernel_initializer", "kernel_regularizer", "kernel_constraint"}

_UNSUPPORTED = {
    "IntegerLookup": "keeps a vocabulary besides its weights",
    "Lambda": "holds Python code written for Keras 2",
    "Normalization": "keeps statistics besides its weights",
    "SlicingOpLambda": "is a slice written in Python",
    "StringLookup": "keeps a vocabulary besides its weights",
    "TFOpLambda": "is a TensorFlow operation written in Python",
    "TextVectorization": "keeps a vocabulary besides its weights",
}
_ADVICE = {
    "SlicingOpLambda": "Use a cropping layer there",
    "TFOpLambda": "Use the Keras layer of that operation there, such as Add for x + y",
}


def from_larq(model: Any) -> keras.Model:
    """Carry a Larq model over to Keras 3, with hardware layers and the same weights.

    Larq's layers become hardware layers: `QuantDense` an `HWADense`, `QuantConv1D`,
    `QuantConv2D` and `QuantConv3D` an `HWAConv1D` and so on, likewise
    `QuantDepthwiseConv2D`, `QuantSeparableConv2D` and `QuantConv2DTranspose`. Their
    quantizers become ours of the same name and arguments, `weight_clip` becomes
    `hwa_keras.constraints.WeightClip`, and the weights are the latent ones. Other
    Keras 2 layers become the Keras 3 layers of the same name, and shared layers stay
    shared. Nothing is left out silently. How the model was compiled is not carried
    over: call `compile` on the result.

    In an environment with Larq and `TF_USE_LEGACY_KERAS=1`:

    ```python
    import hwa_keras
    import larq
    import tensorflow as tf

    options = dict(kernel_quantizer="ste_sign", kernel_constraint="weight_clip")
    trained = tf.keras.Sequential([
        larq.layers.QuantDense(64, input_shape=(784,), **options),
        tf.keras.layers.BatchNormalization(),
        larq.layers.QuantDense(10, input_quantizer="ste_sign", **options),
    ])
    model = hwa_keras.from_larq(trained)
    model.save("carried_over.keras")  # loads wherever hwa_keras is, without Larq
    ```

    Args:
        model: A built Keras 2 model (`tf_keras`), sequential or functional, nested or
            not, of Larq's layers and Keras's own.

    Returns:
        A `keras.Sequential` for a sequential model, else a functional `keras.Model`,
        with the names of the model and its layers (`_` for a `/`, which Keras 3 does
        not allow in them).

    Raises:
        TypeError: If the model is no Keras 2 model.
        ValueError: If the model is not built or subclassed, or if something in it has
            no equal here; the message names the layer, what it has and a way out.
    """
    if not _is_keras2(model, "Model"):
        raise TypeError(
            "`from_larq` takes a model of Keras 2, as Larq makes them: run with "
            "TF_USE_LEGACY_KERAS=1 and build it of tf.keras and larq.layers. "
            f"Received: {model!r} of type {type(model).__name__}."
        )
    return _Conversion().model(model)


class _Conversion:
    """One run of `from_larq`: which layers were made of which."""

    def __init__(self):
        self.layers = {}

    def model(self, old):
        _check_model(old)
        if _is_keras2(old, "Sequential"):
            return self._sequential(old)
        tensors = {}
        for depth in sorted(old._nodes_by_depth, reverse=True):
            for node in old._nodes_by_depth[depth]:
                self._replay(node, tensors)

        def made(tensor):
            return tensors[id(tensor)]

        return keras.Model(
            keras.tree.map_structure(made, old._nested_inputs),
            keras.tree.map_structure(made, old._nested_outputs),
            name=_name(old),
        )

    def _sequential(self, old):
        stack = [self.layer(layer) for layer in old.layers]
        new = keras.Sequential([_input(old.inputs[0]), *stack], name=_name(old))
        for layer, made in zip(old.layers, stack, strict=True):
            _copy_weights(layer, made)
        return new

    def _replay(self, node, tensors):
        """Call the layer of a node of the old graph on what its inputs have become."""
        if node.is_input:
            tensors[id(node.outputs)] = _input(node.outputs, _name(node.layer))
            return
        layer = self.layer(node.layer)
        arguments, options = keras.tree.map_structure(
            lambda x: tensors.get(id(x), x), (node.call_args, node.call_kwargs)
        )
        options = {key: x for key, x in options.items() if x is not None}
        try:
            outputs = layer(*arguments, **options)
        except (TypeError, ValueError) as error:
            raise _refusal(
                node.layer,
                f"is called in a way that Keras 3 does not know ({_last_line(error)})",
                "Leave that argument of the call out",
            ) from error
        _copy_weights(node.layer, layer)
        old = keras.tree.flatten(node.outputs)
        for old_tensor, tensor in zip(old, keras.tree.flatten(outputs), strict=True):
            tensors[id(old_tensor)] = tensor

    def layer(self, old):
        """The Keras 3 layer of a Keras 2 layer, the same one for a shared layer."""
        if id(old) not in self.layers:
            convert = self.model if _is_keras2(old, "Model") else _converted
            self.layers[id(old)] = convert(old)
        return self.layers[id(old)]


def _check_model(model):
    if not model.built or not getattr(model, "_nodes_by_depth", None):
        if _is_keras2(model, "Sequential") or _is_keras2(model, "Functional"):
            raise ValueError(
                f"The model '{model.name}' is not built, so it has no weights and no "
                "shapes yet. Call it once on a batch of inputs, or give its first "
                "layer an `input_shape`, and convert it then."
            )
    if not getattr(model, "_is_graph_network", False) or not _is_keras2_module(
        type(model).call.__module__
    ):
        raise ValueError(
            f"The model '{model.name}' is a {type(model).__name__}, a subclass with "
            "Python code of its own, which cannot be carried over. Rewrite it as a "
            "functional model, or carry its functional parts over one by one."
        )


def _converted(old):
    """A Keras 3 layer with the configuration of a Keras 2 layer, not built yet."""
    name = type(old).__name__
    if name in quantizers.__all__ and _root(type(old)) == "larq":
        return _quantizer(old, "itself", old, name=_name(old))
    if _root(type(old)) == "larq":
        cls, own = _HARDWARE_LAYERS.get(name), _hardware_settings
    else:
        cls, own = getattr(keras.layers, name, None), None
        if not _is_keras2_module(type(old).__module__) or hasattr(old, "layer"):
            cls = None
    if cls is None or name in _UNSUPPORTED:
        raise _refusal(
            old,
            _UNSUPPORTED.get(name, "has no equal among the layers of hwa_keras"),
            _ADVICE.get(name, "Replace it, or carry the parts around it over alone"),
        )
    config = {**_config(old, cls), **(own(old) if own else {}), "name": _name(old)}
    try:
        return cls.from_config(config)
    except (TypeError, ValueError) as error:
        raise _refusal(
            old,
            f"has a setting that Keras 3 refuses ({_last_line(error)})",
            "Change the setting",
        ) from error


def _config(old, cls):
    """The configuration of a Keras 2 layer in the words of a Keras 3 class."""
    known = {"name", "trainable", "dtype", "activity_regularizer"}
    for base in cls.__mro__:
        known |= set(inspect.signature(base.__init__).parameters)
    config = {}
    for key, value in old.get_config().items():
        if key in (*_KERNEL_QUANTIZERS, "input_quantizer", *_WITHOUT_EFFECT):
            continue
        key = _RENAMED.get((type(old).__name__, key), key)
        if key == "dtype" and isinstance(value, dict):
            value = value["config"]["name"]
        if key == "axis" and len(keras.tree.flatten(value)) == 1:
            value = keras.tree.flatten(value)[0]
        if key == "pad_values" or key not in known:
            _check_former_argument(old, key, value)
        else:
            config[key] = _setting(old, key, value)
    return config


def _check_former_argument(old, key, value):
    if key in _UNUSED_IN_SEPARABLE and "Separable" in type(old).__name__:
        return
    if key not in _FORMER_ARGUMENTS or _FORMER_ARGUMENTS[key] != value:
        raise _refusal(
            old,
            f"has {key}={value!r}, which its Keras 3 layer cannot do",
            f"Train it with {key}={_FORMER_ARGUMENTS.get(key)!r}",
        )


def _setting(old, key, value):
    """What a value in a Keras 2 configuration is in Keras 3."""
    member: Any = getattr(old, key, None)
    if key.endswith("activation"):
        name = getattr(member, "__name__", value)
        if name == "hard_sigmoid":
            raise _refusal(
                old,
                f"has {key}='hard_sigmoid', which is another function in Keras 3",
                "Train it with another activation",
            )
        if _root(member) == "larq":
            if name == "hard_tanh":
                return name
            return _quantizer(old, key, member)
    if _root(type(member)) == "larq" and hasattr(member, "clip_value"):
        return constraints.WeightClip(member.clip_value)
    if isinstance(value, dict) and not _is_keras2_module(value.get("module") or ""):
        raise _refusal(
            old,
            f"has {key}={member!r}, which is not Keras's own",
            f"Set its {key} to None, or to one of Keras's",
        )
    return value


def _hardware_settings(old):
    """The arguments of a hardware layer that its Keras layer does not have."""
    found = {
        key: _quantizer(old, key, getattr(old, key))
        for key in _KERNEL_QUANTIZERS
        if hasattr(old, key)
    }
    if len({_identity(quantizer) for quantizer in found.values()}) > 1:
        raise _refusal(
            old,
            f"has different quantizers for its two kernels ({', '.join(found)})",
            "Use the same for both, or a QuantDepthwiseConv2D and a QuantConv2D of "
            "kernel size 1",
        )
    inputs = _quantizer(old, "input_quantizer", old.input_quantizer)
    if inputs is not None and len(found) > 1:
        inputs = InputsAlone(inputs)
    return {"kernel_quantizer": next(iter(found.values())), "input_quantizer": inputs}


def _identity(quantizer):
    if quantizer is None:
        return None
    config = {k: v for k, v in quantizer.get_config().items() if k != "name"}
    return type(quantizer).__name__, repr(sorted(config.items(), key=str))


def _quantizer(old, role, member, **options):
    """Our quantizer of the name and arguments of one of Larq's."""
    if member is None:
        return None
    if _root(member) == "larq" and inspect.isfunction(inspect.unwrap(member)):
        if member.__name__ in quantizers.__all__:
            return quantizers.get(member.__name__)
    name = type(member).__name__
    if _root(type(member)) != "larq" or name not in quantizers.__all__:
        raise _refusal(
            old,
            f"has {role}={member!r}, which is no quantizer of Larq's that has an equal "
            "in hwa_keras.quantizers",
            "Use one of those, or build the hardware layer yourself: it takes any "
            "callable",
        )
    cls = getattr(quantizers, name)
    given = set(inspect.signature(cls).parameters) - {"name", "kwargs"}
    config = {k: v for k, v in member.get_config().items() if k in given}
    metrics = list(member._custom_metrics or ()) or None
    return cls(**config, metrics=metrics, **options)


def _input(tensor, name=None):
    if type(tensor).__name__ != "KerasTensor":
        raise ValueError(
            f"The input '{tensor.name}' is sparse or ragged, which hardware layers do "
            "not take. Make it a dense input."
        )
    shape = tuple(tensor.shape)
    return keras.Input(batch_shape=shape, dtype=tensor.dtype.name, name=name)


def _copy_weights(old, new):
    if isinstance(new, keras.Model):
        return  # Its layers have theirs.
    # Larq's variables quantize themselves when read in some contexts.
    sources = [getattr(w, "latent_variable", w) for w in old.weights]
    if [tuple(w.shape) for w in sources] != [tuple(w.shape) for w in new.weights]:
        raise _refusal(
            old,
            f"has the weights {[w.name for w in sources]}, its Keras 3 layer "
            f"{[w.path for w in new.weights]}",
            "Replace it by a layer that has the same in both",
        )
    for source, target in zip(sources, new.weights, strict=True):
        target.assign(source.numpy())


def _name(member):
    return member.name.replace("/", "_")


def _last_line(error):
    """What happened; Keras writes before it what it was about."""
    return str(error).strip().splitlines()[-1].rstrip(".")


def _root(member):
    return (getattr(member, "__module__", None) or "").partition(".")[0]


def _is_keras2_module(module):
    """Configurations of tf_keras call it keras."""
    return module.partition(".")[0] in ("tf_keras", "keras")


def _is_keras2(member, name):
    """Whether an object is of a class of tf_keras, which need not be installed."""
    return any(
        cls.__name__ == name and _root(cls) == "tf_keras"
        for cls in type(member).__mro__
    )


def _refusal(layer, found, advice):
    return ValueError(
        f"The layer '{layer.name}' ({type(layer).__name__}) {found}. {advice}."
    )
