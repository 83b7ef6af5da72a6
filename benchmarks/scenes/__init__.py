"""The trainer of the embedded model `scenes`: pictures, talk, tokenizer, training and the quality table."""
