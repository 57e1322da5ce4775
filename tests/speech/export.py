"""Write a trained network as a CTranslate2 directory, which both engines load unchanged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from ctranslate2.converters.transformers import WhisperLoader
from transformers import WhisperConfig, WhisperForConditionalGeneration

from tests.speech.lessons import EOT, SOT
from tests.speech.network import FIRST_TIME, FRAMES, MELS, TEXT_POSITIONS, Network
from tests.speech.vocabulary import token_id, tokenizer


def as_transformers(network: Network) -> WhisperForConditionalGeneration:
    """Return the same network as transformers knows it: tables written out, weights copied."""
    size = network.size
    config = WhisperConfig(
        vocab_size=tokenizer().get_vocab_size(),
        num_mel_bins=MELS,
        d_model=size.width,
        encoder_layers=size.encoder_layers,
        decoder_layers=size.decoder_layers,
        encoder_attention_heads=size.heads,
        decoder_attention_heads=size.heads,
        encoder_ffn_dim=4 * size.width,
        decoder_ffn_dim=4 * size.width,
        max_source_positions=FRAMES,
        max_target_positions=TEXT_POSITIONS,
        pad_token_id=EOT,
        bos_token_id=EOT,
        eos_token_id=EOT,
        decoder_start_token_id=SOT,
    )
    encoder, decoder = network.encoder, network.decoder
    weights = {}
    for side, module in (("encoder", encoder), ("decoder", decoder)):
        for name, weight in module.state_dict().items():
            if name != "gain" and not name.startswith("embedding."):
                weights[f"model.{side}.{name}"] = weight
        weights[f"model.{side}.embed_positions.weight"] = module.gain * module.positions
    table = decoder.embedding()
    weights["model.decoder.embed_tokens.weight"] = weights["proj_out.weight"] = table
    model = WhisperForConditionalGeneration(config)
    model.load_state_dict({name: weight.detach().clone() for name, weight in weights.items()})
    return model.eval()


def export(network: Network, folder: Path, quantization: str = "int8") -> None:
    """Write `folder` anew: weights, vocabulary, tokenizer and what the engines ask for."""
    with torch.no_grad():
        spec = WhisperLoader().get_model_spec(as_transformers(network))
    vocabulary = sorted(tokenizer().get_vocab().items(), key=lambda item: item[1])
    spec.register_vocabulary([token for token, _ in vocabulary])
    # The order of Whisper's tokens: the languages stand between two fixed ones.
    spec.config.lang_ids = list(range(SOT + 1, token_id("<|translate|>")))
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [token_id("Ġ")]
    last = network.size.decoder_layers - 1
    spec.config.alignment_heads = [[last, head] for head in range(network.size.timed)]
    spec.validate()
    spec.optimize(quantization=quantization)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spec.save(str(folder))
    tokenizer().save(str(folder / "tokenizer.json"), pretty=False)
    features = {
        "chunk_length": FRAMES // 50,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": MELS,
        "hop_length": 160,
        "n_fft": 400,
        "n_samples": FRAMES * 320,
        "nb_max_frames": FRAMES * 2,
        "padding_side": "right",
        "padding_value": 0.0,
        "processor_class": "WhisperProcessor",
        "return_attention_mask": False,
        "sampling_rate": 16000,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(features, indent=2) + "\n")
    assert len(vocabulary) == FIRST_TIME + FRAMES + 1
