"""What services share about tasks: generating, token streams, token counts, results."""
