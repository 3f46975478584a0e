"""Knowledge texts to dense vectors: sentence encoders, and versions of embeddings."""

from pipeline.encode.encoder import Encoder, EncoderIdentity, load_encoder

__all__ = ["Encoder", "EncoderIdentity", "load_encoder"]
