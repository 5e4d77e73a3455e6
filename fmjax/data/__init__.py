"""Data: sources of rows, inputs made of rows, tokenizers, batches."""
