"""The agent: generates answers with the models that it serves, and with external workers."""
