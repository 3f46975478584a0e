"""The grammar of CSV (RFC 4180): which lines are whole records, and what their fields hold.

A quote opens a value only at the start of a field; elsewhere it is a character as any other. Inside, two
quotes are one, and separators and newlines are text. With an escape, the quote, the separator and the escape
itself are text behind it, inside quotes or not; before anything else it is text itself.
"""

import re
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

QUOTE = '"'
_LINE_ENDS = "\r\n"


@dataclass(frozen=True)
class Quoting:
    """How a file quotes. Both are single characters; `separator` is neither a quote nor a line end."""

    separator: str
    escape: str | None = None

    @classmethod
    def of(cls, separator: str, escape: str | None) -> "Quoting | None":
        """The rules for these settings; None if the separator leaves no room for quotes."""
        if len(separator) != 1 or separator in QUOTE + _LINE_ENDS:
            return None
        return cls(separator, None if escape is None or escape in QUOTE + _LINE_ENDS + separator else escape)

    def are_special(self, lines: pa.Array) -> pa.Array:
        """Whether lines hold more than separators and plain text. False for null."""
        special = pc.match_substring(lines, QUOTE)
        if self.escape is not None:
            special = pc.or_(special, pc.match_substring(lines, self.escape))
        return pc.fill_null(special, False)

    def are_whole(self, lines: pa.Array) -> pa.Array:
        """Whether each line is a record of its own: every quote that opens is closed."""
        return self._match(lines, rf"(?:{self._field}{self._end})*{self._field}")

    def open_a_value(self, lines: pa.Array) -> pa.Array:
        """Whether a quoted value begins in each line and does not end there."""
        return self._match(lines, rf'(?:{self._field}{self._end})*"{self._inside}')

    def close_a_value(self, lines: pa.Array) -> pa.Array:
        """Whether each line ends a quoted value that an earlier line opened, and the record with it."""
        return self._match(lines, rf'{self._inside}"(?:{self._end}{self._field})*')

    def keep_a_value_open(self, lines: pa.Array) -> pa.Array:
        """Whether behind each line a quoted value is open if one was open before it."""
        again = rf'"(?:{self._end}{self._field})*{self._end}"{self._inside}'
        return self._match(lines, rf"{self._inside}(?:{again})?")

    def fields(self, record: str) -> list[str]:
        """The fields of a whole record."""
        values, position, separator = [], 0, self.separator
        while separator:
            found = self._next_field.match(record, position)
            assert found is not None, "a whole record"
            quoted, plain, separator = found.groups()
            values.append(self._text(plain, False) if quoted is None else self._text(quoted, True))
            position = found.end()
        return values

    def _match(self, lines: pa.Array, pattern: str) -> pa.Array:
        return pc.match_substring_regex(lines, rf"\A{pattern}\z")

    @property
    def _end(self) -> str:
        return _literal(self.separator)

    @property
    def _special(self) -> str:
        return "" if self.escape is None else _literal(self.escape)

    @property
    def _inside(self) -> str:
        """The text of a quoted value. An escape takes what is behind it along, or ends the line."""
        escaped = rf"|{self._special}(?s:.)|{self._special}\z" if self.escape else ""
        return rf'(?:[^"{self._special}]|""{escaped})*'

    @property
    def _field(self) -> str:
        escaped = rf"|{self._special}(?:.|\z)" if self.escape else ""
        first = rf'(?:[^"{self._end}{self._special}\n]{escaped})'
        return rf'(?:"{self._inside}"|{first}(?:[^{self._end}{self._special}\n]{escaped})*|)'

    @cached_property
    def _next_field(self) -> re.Pattern[str]:
        """A field and what ends it. Possessive: a megabyte of text takes no stack of ways back."""
        escaped = rf"|{self._special}(?s:.|\Z)" if self.escape else ""
        inside = rf'(?:[^"{self._special}]++|""{escaped})*+'
        plain = rf"(?:[^{self._end}{self._special}]++{escaped})*+"
        return re.compile(rf'(?:"({inside})"|({plain}))({self._end}|\Z)')

    def _text(self, value: str, quoted: bool) -> str:
        if self.escape is None:
            return value.replace('""', QUOTE) if quoted else value
        doubled = '""|' if quoted else ""
        return re.sub(rf"{doubled}{_literal(self.escape)}(.)", self._unescaped, value, flags=re.DOTALL)

    def _unescaped(self, found: re.Match[str]) -> str:
        character: str | None = found[1]
        if character is None:
            return QUOTE
        return character if character in (QUOTE, self.separator, self.escape) else found[0]


def _literal(character: str) -> str:
    """A pattern for `character`, alone or in a class, that RE2 and `re` both know."""
    return rf"\x{ord(character):02x}" if character.isascii() else character
