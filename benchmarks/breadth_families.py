"""The arguments of a small model of each keras-hub family, for `benchmarks.breadth`."""

LENGTH, VOCABULARY, CLASSES = 8, 32, 3


def _without(arguments, *names):
    return {name: value for name, value in arguments.items() if name not in names}


TEXT = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
}
SHORT = {**TEXT, "max_sequence_length": LENGTH}
GROUPED = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 16,
}
HEADED = {**GROUPED, "head_dim": 4}
IMAGE = (16, 16, 3)
VISION = {
    "image_shape": IMAGE,
    "patch_size": 4,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
}
TOWER = {**TEXT, "embedding_dim": 8, "max_sequence_length": LENGTH}
RESNET = {
    "input_conv_filters": [8],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 8, 8, 8],
    "stackwise_num_blocks": [1, 1, 1, 1],
    "stackwise_num_strides": [1, 2, 2, 2],
    "block_type": "bottleneck_block",
}
MIT = {
    "layerwise_depths": [1, 1],
    "num_layers": 2,
    "layerwise_num_heads": [1, 2],
    "layerwise_sr_ratios": [2, 1],
    "max_drop_path_rate": 0.1,
    "layerwise_patch_sizes": [7, 3],
    "layerwise_strides": [4, 2],
    "hidden_dims": [8, 16],
    "image_shape": (32, 32, 3),
}
SMOL = {
    "vocabulary_size": VOCABULARY,
    "hidden_dim": 16,
    "intermediate_dim": 16,
    "num_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "rope_layer_enabled_list": [True, False],
    "layer_types": ["attention", "attention"],
    "mlp_bias": False,
    "layer_norm_epsilon": 1e-5,
    "max_position_embeddings": 32,
    "rope_theta": 1e4,
    "partial_rotary_factor": 1.0,
}
T5GEMMA = (
    {"vocabulary_size": VOCABULARY}
    | {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {
            "hidden_dim": 16,
            "intermediate_dim": 16,
            "num_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 4,
            "layer_types": ["full_attention", "sliding_attention"],
        }.items()
    }
    | {"sliding_window": 4}
)
MOBILENET = {
    "stackwise_expansion": [[8, 16], [16]],
    "stackwise_num_blocks": [2, 1],
    "stackwise_num_filters": [[8, 8], [16]],
    "stackwise_kernel_size": [[3, 3], [5]],
    "stackwise_num_strides": [[2, 1], [2]],
    "stackwise_se_ratio": [[None, None], [0.25]],
    "stackwise_activation": [["relu", "relu"], ["hard_swish"]],
    "stackwise_padding": [[1, 1], [2]],
    "output_num_filters": 32,
    "depthwise_filters": 8,
    "depthwise_stride": 2,
    "depthwise_residual": False,
    "last_layer_filter": 16,
    "squeeze_and_excite": 0.5,
    "image_shape": (32, 32, 3),
}
EFFICIENTNET = {
    "stackwise_width_coefficients": [1.0, 1.0],
    "stackwise_depth_coefficients": [1.0, 1.0],
    "stackwise_kernel_sizes": [3, 3],
    "stackwise_num_repeats": [1, 2],
    "stackwise_input_filters": [8, 8],
    "stackwise_output_filters": [8, 16],
    "stackwise_expansion_ratios": [1, 4],
    "stackwise_squeeze_and_excite_ratios": [0.0, 0.25],
    "stackwise_strides": [1, 2],
    "stackwise_block_types": ["fused", "unfused"],
    "input_shape": (32, 32, 3),
    "num_features": 32,
}
CSPNET = {
    "stem_filters": 8,
    "stem_kernel_size": 3,
    "stem_strides": 1,
    "stackwise_depth": [1, 1],
    "expand_ratio": [2.0],
    "stackwise_strides": [1, 2],
    "stackwise_num_filters": [8, 16],
    "image_shape": (32, 32, 3),
}
HGNET = {
    "depths": [1, 2],
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "stem_channels": [3, 8, 8],
    "hidden_act": "relu",
    "use_learnable_affine_block": True,
    "stackwise_stage_filters": [(8, 8, 8, 1, 1, 3), (8, 8, 16, 2, 1, 3)],
    "apply_downsample": [False, True],
    "use_lightweight_conv_block": [False, True],
    "image_shape": (32, 32, 3),
}

