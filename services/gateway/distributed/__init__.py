"""The mesh for its operators: `/api/distributed/*` and `/metrics`."""

from services.gateway.distributed.overview import routes
from services.gateway.distributed.replies import error_reply
from services.gateway.http.dialect import Dialect

DISTRIBUTED = Dialect("distributed", "/api/distributed", routes, error_reply)
