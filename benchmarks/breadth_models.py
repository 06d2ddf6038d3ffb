"""The models of `benchmarks.breadth`: keras.applications and keras-hub, in small.

`names()` lists them, `build(name)` builds one, and `example(model)` makes a batch of
inputs for it.
"""

import inspect

import keras
import numpy as np

from benchmarks.breadth_families import (
    CLASSES,
    FAMILIES,
    IMAGE,
    LENGTH,
    MIT,
    RESNET,
    TOWER,
    VISION,
    VOCABULARY,
)

__all__ = ["build", "example", "names"]

BATCH = 2
SAMPLES = 2400  # Of sound: the fewest of which four vectors are left.
SIZES = (32, 71, 75)  # Of images: the smallest that every application allows.


def _clip(hub, kind="CLIP"):
    vision = getattr(hub, f"{kind}VisionEncoder")(**VISION)
    text = getattr(hub, f"{kind}TextEncoder")(**TOWER)
    options = {} if kind == "SigLIP" else {"projection_dim": 8}
    return getattr(hub, f"{kind}Backbone")(vision, text, **options)


def _sam(hub):
    from keras_hub.layers import SAMMaskDecoder, SAMPromptEncoder

    size = 32
    encoder = hub.ViTDetBackbone(
        hidden_size=8,
        num_layers=2,
        intermediate_dim=16,
        num_heads=2,
        global_attention_layer_indices=[1],
        patch_size=8,
        num_output_channels=8,
        window_size=2,
        image_shape=(size, size, 3),
    )
    prompts = SAMPromptEncoder(
        hidden_size=8,
        image_embedding_size=(size // 8, size // 8),
        input_image_size=(size, size),
        mask_in_channels=4,
    )
    decoder = SAMMaskDecoder(
        num_layers=2,
        hidden_size=8,
        intermediate_dim=16,
        num_heads=2,
        embedding_dim=8,
        iou_head_depth=2,
        iou_head_hidden_dim=8,
    )
    return hub.SAMImageSegmenter(hub.SAMBackbone(encoder, prompts, decoder))


def _segformer(hub):
    encoder = hub.MiTBackbone(**MIT)
    backbone = hub.SegFormerBackbone(image_encoder=encoder, projection_filters=8)
    return hub.SegFormerImageSegmenter(backbone, num_classes=CLASSES)


def _deeplab(hub):
    backbone = hub.DeepLabV3Backbone(
        image_encoder=hub.ResNetBackbone(**RESNET, image_shape=(64, 64, 3)),
        projection_filters=4,
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P4",
        upsampling_size=4,
        dilation_rates=[2, 3],
        image_shape=(64, 64, 3),
    )
    return hub.DeepLabV3ImageSegmenter(backbone, num_classes=CLASSES)


def _retinanet(hub):
    return hub.RetinaNetBackbone(
        image_encoder=hub.ResNetBackbone(**RESNET),
        min_level=3,
        max_level=5,
        use_p5=False,
        image_shape=(64, 64, 3),
    )


def _depth_anything(hub):
    encoder = hub.DINOV2Backbone(
        **{**VISION, "num_layers": 4, "image_shape": (32, 32, 3)},
        position_embedding_shape=IMAGE,
    )
    backbone = hub.DepthAnythingBackbone(
        image_encoder=encoder,
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_dims=[8, 8, 8, 8],
        fusion_hidden_dim=8,
        head_hidden_dim=8,
        head_in_index=-1,
        feature_keys=["stage1", "stage2", "stage3", "stage4"],
    )
    return hub.DepthAnythingDepthEstimator(backbone, "relative")


MADE_OF_SEVERAL = {
    "CLIP": _clip,
    "DeepLabV3": _deeplab,
    "DepthAnything": _depth_anything,
    "MetaCLIP2": lambda hub: _clip(hub, "MetaCLIP2"),
    "RetinaNet": _retinanet,
    "SAM": _sam,
    "SegFormer": _segformer,
    "SigLIP": lambda hub: _clip(hub, "SigLIP"),
}

# Patterns of the kernels that are found by no computation and no name.
NAMED = {
    "hub/RWKV7": "*/RWKV_TIME_MIX/[wavg][12]",
}


def applications():
    """The names of the model builders of keras.applications."""
    return [
        name
        for name, value in vars(keras.applications).items()
        if inspect.isfunction(value)
        and {"weights", "classes"} <= set(inspect.signature(value).parameters)
    ]


def names():
    """The names of all models, the small ones of keras-hub first."""
    hub = sorted([*FAMILIES, *MADE_OF_SEVERAL], key=str.lower)
    return [f"hub/{name}" for name in hub] + [
        f"applications/{name}" for name in sorted(applications())
    ]


def build(name):
    """Build the model of a name, with new weights.

    Example:
        >>> build("hub/Bert").name
        'bert_text_classifier'
    """
    source, name = name.split("/")
    if source == "applications":
        return _application(getattr(keras.applications, name))
    import keras_hub  # Seconds, which the applications need not wait.

    hub = keras_hub.models
    if name in MADE_OF_SEVERAL:
        return MADE_OF_SEVERAL[name](hub)
    arguments, task, options = FAMILIES[name]
    backbone = getattr(hub, f"{name}Backbone")(**arguments)
    if task is None:
        return backbone
    return getattr(hub, f"{name}{task}")(backbone=backbone, **options)


def _application(builder):
    """An application without its weights, for the smallest images that it allows."""
    for size in SIZES:
        try:
            return builder(
                weights=None,
                input_shape=(size, size, 3),
                classes=10,
                classifier_activation=None,
            )
        except ValueError as error:
            refused = error
    raise refused


def example(model, seed=0):
    """A batch of inputs in the structure that a functional model takes."""
    rng = np.random.default_rng(seed)
    heard = any(x.name == "encoder_input_values" for x in model.inputs)
    return keras.tree.map_structure(lambda x: _batch(x, rng, heard), model.input)


def _batch(x, rng, heard):
    """A batch for one input, by what its name says that it is."""
    length = SAMPLES if heard and x.name.startswith("encoder") else LENGTH
    free = iter((1, 16, 16) if x.name == "masks" else [length] * len(x.shape))
    shape = [BATCH, *(next(free) if n is None else n for n in x.shape[1:])]
    if "mask_positions" in x.name:
        values = rng.integers(0, LENGTH, shape)
    elif x.name.endswith("mask"):
        values = np.ones(shape)
    elif "ids" in x.name or x.name == "labels":
        small = "segment" in x.name or x.name == "labels"
        values = rng.integers(0, 2 if small else VOCABULARY, shape)
    else:
        values = rng.random(shape)
    return values.astype(x.dtype)
