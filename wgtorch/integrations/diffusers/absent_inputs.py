"""Arguments of pipelines' calls that a graph may lack, and what does the same here."""

from __future__ import annotations

_CALLBACKS = "run(..., callbacks=[...]) tells of every step, and steer(graph, loss) changes latents in them"
_ADAPTERS = "the weight of an adapter is said by lora.set_adapter(graph, {'style': 0.5})"
_IP_ADAPTER = "the graph has no IP-Adapter; add one: graph.add_node(IPAdapter.from_file(...), 'ip')"
_SKIPPED = (
    "layers are skipped by guidance/pag with one more place of the backbone; see wgtorch.blocks.diffusion.guidance.PerturbedAttention"
)
_REFINER = "only a model that was trained with such scores is told them"
_HINTS = {
    **dict.fromkeys(("callback", "callback_steps", "callback_on_step_end", "callback_on_step_end_tensor_inputs"), _CALLBACKS),
    **dict.fromkeys(("cross_attention_kwargs", "joint_attention_kwargs", "attention_kwargs"), _ADAPTERS),
    **dict.fromkeys(("ip_adapter_image", "ip_adapter_image_embeds"), _IP_ADAPTER),
    **dict.fromkeys(("negative_ip_adapter_image", "negative_ip_adapter_image_embeds"), _IP_ADAPTER),
    **dict.fromkeys(
        ("skip_guidance_layers", "skip_layer_guidance_scale", "skip_layer_guidance_start", "skip_layer_guidance_stop"), _SKIPPED
    ),
    **dict.fromkeys(("aesthetic_score", "negative_aesthetic_score"), _REFINER),
    **dict.fromkeys(("prompt_2", "negative_prompt_2"), "the pipeline takes it and reads it nowhere"),
    "num_videos_per_prompt": "the pipeline makes one for each prompt, whatever is asked; give the prompt several times",
    "image": "to start from a picture is another task; make the graph with task='image_to_image' or 'image_to_video'",
    "image_embeds": "the transformer of this graph sees no picture through CLIP",
    **dict.fromkeys(
        ("control_guidance_start", "control_guidance_end"), "they are settings of the node: ControlNet(..., start=0.2, end=0.8)"
    ),
    "return_dict": "a run gives its outputs by name",
    "padding_mask_crop": "cut picture and mask to what is painted before the run, and put the result back after it",
    "masked_image_latents": "give the masked picture's latents as 'masked_encoder.latent', if the model sees them at all",
    "eta": "the solver of this graph takes none; DDIM and TCD do",
    "mu": "the schedule of this graph is not shifted by the size of the picture",
    "timesteps": "give the sigmas of the flow instead, which are timesteps / 1000",
    "guidance_scale_2": "only a model of two stages is guided by a second scale",
    "use_dynamic_cfg": "feed a scale for each step, as guidance of your own does: replace the node guidance",
    **dict.fromkeys(("decode_timestep", "decode_noise_scale"), "the decoder of this model takes no step itself"),
    "caption_upsample_temperature": "prompts that are written anew are not supported; give the new prompt",
}


def hint_at(name: str) -> str:
    """What does the same as an argument of a pipeline's call, where a graph has no input of that name; empty for any other name."""
    return _HINTS.get(name, "")
