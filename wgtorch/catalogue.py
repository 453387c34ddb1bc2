"""What this package registers, by the module that does: found by name, imported when asked for."""

from __future__ import annotations

from wgtorch.core.registry import provide_modules

_DIFFUSERS_BLOCKS = {
    "autoencoder_kl": ("codec/autoencoder_kl", "codec/autoencoder_tiny", "codec/autoencoder_dc"),
    "autoencoder_kl_wan": ("codec/autoencoder_kl_wan",),
    "batching": ("diffusers/guided_condition", "diffusers/joined_conditions", "diffusers/repeat", "diffusers/split"),
    "controlnet": ("adapter/controlnet",), "flow_start": ("diffusers/strength", "diffusers/patch_count", "diffusers/flow_settings"),
    "flux2_transformer": ("backbone/flux2_transformer", "diffusers/flux2_pictures", "codec/autoencoder_kl_flux2", "diffusers/flux2_shift"),
    "flux_transformer": ("backbone/flux_transformer",), "image_encoders": ("embedder/clip_image", "conditioner/wan_image"),
    "inpainting": (
        "diffusers/blend", "diffusers/inpaint_channels", "diffusers/latent_mask", "diffusers/mask_patches", "diffusers/masked_image",
        "diffusers/without_shift",
    ),
    "ip_adapter": ("adapter/ip",), "known_frames": ("diffusers/known_frames", "diffusers/frames_condition"),
    "motion": ("conditioner/clip_picture", "diffusers/noised_picture", "diffusers/motion", "guidance/frames"),
    "noise": ("noise/latents", "noise/video_latents"),
    "noise_stages": ("diffusers/noise_stage", "diffusers/either", "diffusers/first_frame"),
    "pictures": ("diffusers/fit_picture", "diffusers/sized_picture"), "pipeline_prompt": ("conditioner/pipeline_prompt",),
    "sd3_transformer": ("backbone/sd3_transformer", "diffusers/sd3_conditions"),
    "t2i_adapter": ("adapter/t2i",), "text_encoders": ("conditioner/clip_text", "conditioner/t5_text", "conditioner/umt5_text"),
    "text_transformers": (
        "backbone/chroma_transformer", "backbone/lumina2_transformer", "guidance/lumina2", "backbone/qwen_image_transformer",
        "guidance/qwen_image", "codec/autoencoder_kl_qwen_image", "backbone/pixart_transformer", "backbone/sana_transformer",
        "backbone/z_image_transformer", "guidance/z_image",
    ),
    "tokenizers": ("tokenizer/clip", "tokenizer/t5"),
    "transformer_controlnets": ("adapter/flux_controlnet", "diffusers/rows", "diffusers/signed", "adapter/sd3_controlnet"),
    "unet_2d_condition": ("backbone/unet_2d_condition",),
    "unets": ("backbone/unet_2d", "backbone/unet_3d_condition", "backbone/unet_motion", "backbone/unet_spatio_temporal"),
    "video_autoencoders": (
        "codec/autoencoder_kl_cogvideox", "codec/autoencoder_kl_frames", "codec/autoencoder_kl_hunyuan_video",
        "codec/autoencoder_kl_ltx_video", "codec/autoencoder_kl_temporal_decoder",
    ),
    "video_transformers": (
        "backbone/cogvideox_transformer", "backbone/hunyuan_video_transformer", "backbone/ltx_transformer", "backbone/wan_transformer",
    ),
    "xl_conditions": ("diffusers/second_prompt", "diffusers/picture_sizes"),
}  # fmt: skip
"""By module of ``wgtorch.integrations.diffusers.blocks``."""
_BLOCKS = {
    "wgtorch.blocks.api_adapters": ("embedder/hashed", "head/response", "prompt/adapter", "prompt/soft"),
    "wgtorch.blocks.diffusion": (
        "codec/pixels", "encoder/pixels", "noise/gaussian", "noise/image", "preview/x0", "schedule/diffusion", "schedule/flow",
        "guidance/cfg", "guidance/gradient", "guidance/pag", "guidance/perp_neg", "guidance/sag",
        "solver/ddim", "solver/ddpm", "solver/dpmpp_2m", "solver/dpmpp_2m_sde", "solver/dpmpp_3m_sde", "solver/euler",
        "solver/euler_ancestral",
        "solver/flow_euler", "solver/flow_heun", "solver/heun", "solver/lcm", "solver/unipc",
    ),
    "wgtorch.blocks.grammar": ("grammar/architect", "grammar/author", "grammar/development", "grammar/world_update"),
    "wgtorch.blocks.memory": ("memory", "memory/keep"),
    "wgtorch.blocks.prompt": ("prompt", "prompt/language"),
    "wgtorch.blocks.scenes.backbone": ("backbone/scene",),
    "wgtorch.blocks.scenes.describer": ("vlm/scene",),
    "wgtorch.blocks.scenes.text": ("tokenizer/scene", "conditioner/scene", "conditioner/scene_complete", "conditioner/scene_rest"),
    "wgtorch.blocks.scenes.upscaler": ("upscaler/scene",),
    "wgtorch.blocks.pixel_scenes.backbone": ("backbone/pixel_scene",),
    "wgtorch.blocks.pixel_scenes.codec": ("codec/pixel_art", "encoder/pixel_art"),
    "wgtorch.blocks.pixel_scenes.conditioner": ("conditioner/pixel_scene",),
    "wgtorch.blocks.pixel_scenes.describer": ("vlm/pixel_scene",),
    "wgtorch.blocks.pixel_scenes.motion": ("motion/pixel_scene",),
    "wgtorch.blocks.pixel_scenes.sound": ("sound/pixel_scene",),
    "wgtorch.blocks.simulation.blocks": ("simulation/development", "simulation/world_update", "simulation/architect", "simulation/author"),
    "wgtorch.blocks.simulation.model_reader": ("reader/unread", "reader/read"),
    "wgtorch.blocks.simulation.narrator": ("simulation/account", "simulation/narrated"),
    "wgtorch.blocks.simulation.readers": ("reader/rules", "reader/trained"),
    "wgtorch.blocks.simulation.repainting": ("picture/misread", "picture/again", "picture/better"),
    "wgtorch.blocks.video": ("video/join", "video/repeat", "video/split", "video/walk"),
    "wgtorch.integrations.comfy.blocks": (
        "comfy/empty_latent", "comfy/fit", "comfy/latent", "comfy/latent_mask", "comfy/load_image", "comfy/pad_for_outpaint",
        "comfy/resize", "comfy/start",
    ),
    "wgtorch.integrations.comfy.prompts": ("comfy/conditions", "comfy/weighted", "tokenizer/comfy"),
    "wgtorch.integrations.comfy.schedule": ("schedule/comfy",),
    "wgtorch.integrations.diffusers": ("schedule/diffusers", "solver/diffusers"),
    "wgtorch.integrations.diffusers.first_block_cache": ("cache/first_block",),
    "wgtorch.integrations.diffusers.resolution": ("diffusers/trained_size",),
    "wgtorch.integrations.diffusers.families": (
        "diffusers/edit", "diffusers/edit_channels", "diffusers/kontext_sizes", "guidance/edit",
    ),
    **{f"wgtorch.integrations.diffusers.blocks.{module}": names for module, names in _DIFFUSERS_BLOCKS.items()},
    "wgtorch.integrations.models": (
        "embedder", "image_generator", "llm", "speech_to_text", "text_to_speech", "vlm",
        "embedder/api", "image_generator/api", "llm/api", "speech_to_text/api", "text_to_speech/api", "vlm/api",
        "embedder/local", "image_generator/local", "llm/local", "speech_to_text/local", "text_to_speech/local", "vlm/local",
        "llm/anthropic", "llm/openai", "vlm/anthropic", "vlm/openai",
    ),
}  # fmt: skip
_TEMPLATES = {
    "wgtorch.templates.scene_world": ("world/scenes",),
    "wgtorch.templates.scenes": ("graph/text_to_image", "graph/caption", "pipeline/text_to_image"),
    "wgtorch.templates.scene_edits": ("graph/image_to_image", "graph/inpaint", "pipeline/text_to_image_refine"),
    "wgtorch.templates.scene_video": ("graph/upscale", "graph/image_to_video", "pipeline/text_to_video"),
    "wgtorch.templates.pixel_scenes": ("graph/scene_to_image", "graph/describe_scene", "pipeline/scene_to_image"),
    "wgtorch.templates.conversation": ("graph/chat",),
    "wgtorch.templates.storytelling": ("world/storytelling",),
    "wgtorch.templates.world": (
        "stage/philosopher", "stage/author", "stage/environment", "stage/architect", "stage/creator", "world/default",
    ),
}  # fmt: skip


