"""The description of all HTTP interfaces, as OpenAPI: from their routes and from what checks their bodies."""
