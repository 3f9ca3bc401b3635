"""The text of a licence that lies beside a model at a hub."""

from __future__ import annotations

from schemas.errors import ChoirError
from services.chassis.logs import get_logger
from services.modelstore.catalogue.gguf_facts import licence_text
from services.modelstore.hub.download import opened
from services.modelstore.settings import ModelStoreSection

MOST_BYTES = 131_072
PAGES = ("text/html", "application/xhtml+xml")

log = get_logger("modelstore.hub")


def fetched_licence(settings: ModelStoreSection, url: str) -> str | None:
    """The text at an address of the hub, cut to what the catalogue keeps. Blocks; None, and the log says why,
    if there is none to be had: no pull fails for that."""
    import httpx

    try:
        with opened(settings, url, 0, MOST_BYTES - 1) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if response.status_code not in (200, 206) or kind in PAGES:
                log.warning("the hub gives no licence", url=url, status=response.status_code, kind=kind)
                return None
            content = bytearray()
            for piece in response.iter_raw():
                content += piece
                if len(content) >= MOST_BYTES:
                    break
    except (ChoirError, httpx.HTTPError) as error:
        log.warning("the hub gives no licence", url=url, why=str(error))
        return None
    return licence_text(content[:MOST_BYTES].decode("utf-8", "replace"))
