"""Hugging Face's GPT-2 and BERT: their names, their sizes, and what they may not change."""

from typing import Any, NamedTuple


class Family(NamedTuple):
    """How one Hugging Face family names what our modules hold.

    Attributes:
        model_type: As in ``config.json``.
        prefix: Of the body's names; absent in files of the body alone.
        outer: Modules outside the blocks, ours to theirs.
        block: Modules of a block, ours to theirs; theirs may be several, stacked in ours.
        block_prefix: Of a block's names, theirs.
        transposed: Whether their linear weights are stored input first.
        sizes: Names of the sizes in ``config.json``.
        fixed: Entries of ``config.json`` that change what is computed, with the values that our
            classes compute with; the family's own defaults where they agree.
        silent: Entries that change nothing here: names, versions, and what sizes, rates of dropout
            or generation are by default.
        norm_first: Place of the norms.
    """

    model_type: str
    prefix: str
    outer: dict[str, str]
    block: dict[str, tuple[str, ...]]
    block_prefix: str
    transposed: bool
    sizes: dict[str, str]
    fixed: dict[str, Any]
    norm_first: bool
    silent: tuple[str, ...] = ()


GPT2 = Family(
    model_type="gpt2",
    prefix="transformer.",
    outer={
        "token_embedding": "transformer.wte",
        "position_embedding": "transformer.wpe",
        "norm": "transformer.ln_f",
    },
    block={
        "norm1": ("ln_1",),
        "attention.in_proj": ("attn.c_attn",),
        "attention.out_proj": ("attn.c_proj",),
        "norm2": ("ln_2",),
        "feed_forward.0": ("mlp.c_fc",),
        "feed_forward.2": ("mlp.c_proj",),
    },
    block_prefix="transformer.h.",
    transposed=True,
    sizes={
        "vocab_size": "vocab_size",
        "context_length": "n_positions",
        "d_model": "n_embd",
        "num_layers": "n_layer",
        "num_heads": "n_head",
    },
    fixed={
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
        "is_encoder_decoder": False,
        "n_inner": None,
    },
    norm_first=True,
    silent=(
        *("n_ctx", "attn_pdrop", "embd_pdrop", "resid_pdrop", "use_cache"),
        *("summary_activation", "summary_first_dropout", "summary_proj_to_labels"),
        *("summary_type", "summary_use_proj"),
    ),
)

BERT = Family(
    model_type="bert",
    prefix="bert.",
    outer={
        "bert.token_embedding": "bert.embeddings.word_embeddings",
        "bert.position_embedding": "bert.embeddings.position_embeddings",
        "bert.segment_embedding": "bert.embeddings.token_type_embeddings",
        "bert.embedding_norm": "bert.embeddings.LayerNorm",
        "pooler.dense": "bert.pooler.dense",
        "masked_head.dense": "cls.predictions.transform.dense",
        "masked_head.norm": "cls.predictions.transform.LayerNorm",
        "masked_head": "cls.predictions",
        "next_head": "cls.seq_relationship",
    },
    block={
        "attention.in_proj": tuple(f"attention.self.{n}" for n in ("query", "key", "value")),
        "attention.out_proj": ("attention.output.dense",),
        "norm1": ("attention.output.LayerNorm",),
        "feed_forward.0": ("intermediate.dense",),
        "feed_forward.2": ("output.dense",),
        "norm2": ("output.LayerNorm",),
    },
    block_prefix="bert.encoder.layer.",
    transposed=False,
    sizes={
        "vocab_size": "vocab_size",
        "context_length": "max_position_embeddings",
        "d_model": "hidden_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
    },
    fixed={
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "tie_word_embeddings": True,
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "is_decoder": False,
        "add_cross_attention": False,
        "is_encoder_decoder": False,
    },
    norm_first=False,
    silent=(
        *("attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout"),
        *("intermediate_size", "use_cache", "directionality", "gradient_checkpointing"),
        *(f"pooler_{name}" for name in ("fc_size", "num_attention_heads", "num_fc_layers")),
        *("pooler_size_per_head", "pooler_type"),
    ),
)


# Entries of every family that change nothing here.
_SILENT = (
    *("architectures", "model_type", "torch_dtype", "dtype", "_name_or_path", "name_or_path"),
    *("transformers_version", "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id"),
    *("initializer_range", "task_specific_params", "id2label", "label2id", "num_labels"),
    *("problem_type", "finetuning_task", "return_dict", "output_attentions", "torchscript"),
    *("output_hidden_states", "output_past", "_attn_implementation", "use_bfloat16"),
    *("tokenizer_class", "prefix", "cross_attention_hidden_size", "chunk_size_feed_forward"),
    *("decoder_start_token_id", "tie_encoder_decoder", "pruned_heads", "auto_map"),
    *("_num_labels", "gradient_checkpointing", "language", "name", "_attn_implementation_autoset"),
    # What generation does by default, as older files keep it.
    *("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "temperature"),
    *("num_beam_groups", "diversity_penalty", "top_k", "top_p", "typical_p", "length_penalty"),
    *("repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"),
    *("bad_words_ids", "num_return_sequences", "output_scores", "return_dict_in_generate"),
    *("forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values", "suppress_tokens"),
    *("exponential_decay_length_penalty", "begin_suppress_tokens", "tf_legacy_loss"),
)


def check_config(config: dict[str, Any], family: Family, source: str) -> None:
    """Compares every entry of ``config.json`` with what our class computes.

    Raises:
        ValueError: Naming the entry that differs, or that nobody here knows.
    """
    for name, value in config.items():
        wanted = family.fixed.get(name, value)
        if name == "n_inner" and value == 4 * config.get("n_embd", 0):
            continue
        if value != wanted:
            raise ValueError(
                f"pretrained {source} has {name}={value}, not {wanted}: it computes something else"
            )
        known = (*family.fixed, *family.sizes.values(), *family.silent, *_SILENT)
        if name not in known and value not in (None, False, {}, []):
            raise ValueError(
                f"pretrained {source} has {name}={value!r}, which may change what it computes and "
                "is not known here; give a plain GPT-2 or BERT"
            )
