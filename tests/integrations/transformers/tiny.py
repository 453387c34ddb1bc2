"""Tiny models of every kind with random weights and real tokenizers, in folders as transformers writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

SENTENCES = (
    "The lighthouse keeper climbs the stairs and lights the lamp.",
    "A storm comes from the sea, and the harbour is dark.",
    "Смотритель маяка поднимается по лестнице и зажигает лампу.",
    "Describe what is in the picture. Write in English. Write in Russian.",
    '{"prompts": ["a red castle"], "negative_prompt": "blurry", "event": "", "summary": ""}',
)
CHAT = (
    "{% for message in messages %}<|{{ message.role }}|>"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SMOLLM2_CHAT = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}<|system|>You are a helpful assistant<|end|>"
    "{% endif %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<image>")


def tokenizer(*, chat: bool = True, size: int = 400, length: int = 100_000) -> Any:
    """A byte-level BPE tokenizer trained on :data:`SENTENCES`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    words.train_from_iterator(SENTENCES, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=words,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=list(SPECIAL[2:]),
        model_max_length=length,
    )
    if chat:
        made.chat_template = CHAT
    return made


def _text_settings(words: Any, positions: int, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": positions, "initializer_range": 0.3,
        "bos_token_id": None, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id, **more,
    }  # fmt: skip


def language_model(folder: Path, *, chat: bool = True, positions: int = 4096, seed: int = 0, **more: Any) -> Path:
    """A Llama of two layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer(chat=chat)
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**_text_settings(words, positions, **more))).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def vision_model(folder: Path, *, seed: int = 0) -> Path:
    """A LLaVA of CLIP's vision tower and a Llama, for pictures of 16 x 16 pixels."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    words = tokenizer()
    torch.manual_seed(seed)
    tower = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8, projection_dim=16
    )
    config = LlavaConfig(
        vision_config=tower,
        text_config=LlamaConfig(**_text_settings(words, 4096)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer=words,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=CHAT,
        image_token="<image>",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


def captioner(folder: Path, *, seed: int = 0) -> Path:
    """A BLIP, which has no chat template."""
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    words = tokenizer(chat=False)
    torch.manual_seed(seed)
    text = {
        "vocab_size": len(words), "hidden_size": 16, "encoder_hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 128, "projection_dim": 16, "initializer_range": 0.3,
        "bos_token_id": 2, "eos_token_id": 1, "sep_token_id": 1, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 16, "width": 16}), words).save_pretrained(folder)
    return folder


def sentence_encoder(folder: Path, *, seed: int = 0) -> Path:
    """A BERT of two layers."""
    from transformers import BertConfig, BertModel

    words = tokenizer(chat=False)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, pad_token_id=words.pad_token_id, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def listener(folder: Path, *, seed: int = 0) -> Path:
    """A Whisper of two layers that hears two seconds."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor

    words = tokenizer(chat=False)
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=len(words), num_mel_bins=16, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, max_source_positions=100, max_target_positions=32,
        decoder_start_token_id=2, bos_token_id=2, eos_token_id=1, pad_token_id=0, suppress_tokens=[], begin_suppress_tokens=[],
        init_std=0.5,
    )  # fmt: skip
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=16, chunk_length=2), words).save_pretrained(folder)
    return folder


def voice(folder: Path, *, seed: int = 0) -> Path:
    """A VITS with two speakers."""
    from transformers import VitsConfig, VitsModel, VitsTokenizer

    letters = "_ abcdefghijklmnopqrstuvwxyz"
    folder.mkdir(parents=True)
    (folder / "letters.json").write_text(json.dumps({letter: index for index, letter in enumerate(letters)}))
    torch.manual_seed(seed)
    config = VitsConfig(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=24, flow_size=16,
        spectrogram_bins=17, upsample_initial_channel=16, upsample_rates=[4, 4], upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]], num_speakers=2, speaker_embedding_size=8,
        prior_encoder_num_flows=2, posterior_encoder_num_wavenet_layers=2, prior_encoder_num_wavenet_layers=2,
        duration_predictor_num_flows=2, depth_separable_num_layers=2,
    )  # fmt: skip
    VitsModel(config).save_pretrained(folder)
    VitsTokenizer(str(folder / "letters.json"), phonemize=False, add_blank=True).save_pretrained(folder)
    return folder


def gguf_file(path: Path, *, seed: int = 0) -> tuple[Path, dict[str, torch.Tensor]]:
    """SmolLM2's twin of two layers and random weights as a GGUF file, and its weights under transformers' names."""
    import gguf
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer()
    words.chat_template = SMOLLM2_CHAT
    torch.manual_seed(seed)
    settings = _text_settings(words, 512, hidden_size=64, intermediate_size=96, tie_word_embeddings=True)
    settings["vocab_size"] = -(-len(words) // 32) * 32
    config = LlamaConfig(**settings)
    state = LlamaForCausalLM(config).state_dict()
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    model = json.loads(words.backend_tokenizer.to_str())["model"]
    by_id = {index: token for token, index in words.get_vocab().items()}
    tokens = [by_id.get(index, f"<unused{index}>") for index in range(config.vocab_size)]
    tokens[-1] = "<|endoftext|>"  # transformers would add it
    kinds = [gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]])
    writer.add_bos_token_id(words.eos_token_id)
    writer.add_eos_token_id(words.eos_token_id)
    writer.add_pad_token_id(words.pad_token_id)
    writer.add_chat_template(SMOLLM2_CHAT)
    for name, tensor in state.items():
        if name == "lm_head.weight":
            continue
        values = tensor
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name:  # llama.cpp turns pairs of neighbours, transformers halves
                values = tensor.reshape(heads, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        kind = gguf.GGMLQuantizationType.Q8_0 if tensor.dim() == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(_gguf_name(name), gguf.quants.quantize(values.float().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, state


_GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def _gguf_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_GGUF_NAMES[rest.removesuffix('.weight')]}.weight"
