"""stub"""

from ..core.resource import Resource

__all__ = ["OvsPool"]


class OvsPool(Resource):
    """x"""

    def __init__(self, entrance: object) -> None:
        pass
