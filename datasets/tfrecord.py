"""TFRecord files of examples, read without TensorFlow: numbers and bytes by name, nothing executed.

A record is its length (8 bytes, little-endian), 4 bytes of checksum of those, the message, 4 bytes of its checksum. The
message is a ``tf.train.Example`` in protocol buffers: a map from names to lists of bytes, floats or integers.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

LARGEST = 2**30
"""Bytes; a longer record is a damaged length."""
Feature = list[bytes] | np.ndarray


def read_examples(path: Path) -> Iterator[dict[str, Feature]]:
    """The examples of a file, one after the other.

    Yields:
        By name: bytes, or float32 numbers; integers are passed over.

    Raises:
        ValueError: If the file is damaged or cut short; what came before is good.
        OSError: If it cannot be read.
    """
    number = 0
    with path.open("rb") as file:
        while header := file.read(12):
            length = int.from_bytes(header[:8], "little")
            if len(header) < 12 or length > LARGEST or _masked_crc(header[:8]) != int.from_bytes(header[8:], "little"):
                raise ValueError(f"{path}: record {number} is damaged; download it again")
            message = file.read(length + 4)
            if len(message) < length + 4:
                raise ValueError(f"{path} ends in the middle of record {number}; download it again")
            try:
                yield _example(memoryview(message)[:length])
            except (IndexError, ValueError, struct.error) as error:
                raise ValueError(f"{path}: record {number} is no example ({error}); download it again") from error
            number += 1


def _example(message: memoryview) -> dict[str, Feature]:
    features: dict[str, Feature] = {}
    for _, features_message in _fields(message, 1):
        for _, entry in _fields(features_message, 1):
            name = b"".join(bytes(value) for _, value in _fields(entry, 1)).decode("utf-8")
            for _, feature in _fields(entry, 2):
                for kind, values in _fields(feature, 1, 2):
                    features[name] = _floats(values) if kind == 2 else [bytes(value) for _, value in _fields(values, 1)]
    return features


def _floats(message: memoryview) -> np.ndarray:
    # Packed into one field as usual, or each in its own.
    return np.concatenate([np.empty(0, "<f4"), *(np.frombuffer(value, "<f4") for _, value in _fields(message, 1))])


def _fields(message: memoryview, *wanted: int) -> Iterator[tuple[int, memoryview]]:
    """The fields of a protocol buffer that hold bytes: (number, content)."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(message, at)
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"field of kind {kind}")
        if at + size > len(message):
            raise ValueError("a field is longer than what holds it")
        if tag >> 3 in wanted:
            yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _masked_crc(data: bytes) -> int:
    """CRC-32C, turned and shifted as TFRecord has it; only lengths are checked, a whole record would take too long."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
