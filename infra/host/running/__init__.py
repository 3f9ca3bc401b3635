"""What a supervisor keeps running: the services of its host, and the tasks that look after the mesh."""
