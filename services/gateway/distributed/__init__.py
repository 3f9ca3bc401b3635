"""The mesh for its operators: `/api/distributed/*` and `/metrics`."""

from services.gateway.distributed.overview import error_reply, routes
from services.gateway.http.dialect import Dialect

DISTRIBUTED = Dialect("distributed", "/api/distributed", routes, error_reply)