_OTHERS: dict[str, dict[str, tuple[str, ...]]] = {
    "wgtorch.levels": {
        "wgtorch.graph": ("graph",), "wgtorch.pipeline": ("pipeline",), "wgtorch.stage": ("stage",), "wgtorch.world": ("world",),
    },
    "wgtorch.graph_readers": {
        "wgtorch.integrations.comfy.importer": ("comfy",), "wgtorch.integrations.diffusers.importer": ("diffusers",),
        "wgtorch.integrations.diffusers.modular": ("modular",),
    },
    "wgtorch.graph_writers": {"wgtorch.integrations.diffusers.exporter": ("diffusers",)},
    "wgtorch.solver_changes": {"wgtorch.integrations.diffusers.solver_change": ("diffusers",)},
    "wgtorch.adapter_names": {
        "wgtorch.integrations.diffusers.families": (
            "ChromaTransformer2DModel", "CogVideoXTransformer3DModel", "Flux2Transformer2DModel", "HunyuanVideoTransformer3DModel",
            "LTXVideoTransformer3DModel", "Lumina2Transformer2DModel", "UNetMotionModel",
            "FluxTransformer2DModel", "PixArtTransformer2DModel", "QwenImageTransformer2DModel", "SD3Transformer2DModel",
            "SanaTransformer2DModel", "UNet2DConditionModel", "WanTransformer3DModel", "ZImageTransformer2DModel",
        ),
    },
    "wgtorch.world_reports": {"wgtorch.report.report": ("html",)},
    "wgtorch.models": {"wgtorch.integrations.transformers.packaged_models": ("smollm2", "wordllama")},
    "wgtorch.converted_formats": {"wgtorch.integrations.transformers.gguf": ("gguf",)},
    "wgtorch.stored_types": {"wgtorch.blocks.diffusion.schedules.grid": ("sampling/grid", "sampling/state")},
    "wgtorch.views": {"wgtorch.report.glance": ("state", "history")},
    "wgtorch.adapter_hooks": {"wgtorch.lora.hook": ("default",)},
    "wgtorch.endpoints": {"wgtorch.serving.remote": ("http",)},
    "wgtorch.objectives": {
        "wgtorch.train.objectives.denoising": ("denoising",), "wgtorch.train.objectives.preference": ("dpo",),
        "wgtorch.train.objectives.consistency": ("lcm",), "wgtorch.train.objectives.policy": ("ddpo",),
        "wgtorch.train.objectives.reconstruction": ("reconstruction",), "wgtorch.train.objectives.tokens": ("next_token",),
        "wgtorch.train.objectives.answers": ("answering",), "wgtorch.train.objectives.classification": ("classification",),
        "wgtorch.train.objectives.world_state": ("world_state",), "wgtorch.train.objectives.reward": ("reward",),
        "wgtorch.train.scenes.painter": ("scene_painting",), "wgtorch.train.scenes.upscaling": ("upscaling",),
        "wgtorch.train.scenes.captioner": ("scene_describing", "scene_reading"),
        "wgtorch.train.simulation.actions": ("action_reading",), "wgtorch.train.pixel_scenes.describer": ("pixel_scene_describing",),
        "wgtorch.train.pixel_scenes.painter": ("plan_reading",),
    },
    "wgtorch.rewards": {
        "wgtorch.train.objectives.reward": ("brightness", "label_likelihood"),
    },
    "wgtorch.data": {
        "wgtorch.train.data.synthetic": ("synthetic",), "wgtorch.train.data.tensors": ("tensors",), "wgtorch.train.data.rows": ("rows",),
        "wgtorch.train.data.image_folder": ("image_folder",), "wgtorch.train.scenes.data": ("scenes", "scene_captions"),
        "wgtorch.train.simulation.actions": ("typed_actions",),
        "wgtorch.train.simulation.narration": ("narrations",), "wgtorch.train.simulation.readings": ("typed_readings",),
        "wgtorch.train.pixel_scenes.data": ("pixel_scenes",),
    },
    "wgtorch.evaluators": {
        "wgtorch.evaluation.agreement": ("intent_outcome", "artifacts_description", "recipe_picture"),
        "wgtorch.evaluation.revisit": ("revisit",), "wgtorch.evaluation.reruns": ("action_effect", "determinism"),
        "wgtorch.evaluation.cost": ("cost",),
        "wgtorch.evaluation.simulation": ("contradictions", "caused", "new_facts", "distinct_4", "narration"),
    },
    "wgtorch.providers": {
        "wgtorch.integrations.api.providers.openai": ("openai", "qwen", "ollama", "vllm", "llama_cpp", "transformers_serve"),
        "wgtorch.integrations.api.providers.anthropic": ("anthropic",),
        "wgtorch.integrations.api.providers.openai_responses": ("openai_responses",),
    },
    "wgtorch.backends": {
        "wgtorch.integrations.api.backends": (
            "llm/api", "vlm/api", "embedder/api", "image_generator/api", "speech_to_text/api", "text_to_speech/api",
        ),
        "wgtorch.integrations.transformers.language": ("llm/local",), "wgtorch.integrations.transformers.vision": ("vlm/local",),
        "wgtorch.integrations.transformers.embedding": ("embedder/local",),
        "wgtorch.integrations.transformers.static_embedding": ("embedder/static",),
        "wgtorch.integrations.transformers.speech": ("speech_to_text/local", "text_to_speech/local"),
        "wgtorch.integrations.llama_cpp.language": ("llm/llama_cpp",), "wgtorch.integrations.onnx.backends": ("embedder/onnx", "vlm/onnx"),
        "wgtorch.integrations.diffusers.image_backend": ("image_generator/local",),
    },
}  # fmt: skip


def install() -> None:
    """Tells the registries which module provides which name; imports none of them."""
    for group, modules in {"wgtorch.blocks": _BLOCKS, "wgtorch.templates": _TEMPLATES, **_OTHERS}.items():
        provide_modules(group, modules)
