"""`python -m pipeline.models.convert_gguf SOURCE.gguf TARGET`: dequantize into bfloat16 safetensors."""

import sys
from pathlib import Path

from pipeline.environment import forbid_hub_access
from pipeline.models.folder import GGUF_MAGIC


def convert(source: Path, target: Path) -> None:
    """Write model and tokenizer of the GGUF file `source` into the folder `target`."""
    with source.open("rb") as stream:  # before the imports below, which take ten seconds
        if stream.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
            raise ValueError("not a GGUF file")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.bfloat16)
    # The weights are dequantized now; transformers would save them as if they still were quantized.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.save_pretrained(target, safe_serialization=True)
    tokenizer.save_pretrained(target)
    for file in target.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    forbid_hub_access()  # before transformers is imported
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
