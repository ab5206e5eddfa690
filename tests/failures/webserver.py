"""nginx for the tests of requests: a configuration of its own that also an ordinary user's namespace can run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["start_nginx"]

_CONFIG = """
user root; daemon off; master_process off; error_log stderr; pid "{folder}/pid";
events {{}}
http {{
    access_log off;
    client_body_temp_path "{folder}"; proxy_temp_path "{folder}"; fastcgi_temp_path "{folder}";
    uwsgi_temp_path "{folder}"; scgi_temp_path "{folder}";
    server {{
        {server}
    }}
}}
"""


def start_nginx(node: Any, folder: Path, server: str) -> Any:
    """Start it in a node, with what its server is to do in nginx's own words."""
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, server=server))
    return node.spawn(["nginx", "-c", config, "-e", "stderr"])
