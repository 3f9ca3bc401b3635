"""The broker: started, provisioned, guarded."""
