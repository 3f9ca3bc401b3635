"""What an instance offers to pipelines, measured."""
