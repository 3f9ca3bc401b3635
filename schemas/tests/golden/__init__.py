"""What every message looks like on the wire, one file each, so that a change of it shows in review."""
