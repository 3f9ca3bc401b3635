"""The processes of a host: started, listened to, watched, and ended with it."""
