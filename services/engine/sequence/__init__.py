"""One text: prompt, slot, sequence, stop strings, what comes out."""
