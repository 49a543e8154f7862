"""fp16, bf16, int8 and fp8 graphs of a float32 one, each behind its gate."""
