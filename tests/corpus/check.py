#!/usr/bin/env python3
"""Is a posted payload exactly what its record calls for?

It has a JSON reader of its own, which keeps every literal as written, because
any library would hide the very faults that are looked for: numbers that went
through a double, keys that were sorted, duplicates that were dropped, escapes
that were rewritten. It must never import the code that it checks.

    check.py FOLDER PAYLOAD     FOLDER is one of records/, PAYLOAD a posted body
"""

import re
import sys

VERSIONS = {"bedrock": "1.0.0", "openai": "1.0.0", "anthropic": "3.0.0", "cohere": "2.1.0",
            "gemini": "2.2.0", "mistral": "2.4.0", "perplexity": "2.4.0"}

TOKEN = re.compile(rb"""[ \t\n\r]*(?:
    (?P<mark>[{}\[\]:,])
  | (?P<string>")
  | (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
  | (?P<word>true|false|null)
  | (?P<end>\Z))""", re.VERBOSE)
PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
ESCAPE = re.compile(rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
ESCAPED = re.compile(rb'\\(?:u([0-9a-fA-F]{4})|(.))', re.DOTALL)
SHORT = {b'"': b'"', b"\\": b"\\", b"/": b"/", b"b": b"\b", b"f": b"\f", b"n": b"\n",
         b"r": b"\r", b"t": b"\t"}


class Malformed(Exception):
    """The text is not one JSON value; str() says where."""


class Token:
    __slots__ = ("kind", "start", "end")

    def __init__(self, kind, start, end):
        self.kind, self.start, self.end = kind, start, end


class Reader:
    """One JSON text as tokens; each keeps its place in the text."""

    def __init__(self, data):
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed(f"invalid UTF-8 at byte {error.start}") from None
        self.data = data
        self.tokens = []
        at = 0
        while True:
            match = TOKEN.match(data, at)
            if not match:
                raise Malformed(f"no JSON token at byte {at}")
            kind = match.lastgroup
            if kind == "end":
                break
            start, at = match.start(kind), match.end()
            if kind == "string":
                at = self._string_end(at)
            elif kind == "mark":
                kind = chr(data[start])
            self.tokens.append(Token(kind, start, at))
        if not self.tokens or self.value_end(0) != len(self.tokens):
            raise Malformed("not exactly one JSON value")

    def _string_end(self, at):
        while True:
            at = PLAIN.match(self.data, at).end()
            if self.data[at:at + 1] == b'"':
                return at + 1
            escape = ESCAPE.match(self.data, at)
            if not escape:
                raise Malformed(f"a string breaks off at byte {at}")
            at = escape.end()

    def kind(self, index):
        return self.tokens[index].kind if index < len(self.tokens) else "end"

    def raw(self, index):
        return self.data[self.tokens[index].start:self.tokens[index].end]

    def raws(self):
        return [self.raw(index) for index in range(len(self.tokens))]

    def value_end(self, index):
        """The index behind the value that begins at `index`, judged by the grammar."""
        stack = []
        expect = "value"
        while True:
            kind = self.kind(index)
            if expect == "name" or (expect == "name or }" and kind != "}"):
                if kind != "string" or self.kind(index + 1) != ":":
                    raise Malformed(f"no member's name at token {index}")
                index, expect = index + 2, "value"
                continue
            index += 1
            if expect == "name or }" or (expect == "value or ]" and kind == "]"):
                stack.pop()
            elif expect in ("value", "value or ]"):
                if kind in "{[":
                    stack.append("}" if kind == "{" else "]")
                    expect = "name or }" if kind == "{" else "value or ]"
                    continue
                if kind not in ("string", "number", "word"):
                    raise Malformed(f"no value at token {index - 1}")
            elif kind == ",":
                expect = "name" if stack[-1] == "}" else "value"
                continue
            elif kind == stack[-1]:
                stack.pop()
            else:
                raise Malformed(f"neither a comma nor an end at token {index - 1}")
            if not stack:
                return index
            expect = "comma"

    def members(self, index):
        """The members of the object at `index`: (raw name, index of the value, the
        bytes between the colon and the next comma or brace, where those begin)."""
        found = []
        index += 1
        while self.kind(index) == "string":
            name, value = self.raw(index), index + 2
            index = self.value_end(value)
            start = self.tokens[value - 1].end
            found.append((name, value, self.data[start:self.tokens[index].start], start))
            if self.kind(index) == ",":
                index += 1
        return found


def decode(raw):
    """What a string token stands for, as bytes; a lone surrogate as CESU-8 has it."""
    if b"\\" not in raw:
        return raw[1:-1]
    text = ESCAPED.sub(lambda match: chr(int(match[1], 16)).encode("utf-8", "surrogatepass")
                       if match[1] else SHORT[match[2]], raw[1:-1])
    # Two escapes may make one character; they were put side by side above.
    return re.sub(rb"\xed[\xa0-\xaf].\xed[\xb0-\xbf].",
                  lambda match: match[0].decode("utf-8", "surrogatepass")
                  .encode("utf-16-le", "surrogatepass").decode("utf-16-le").encode(),
                  text, flags=re.DOTALL)


def text_of(value):
    """A column as SQLite's TEXT would hold it; None stays None."""
    return value.encode() if isinstance(value, str) else value


class Checker:
    """Collects everything that is wrong, each with its place in the payload."""

    def __init__(self, columns, payload, app_key, api_key, version):
        self.columns = {name: text_of(value) for name, value in columns.items()}
        self.payload = payload
        self.keys = (text_of(app_key), text_of(api_key))
        self.format = self.columns.get("format") or b"bedrock"
        self.version = version or VERSIONS.get(self.format.decode(), "3.0.0")
        self.problems = []

    def blame(self, where, what):
        self.problems.append(f"{where}: {what}")

    def run(self):
        try:
            self.reader = Reader(self.payload)
        except Malformed as error:
            self.blame("payload", str(error))
            return self.problems
        self.object("payload", 0, self.expected())
        return self.problems

    def expected(self):
        """What section 2 of the contract calls for: (name, check, its argument)."""
        columns = self.columns
        user = self.present(("userId", "string", "user_id"),
                            ("isAuthenticated", "number", "is_authenticated"),
                            ("firstName", "string", "first_name"),
                            ("lastName", "string", "last_name"), ("email", "string", "email"),
                            ("phone", "string", "phone"), ("gender", "string", "gender"))
        kind = columns["type"] if columns.get("type") is not None else b"chat"
        reconify = [("format", "string", self.format), ("type", "string", kind),
                    ("version", "string", self.version.encode()),
                    ("appKey", "string", self.keys[0]), ("apiKey", "string", self.keys[1])]
        times = [("request", "time", columns.get("request_at")),
                 *self.present(("response", "number", "response_at"))]
        if self.format == b"bedrock":
            request = ("request", "object with extra",
                       self.present(("modelId", "string", "model_id"),
                                    ("contentType", "string", "content_type"),
                                    ("accept", "string", "accept"),
                                    ("body", "string", "request_body")))
            response = ("response", "object",
                        self.present(("requestId", "string", "request_id"),
                                     ("body", "json", "response_body")))
        else:
            request = ("request", "json", columns["request_body"])
            response = ("response", "json", columns["response_body"])
        return [("reconify", "object", reconify), ("timestamps", "object", times),
                *self.present(("session", "string", "session"),
                              ("sessionTimeout", "number", "session_timeout")),
                *([("user", "object", user)] if user else []), request, response]

    def present(self, *members):
        return [(name, check, self.columns[column]) for name, check, column in members
                if self.columns.get(column) is not None]

    def object(self, where, index, expected, extra=None):
        if self.reader.kind(index) != "{":
            self.blame(where, "is not an object")
            return
        found = self.reader.members(index)
        names = [name for name, *_ in found]
        ours = [f'"{name}"'.encode() for name, *_ in expected]
        if names[:len(ours)] != ours or (extra is None and len(names) != len(ours)):
            self.blame(where, f"has the members {names}, not {ours}")
            return
        for (name, check, argument), (_, value, span, _) in zip(expected, found):
            self.value(f"{where}.{name}", check, argument, value, span)
        if extra is not None:
            self.extra(where, index, found[len(ours) - 1], extra)

    def value(self, where, check, argument, index, span):
        reader = self.reader
        if check == "object":
            self.object(where, index, argument)
        elif check == "object with extra":
            self.object(where, index, argument, self.columns.get("request_extra") or b"{}")
        elif check == "json":
            self.json(where, argument, span)
        elif check == "string":
            if reader.kind(index) != "string":
                self.blame(where, f"is a {reader.kind(index)}, not a string")
            elif decode(reader.raw(index)) != argument:
                self.blame(where, "decodes to other bytes than the column has")
        elif check == "time" and argument is None:
            # The column's default: the moment of the insert.
            if reader.kind(index) != "number" or not re.fullmatch(rb"[0-9]{13}",
                                                                  reader.raw(index)):
                self.blame(where, "is not a time in milliseconds")
        elif reader.kind(index) != "number" or reader.raw(index) != b"%d" % argument:
            self.blame(where, f"is {reader.raw(index)[:40]}, not {argument}")

    def json(self, where, expected, span):
        """`span` is what stands in the place of `expected`, white space included."""
        if span == expected:
            return
        try:
            got, wanted = Reader(span).raws(), Reader(expected).raws()
        except Malformed as error:
            self.blame(where, str(error))
            return
        for number, (one, other) in enumerate(zip(got, wanted)):
            if one != other:
                self.blame(where, f"token {number} is {one[:40]}, not {other[:40]}")
                return
        if len(got) != len(wanted):
            self.blame(where, f"has {len(got)} tokens, not {len(wanted)}")
        else:
            self.blame(where, "has the right tokens with other white space between them")

    def extra(self, where, index, last, extra):
        """Behind our own members stand those of request_extra, as they stand there."""
        reader = self.reader
        _, _, span, start = last
        rest = self.payload[start + len(span):
                            reader.tokens[reader.value_end(index) - 1].start]
        inner = extra[extra.index(b"{") + 1:extra.rindex(b"}")]
        wanted = b"," + inner if b'"' in inner else b""
        if rest != wanted:
            self.blame(where, f"ends in {rest[:60]}, not in request_extra's {wanted[:60]}")


def check(columns, payload, app_key, api_key, version=None):
    """All that is wrong with `payload`, in words; an empty list where nothing is.

    `columns` maps a column's name to what was inserted: bytes or str for text, int
    for numbers, None or no entry for NULL. `version` overrides the built-in one.
    """
    return Checker(columns, payload, app_key, api_key, version).run()


def main(arguments):
    import records

    if len(arguments) != 3:
        sys.exit(__doc__)
    record = records.read(arguments[1])
    with open(arguments[2], "rb") as file:
        payload = file.read()
    # Whose keys they are is not this check's business on the command line.
    keys = re.search(rb'"appKey":("(?:[^"\\]|\\.)*"),"apiKey":("(?:[^"\\]|\\.)*")', payload)
    app_key, api_key = (decode(keys[1]), decode(keys[2])) if keys else (b"", b"")
    problems = check(record.columns, payload, app_key, api_key)
    print("\n".join(problems) or "right")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
