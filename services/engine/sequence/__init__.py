"""One text on its way: prompt, slot, stop strings, what comes out."""
