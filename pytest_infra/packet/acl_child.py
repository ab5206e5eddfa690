"""A process that runs DPDK's librte_acl for another one: it reads rules and keys, and writes which rules matched.

A process of its own, because DPDK's environment can be set up only once in a process, and moves its threads to
other cores. It ends when its standard input does.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from base64 import b64decode
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["Acl", "main", "start_environment"]

_MOST_FIELDS = 64  # RTE_ACL_MAX_FIELDS
_MEMORY_MIB = 64


class _FieldDefinition(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint8),
        ("size", ctypes.c_uint8),
        ("field_index", ctypes.c_uint8),
        ("input_index", ctypes.c_uint8),
        ("offset", ctypes.c_uint32),
    )


class _Config(ctypes.Structure):
    _fields_ = (
        ("num_categories", ctypes.c_uint32),
        ("num_fields", ctypes.c_uint32),
        ("defs", _FieldDefinition * _MOST_FIELDS),
        ("max_size", ctypes.c_size_t),
    )


class _Parameters(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("socket_id", ctypes.c_int),
        ("rule_size", ctypes.c_uint32),
        ("max_rule_num", ctypes.c_uint32),
    )


class _Field(ctypes.Structure):
    _fields_ = (("value", ctypes.c_uint64), ("mask_range", ctypes.c_uint64))


def _rule_type(fields: int) -> type[ctypes.Structure]:
    class Rule(ctypes.Structure):
        _fields_ = (
            ("category_mask", ctypes.c_uint32),
            ("priority", ctypes.c_int32),
            ("userdata", ctypes.c_uint32),
            ("field", _Field * fields),
        )

    return Rule


def start_environment(folder: str) -> None:
    """Set up DPDK's environment without hugepages, devices or files outside `folder` (rte_eal_init).

    Raises:
        OSError: the library is not there, or refuses.
    """
    os.environ["RUNTIME_DIRECTORY"] = os.environ["XDG_RUNTIME_DIR"] = folder
    library = ctypes.CDLL("librte_eal.so.23", mode=ctypes.RTLD_GLOBAL)
    core = str(min(os.sched_getaffinity(0)))
    options = ["acl", "--no-huge", "-m", str(_MEMORY_MIB), "--no-pci", "--no-shconf", "--no-telemetry", "-l", core]
    words = [*options, "--log-level=1"]
    argv = (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
    if library.rte_eal_init(len(words), argv) < 0:
        raise OSError("rte_eal_init refuses to start")


class Acl:
    """An access control list of librte_acl.

    Args:
        fields: type, size, place of the 4-byte word, and offset of each field of a key (struct rte_acl_field_def).
    """

    def __init__(self, fields: Sequence[Sequence[int]]) -> None:
        self._library = ctypes.CDLL("librte_acl.so.23")
        self._library.rte_acl_create.restype = ctypes.c_void_p
        self._fields = fields
        self._context: int | None = None
        self._number = 0

    def load(self, rules: Iterable[tuple[int, int, Sequence[Sequence[int]]]]) -> None:
        """Replace the rules: priority, number, and value with mask or end of range of each field.

        Raises:
            OSError: librte_acl refuses them.
        """
        rule_type, rules = _rule_type(len(self._fields)), list(rules)
        library = self._library
        if self._context is not None:
            library.rte_acl_free(ctypes.c_void_p(self._context))
        self._number += 1
        name = f"acl{self._number}".encode()
        self._context = library.rte_acl_create(
            ctypes.byref(_Parameters(name, -1, ctypes.sizeof(rule_type), max(len(rules), 1)))
        )
        if not self._context:
            raise OSError("rte_acl_create refuses")
        table = (rule_type * len(rules))()
        for entry, (priority, number, values) in zip(table, rules, strict=True):
            entry.category_mask, entry.priority, entry.userdata = 1, priority, number
            for place, (value, mask) in enumerate(values):
                entry.field[place] = _Field(value, mask)
        if code := library.rte_acl_add_rules(ctypes.c_void_p(self._context), table, len(rules)):
            raise OSError(f"rte_acl_add_rules refuses: {os.strerror(-code)}")
        config = _Config(num_categories=1, num_fields=len(self._fields))
        for place, (kind, size, word, offset) in enumerate(self._fields):
            config.defs[place] = _FieldDefinition(kind, size, place, word, offset)
        if code := library.rte_acl_build(ctypes.c_void_p(self._context), ctypes.byref(config)):
            raise OSError(f"rte_acl_build refuses: {os.strerror(-code)}")

    def classify(self, keys: bytes, size: int) -> list[int]:
        """The number of the rule that matches each key of `size` bytes; 0 for none."""
        count = len(keys) // size
        content = ctypes.create_string_buffer(keys, len(keys))
        start = ctypes.addressof(content)
        pointers = (ctypes.c_void_p * count)(*(start + size * place for place in range(count)))
        results = (ctypes.c_uint32 * count)()
        context = ctypes.c_void_p(self._context)
        if code := self._library.rte_acl_classify(context, pointers, results, count, 1):
            raise OSError(f"rte_acl_classify refuses: {os.strerror(-code)}")
        return list(results)


def main(arguments: Sequence[str]) -> None:
    """Answer the requests on standard input, one JSON object a line, until there are no more."""
    (folder,) = arguments
    start_environment(folder)
    acl: Acl | None = None
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        try:
            if "fields" in request:
                acl = Acl(request["fields"])
            assert acl is not None
            if "rules" in request:
                acl.load(request["rules"])
            keys = b64decode(request.get("keys", ""))
            reply: dict[str, object] = {"results": acl.classify(keys, request["size"]) if keys else []}
        except OSError as error:
            reply = {"error": str(error)}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