# {family: (its backbone's arguments, the task on top or None, arguments of the task)}
_CLASSES = {"num_classes": CLASSES}
_TEXTS = "TextClassifier", _CLASSES
_IMAGES = "ImageClassifier", _CLASSES
_NEXT = "CausalLM", {}
_SECOND = "Seq2SeqLM", {}
FAMILIES = {
    "Albert": ({**SHORT, "embedding_dim": 8}, *_TEXTS),
    "Bart": (SHORT, *_SECOND),
    "Bert": (SHORT, *_TEXTS),
    "Bloom": (TEXT, *_NEXT),
    "CSPNet": ({**CSPNET, "block_type": "dark_block", "stage_type": "csp"}, *_IMAGES),
    "DebertaV3": ({**SHORT, "bucket_size": 4}, *_TEXTS),
    "DeiT": (VISION, *_IMAGES),
    "DenseNet": (
        {
            "stackwise_num_repeats": [1, 2],
            "growth_rate": 4,
            "image_shape": (32, 32, 3),
        },
        *_IMAGES,
    ),
    "DINOV2": ({**VISION, "position_embedding_shape": IMAGE}, None, {}),
    "DINOV3": (VISION, None, {}),
    "DistilBert": (SHORT, *_TEXTS),
    "EfficientNet": (EFFICIENTNET, *_IMAGES),
    "Electra": (
        {
            **_without(SHORT, "vocabulary_size"),
            "vocab_size": VOCABULARY,
            "embedding_dim": 8,
        },
        None,
        {},
    ),
    "ESM": (SHORT, "ProteinClassifier", _CLASSES),
    "FNet": (
        _without(SHORT, "num_heads"),
        "MaskedLM",
        {},
    ),
    "Falcon": (
        {
            **_without(TEXT, "num_heads"),
            "num_attention_heads": 2,
        },
        *_NEXT,
    ),
    "GPT2": (SHORT, *_NEXT),
    "GPTNeoX": ({**SHORT, "rotary_percentage": 0.5}, *_NEXT),
    "Gemma": (HEADED, *_NEXT),
    "Gemma3": ({**HEADED, "image_size": None}, None, {}),
    "GptOss": ({**HEADED, "num_experts": 3, "sliding_window": 4}, *_NEXT),
    "HGNetV2": (HGNET, "ImageClassifier", {**_CLASSES, "preprocessor": None}),
    "Llama": (GROUPED, *_NEXT),
    "Llama3": (GROUPED, *_NEXT),
    "MiT": (MIT, *_IMAGES),
    "Mistral": ({**GROUPED, "sliding_window": 4}, *_NEXT),
    "Mixtral": ({**GROUPED, "num_experts": 3, "sliding_window": 4}, *_NEXT),
    "MobileNet": (MOBILENET, *_IMAGES),
    "Moonshine": (
        {
            "vocabulary_size": VOCABULARY,
            "filter_dim": 16,
            "encoder_num_layers": 2,
            "decoder_num_layers": 2,
            "hidden_dim": 16,
            "intermediate_dim": 16,
            "encoder_num_heads": 2,
            "decoder_num_heads": 2,
        },
        "AudioToText",
        {},
    ),
    "OPT": (SHORT, *_NEXT),
    "Phi3": (GROUPED, *_NEXT),
    "Qwen": (GROUPED, *_NEXT),
    "Qwen3": (HEADED, *_NEXT),
    "Qwen3Moe": (
        {**HEADED, "moe_intermediate_dim": 16, "num_experts": 3, "top_k": 2},
        *_NEXT,
    ),
    "QwenMoe": (
        {
            **GROUPED,
            "moe_intermediate_dim": 16,
            "shared_expert_intermediate_dim": 16,
            "num_experts": 3,
            "top_k": 2,
        },
        *_NEXT,
    ),
    "RWKV7": (
        {
            "vocabulary_size": VOCABULARY,
            "hidden_size": 16,
            "head_size": 8,
            "num_layers": 2,
            "intermediate_dim": 16,
            "gate_lora": 4,
            "mv_lora": 4,
            "aaa_lora": 4,
            "decay_lora": 4,
        },
        *_NEXT,
    ),
    "ResNet": ({**RESNET, "image_shape": (32, 32, 3)}, *_IMAGES),
    "Roberta": (SHORT, "MaskedLM", {}),
    "RoformerV2": ({**TEXT, "head_size": 4}, *_TEXTS),
    "SmolLM3": (SMOL, *_NEXT),
    "SwinTransformer": (
        {
            "image_shape": (32, 32, 3),
            "embed_dim": 8,
            "depths": (2, 2),
            "num_heads": (2, 2),
            "window_size": 4,
        },
        *_IMAGES,
    ),
    "T5": (TEXT, *_SECOND),
    "T5Gemma": (T5GEMMA, *_SECOND),
    "VGG": (
        {
            "stackwise_num_repeats": [1, 2],
            "stackwise_num_filters": [8, 16],
            "image_shape": (32, 32, 3),
        },
        "ImageClassifier",
        {**_CLASSES, "pooling_hidden_dim": 16},
    ),
    "ViT": (
        {
            **_without(VISION, "intermediate_dim"),
            "mlp_dim": 16,
            "patch_size": (4, 4),
        },
        *_IMAGES,
    ),
    "ViTDet": (
        {
            "image_shape": IMAGE,
            "patch_size": 2,
            "hidden_size": 4,
            "num_layers": 2,
            "global_attention_layer_indices": [1],
            "intermediate_dim": 16,
            "num_heads": 2,
            "num_output_channels": 2,
            "window_size": 2,
        },
        None,
        {},
    ),
    "Whisper": (
        {
            **TEXT,
            "max_encoder_sequence_length": 2 * LENGTH,
            "max_decoder_sequence_length": LENGTH,
            "num_mels": 8,
        },
        None,
        {},
    ),
    "XLMRoberta": (SHORT, *_TEXTS),
    "XLNet": (TEXT, None, {}),
    "Xception": (
        {
            "stackwise_conv_filters": [[8, 8], [8, 16], [16, 16]],
            "stackwise_pooling": [True, True, False],
            "image_shape": (71, 71, 3),
        },
        *_IMAGES,
    ),
}
