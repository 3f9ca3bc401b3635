"""The AsyncAPI document of all subjects and messages, from the catalog."""
