"""What knowledge is worth to CTR models, and whether relaxed decoding costs anything of it."""
