"""DER (X.690) as a tree: one element changed, and every length around it right again.

A byte changed at random ends at the first length that is wrong.  What is behind the
parser, names, extensions, dates, is only reached by certificates that are whole, and
signed again after the change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz.cutter import Cutter

_CONSTRUCTED = 0x20
_OCTETS, _BITS = 0x04, 0x03


@dataclass(frozen=True, eq=False)
class Node:
    """An element; one whose content is DER has `kids`, any other `content`."""

    tag: int
    content: bytes
    kids: tuple[Node, ...] = ()


class Template:
    """An honest element, of which broken ones are made."""

    def __init__(self, der: bytes) -> None:
        (self.root,) = _parsed(der)
        self._flat = list(_flat(self.root))
        self.der = der

    def mutated(self, cut: Cutter) -> bytes:
        """The same, or some elements of it changed; the outermost stays."""
        return encoded(self.root, self._swaps(cut, self._flat))

    def signed(self, cut: Cutter, sign: Callable[[bytes], bytes]) -> bytes:
        """The same, or changed in what is signed, and signed again."""
        body, algorithm, _ = self.root.kids
        swaps = self._swaps(cut, list(_flat(body)))
        if not swaps:
            return self.der
        changed = encoded(body, swaps)
        signature = tlv(_BITS, b"\0" + sign(changed))
        return tlv(self.root.tag, changed + encoded(algorithm, {}) + signature)

    def _swaps(self, cut: Cutter, nodes: list[Node]) -> dict[Node, bytes]:
        swaps = {}
        for _ in range(cut.number(4)):
            node = nodes[1 + cut.number(len(nodes) - 1)]
            swaps[node] = self._other(cut, node)
        return swaps

    def _other(self, cut: Cutter, node: Node) -> bytes:
        whole = encoded(node, {})
        match cut.number(8):
            case 0:
                return tlv(node.tag, b"")
            case 1:
                return b""
            case 2:
                return whole * (2 + cut.number(3))
            case 3:
                return tlv(node.tag, cut.piece())
            case 4:
                return bytes((cut.number(256),)) + whole[1:]
            case 5:
                return encoded(cut.one_of(self._flat), {})
            case 6:
                return cut.piece()
        return tlv(node.tag, cut.mutated(_content(node, {})))


def tlv(tag: int, content: bytes) -> bytes:
    """An element in DER."""
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + content


def encoded(node: Node, swaps: dict[Node, bytes]) -> bytes:
    """The bytes of an element, some below it replaced."""
    if node in swaps:
        return swaps[node]
    return tlv(node.tag, _content(node, swaps))


def _content(node: Node, swaps: dict[Node, bytes]) -> bytes:
    return b"".join(encoded(kid, swaps) for kid in node.kids) or node.content


def _flat(node: Node) -> list[Node]:
    return [node, *(each for kid in node.kids for each in _flat(kid))]


def _parsed(data: bytes) -> list[Node]:
    """The elements that `data` is a row of; raises `ValueError` if it is none."""
    found = []
    while data:
        tag, size, start = data[0], data[1] if len(data) > 1 else 0, 2
        if size >= 0x80:
            start += size & 0x7F
            size = int.from_bytes(data[2:start], "big")
        content, data = data[start : start + size], data[start + size :]
        if len(content) != size or (start == 2 and size >= 0x80):
            msg = "no DER"
            raise ValueError(msg)
        found.append(_node(tag, content))
    return found


def _node(tag: int, content: bytes) -> Node:
    kids: list[Node] = []
    if tag & _CONSTRUCTED:
        kids = _parsed(content)
    elif tag == _OCTETS and content[:1] == b"\x30":  # the value of an extension
        try:
            kids = _parsed(content)
        except ValueError:
            kids = []
    return Node(tag, content, tuple(kids))
