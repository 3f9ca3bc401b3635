"""The same questions asked or learnt from in several ways, and how far the figures differ between these."""
