"""Files made hostile: what bytes, JSON and archives become when chance, or someone, changes them."""

from __future__ import annotations

import copy
import io
import json
import struct
import tarfile
import zipfile

#: Values that readers trip over, put in place of any value of a record.
ODD_VALUES = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**9, 10**30, -(10**9), 0.5, 1e308, -0.0,
    float("nan"), float("inf"), float("-inf"), "", " ", "a", "../../etc/passwd", "/etc/passwd",
    "\x00", "\x1b[31m", "é" * 40, "x" * 5000, "1", "null", "torch.load", "os:system", "http://127.0.0.1:9/x",
    [], [[]], [None], [1, 2, 3], ["a", "a"], [float("nan")], list(range(300)), {}, {"a": 1}, {"": {}},
    {"method": "si"}, {"class_path": "os.system", "init_args": {}},
)  # fmt: skip
#: Bytes that mean something in one of the formats.
TOKENS = (
    b"\x00", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"PK\x03\x04", b"PK\x01\x02",
    b"PK\x05\x06", b"..", b"../", b"/", b"\n", b"\t", b",", b"{", b"}", b"[", b"]", b'"', b"null", b"NaN",
    b"-1", b"1e999",
    b"\xff\xd8\xff", b"\xff\xda", b"IHDR", b"IEND", b"GIF89a", b"Exif\x00\x00", b"GNU.sparse.major=1\n",
    b"9" * 30, b"\x80\x02", b"cos\nsystem\n", b"ustar", b"x" * 300,
)  # fmt: skip


def mutated_bytes(draw, content):
    """A few bytes changed, cut, doubled, moved or put in."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        kind = draw.randrange(9)
        at = draw.randrange(len(data) + 1)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << draw.randrange(8)
        elif kind == 1 and data:
            data[min(at, len(data) - 1)] = draw.choice(
                (0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256))
            )
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + draw.choice((1, 4, 64, 1024))]
        elif kind == 4:
            data[at:at] = draw.choice(TOKENS)
        elif kind == 5:
            token = draw.choice(TOKENS)
            data[at : at + len(token)] = token
        elif kind == 6:
            end = at + draw.choice((1, 8, 200))
            data[at:at] = data[at:end] * draw.choice((1, 2, 50))
        elif kind == 7:
            number = draw.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, draw.randrange(2**32)))
            data[at : at + 4] = struct.pack(draw.choice("<>") + "I", number)
        else:
            # Heads decide: half of all changes are among the first bytes.
            at = draw.randrange(min(len(data), 64) + 1)
            data[at : at + 1] = bytes([draw.randrange(256)])
    return bytes(data)


def mutated_value(draw, value):
    """Plain data with one or a few places changed, at any depth."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return draw.choice(ODD_VALUES)
        holder, key = draw.choice(places)
        kind = draw.randrange(8)
        if kind <= 3:
            holder[key] = copy.deepcopy(draw.choice(ODD_VALUES))
        elif kind == 4:
            del holder[key]
        elif kind == 5 and isinstance(holder, dict):
            holder[draw.choice(("", "extra", "a\x00b", str(key) + "_", "9" * 50))] = holder[key]
        elif kind == 6:
            other_holder, other_key = draw.choice(places)
            holder[key] = copy.deepcopy(other_holder[other_key])
        else:
            depth = draw.choice((3, 100, 5000))
            nested = holder[key]
            for _ in range(min(depth, 100)):
                nested = [nested]
            holder[key] = nested
    return value


