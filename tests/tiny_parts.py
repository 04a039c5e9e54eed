"""Parts of tiny random checkpoints: tokenizers and encoders in the layouts that published models have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = ["a", "person", "talks", "waves", "red", "blue"]


def t5_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: n for n, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def clip_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: n for n, word in enumerate(["<|startoftext|>", "<|endoftext|>", *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[("<|startoftext|>", 0), ("<|endoftext|>", 1)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<|endoftext|>", eos_token="<|endoftext|>", bos_token="<|startoftext|>",
        unk_token="<|endoftext|>", model_max_length=77,
    )  # fmt: skip


def t5_encoder(cls: str = "T5EncoderModel") -> Any:
    import transformers

    config = {"T5EncoderModel": transformers.T5Config, "UMT5EncoderModel": transformers.UMT5Config}[cls]
    return getattr(transformers, cls)(config(
        vocab_size=len(WORDS) + 3, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )).eval()  # fmt: skip


def clip_vision(size: int = 28, projection: bool = False) -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=size,
        patch_size=14, projection_dim=12,
    )  # fmt: skip
    return (CLIPVisionModelWithProjection if projection else CLIPVisionModel)(config).eval()


def clip_processor(size: int = 28) -> Any:
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def wav2vec2(folder: Path) -> Path:
    """facebook/wav2vec2-base-960h."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(5)
    Wav2Vec2Model(Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )).save_pretrained(folder)  # fmt: skip
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder
