"""The experts of keras-hub's mixtures, as kernels."""

import keras

from hwa_keras.core.keras_private import attributes
from hwa_keras.core.kernels import describes_kernels
from hwa_keras.core.views import MatrixView

# keras-hub's layers that hold all experts of a block: each weight [experts, rows,
# columns] is multiplied by einsum, "th,ehm->etm" and "eti,eih->eth".
EXPERTS = (
    "Gemma4MoEBlock",
    "GptOssExperts",
    "MixtralMoeExperts",
    "Qwen3MoeExperts",
    "Qwen3_5MoeExperts",
    "QwenMoeExperts",
)


@describes_kernels
def _experts(layer):
    """{keys: `MatrixView`} of a layer of experts: each has columns of its own."""
    if not any(_is_known(cls) for cls in type(layer).__mro__):
        return None
    return {
        (name,): MatrixView(tuple(value.shape), (0, 2))
        for name, value in attributes(layer).items()
        if isinstance(value, keras.Variable) and len(value.shape) == 3
    }


def _is_known(cls):
    return cls.__name__ in EXPERTS and cls.__module__.startswith("keras_hub.")
