"""What less effort would have spared: cascades over kept answers, by the mesh's own rule of when to stop."""
