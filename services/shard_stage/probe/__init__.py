"""The offer of an instance to pipelines, measured."""