def _places(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield value, key
            yield from _places(inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield value, index
            yield from _places(inner)


def mutated_json(draw, text):
    """JSON text with values or bytes changed, or nested deeper than a parser's stack."""
    kind = draw.randrange(10)
    if kind == 0:
        depth = draw.choice((500, 5_000, 200_000))
        return draw.choice(("[" * depth, '{"a":' * depth, "[" * depth + "]" * depth)).encode()
    if kind == 1:
        return (
            text[: len(text) // 2] + "9" * draw.choice((400, 5000)) + text[len(text) // 2 :]
        ).encode()
    if kind <= 3:
        return mutated_bytes(draw, text.encode())
    return json.dumps(mutated_value(draw, json.loads(text))).encode()


def mutated_safetensors(draw, content):
    """The head's JSON, the record in it, or bytes anywhere."""
    size = struct.unpack("<Q", content[:8])[0]
    head, tensors = json.loads(content[8 : 8 + size]), content[8 + size :]
    kind = draw.randrange(10)
    if kind <= 1:
        return mutated_bytes(draw, content)
    if kind == 2:
        head = mutated_value(draw, head)
    else:
        record = mutated_json(draw, head["__metadata__"]["nearfar"])
        head["__metadata__"]["nearfar"] = record.decode(errors="replace")
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def mutated_zip(draw, content):
    """Members changed, renamed, doubled or left out; or bytes anywhere."""
    if draw.randrange(3) == 0:
        return mutated_bytes(draw, content)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w") as target:
        members = [(info.filename, source.read(info)) for info in source.infolist()]
        victim = draw.randrange(len(members))
        for index, (name, data) in enumerate(members):
            if index == victim:
                kind = draw.randrange(5)
                if kind == 0:
                    continue
                if kind == 1:
                    name = draw.choice(("../" + name, "/" + name, name + "\x00", "é" + name, ""))
                elif kind == 2:
                    data = draw.choice((b"", data * 2, data[: len(data) // 2]))
                elif kind == 3 and data[:1] in b"{[":
                    data = (
                        mutated_json(draw, data.decode(errors="replace"))
                        if _is_json(data)
                        else data
                    )
                else:
                    data = mutated_bytes(draw, data)
            target.writestr(name or "empty", data)
    result = out.getvalue()
    if draw.randrange(6) == 0:  # names that are no text
        result = result.replace(b"archive/", b"\xff\xfe\xfd\xfchi\xc3/"[:8])
    return result


def _is_json(data):
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def mutated_tar(draw, content):
    """Members renamed, doubled, made links or devices, of other sizes; heads rewritten; or bytes anywhere."""
    kind = draw.randrange(4)
    if kind == 0:
        return mutated_bytes(draw, content)
    if kind == 1:  # bytes of one head, with a right checksum
        data = bytearray(content)
        at = 512 * draw.randrange(max(1, len(data) // 512))
        head = bytearray(data[at : at + 512].ljust(512, b"\0"))
        for _ in range(draw.choice((1, 2, 8))):
            field, length = draw.choice(
                ((0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155))
            )
            kind = b"gLKxSDV1234567"[draw.randrange(14) :][:1]
            tokens = (
                b"../../x",
                b"/x",
                b"\xff" * length,
                b"7" * length,
                b"\x80" + b"\xff" * 11,
                kind,
                b"",
            )
            token = draw.choice(tokens)
            head[field : field + length] = token[:length].ljust(length, b"\0")
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        data[at : at + 512] = head
        return bytes(data)
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(content)) as source:
        form = draw.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT))
        with tarfile.open(fileobj=out, mode="w", format=form) as target:
            members = source.getmembers()
            victim = draw.randrange(len(members))
            for index, info in enumerate(members):
                data = b"" if not info.isfile() else source.extractfile(info).read()
                if index == victim:
                    _spoil_member(draw, info)
                    data = data if draw.randrange(3) else mutated_bytes(draw, data)
                    info.size = len(data) if info.isfile() else 0
                try:
                    target.addfile(info, io.BytesIO(data) if info.isfile() else None)
                    if index == victim and draw.randrange(4) == 0:
                        target.addfile(info, io.BytesIO(data) if info.isfile() else None)
                except (ValueError, UnicodeError):
                    pass  # what the format itself cannot hold
    return out.getvalue()


def _spoil_member(draw, info):
    kind = draw.randrange(7)
    if kind == 0:
        info.name = draw.choice(("../" + info.name, "/" + info.name, "a/../../b.png", "", "x" * 300 + ".png",
                                 "é/" + info.name, "a\nb/c.png", "\x1b[31m/x.png"))  # fmt: skip
    elif kind == 1:
        info.type, info.linkname = draw.choice(
            (
                (tarfile.SYMTYPE, "/etc/passwd"),
                (tarfile.LNKTYPE, "../x"),
                (tarfile.CHRTYPE, ""),
                (tarfile.FIFOTYPE, ""),
            )
        )
    elif kind == 2:
        info.pax_headers = draw.choice((
            {"GNU.sparse.map": "a,b"}, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
            {"GNU.sparse.size": "9" * 30}, {"size": "9" * 25}, {"path": "../../x.png"}, {"mtime": "nan"},
            {"GNU.sparse.major": "x", "GNU.sparse.minor": "0"}, {"hdrcharset": "BINARY", "path": "\udcff"},
        ))  # fmt: skip
    elif kind == 3:
        info.name = info.name.rpartition(".")[0] + ".cls"
    elif kind == 4:
        info.mtime = draw.choice((-1, 2**40, 1e300))
    elif kind == 5:
        info.type = draw.choice((b"S", b"7", b"Z", b"g"))


def mutated_lines(draw, text):
    """Text of lines: a line doubled, cut, moved, or with other fields; or bytes anywhere."""
    lines = text.splitlines(keepends=True)
    kind = draw.randrange(6)
    if kind == 0 or not lines:
        return mutated_bytes(draw, text.encode())
    at = draw.randrange(len(lines))
    if kind == 1:
        lines.insert(at, lines[at])
    elif kind == 2:
        del lines[at]
    elif kind == 3:
        draw.shuffle(lines)
    else:
        value = draw.choice(ODD_VALUES)
        fields = lines[at].replace(",", "\t").split("\t")
        fields[draw.randrange(len(fields))] = str(value)[:2000]
        lines[at] = "\t".join(fields)
    return "".join(lines).encode(errors="surrogatepass")


def mutated_yaml(draw, text):
    """A configuration with values changed, aliases that multiply, tags that would build objects."""
    import yaml

    kind = draw.randrange(8)
    if kind == 0:
        bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
        return (
            bomb
            + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
            + text
        ).encode()
    if kind == 1:
        tags = (
            "!!python/object/apply:os.system ['true']",
            "!!python/name:os.system",
            "!!binary gA==",
            "!x 1",
            "*a",
        )
        return (text + f"\nextra: {draw.choice(tags)}\n").encode()
    if kind == 2:
        return (
            text + "\nextra: " + draw.choice(("[", "{", "- ")) * draw.choice((100, 3000))
        ).encode()
    if kind == 3:
        return (text + f"\nseed: {'9' * draw.choice((30, 5000))}\n").encode()
    if kind == 4:
        return mutated_lines(draw, text)
    values = mutated_value(draw, yaml.safe_load(text))
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode(
        errors="surrogatepass"
    )


def mutated_words(draw, words):
    """A command line with words changed, cut, doubled or left out."""
    words = list(words)
    for _ in range(draw.choice((1, 1, 2, 3))):
        at = draw.randrange(len(words))
        kind = draw.randrange(6)
        value = str(draw.choice(ODD_VALUES)).replace("\x00", "")
        if kind == 0:
            words[at] = value
        elif kind == 1:
            del words[at]
        elif kind == 2:
            words.insert(at, value)
        elif kind == 3:
            words.insert(at, words[at])
        elif kind == 4:
            ends = ("=", ".", "[", "{", "'", '"', "--", "\n", "é", "9" * 5000)
            words[at] = words[at] + draw.choice(ends)
        else:
            words[at] = words[at][: draw.randrange(len(words[at]) + 1)]
    return words
