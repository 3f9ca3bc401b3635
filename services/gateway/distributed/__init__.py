"""The mesh for its operators: `/api/distributed/*` and `/metrics`."""

from services.gateway.dialect import Dialect
from services.gateway.distributed.overview import error_reply, routes

DISTRIBUTED = Dialect("distributed", "/api/distributed", routes, error_reply)
