"""fp16, bf16 and int8 graphs of a float32 one, each behind its gate."""
