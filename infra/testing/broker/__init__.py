"""The way to the broker in tests: cut, told nothing, recorded; and streams as if they were new."""
